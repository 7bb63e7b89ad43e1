"""A network and its rows as a person names them, looked for before anything slow is imported."""

from __future__ import annotations

from pathlib import Path

from skipserve.errors import ConfigError
from skipserve.sources.columns import require_rows


def require_source(source: str) -> None:
    """Look whether a source is there; a module is not imported.

    Raises:
        ConfigError: If it is no file, no folder and no name of a function.
    """
    file = Path(source)
    if source.endswith(".onnx"):
        if not file.is_file():
            raise ConfigError(f"{source} is not there; name an .onnx file")
    elif file.is_file() or (not file.exists() and ":" not in source):
        raise no_source(source)


def no_source(name: str) -> ConfigError:
    """The error for a name that is no source of any kind."""
    return ConfigError(
        f"{name!r} is no .onnx file, no folder that is there, and names no function; write "
        "FILE.onnx, the path of a Hugging Face folder, or module:function"
    )


def require_sources(source: str, data: Path, fit: Path | None) -> None:
    """Look whether a network and its rows are there.

    Args:
        source: As a person names it.
        data: Its rows.
        fit: Rows to fit on, or ``None``.

    Raises:
        ConfigError: Naming the first that is not.
    """
    require_source(source)
    require_rows(data)
    if fit is not None:
        require_rows(fit)
