"""A network and its rows as a person names them, looked for before anything slow is imported."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from skipserve.errors import ConfigError
from skipserve.sources.columns import require_rows
from skipserve.sources.hugging_face.folder import open_folder

# A file that is no graph is small, as a rule; a graph with its weights in it is read once, later.
SMALL_BYTES = 1 << 20


def require_source(source: str, root: Path | None = None) -> None:
    """Look whether a source is there and is what it is named as; a module is not imported.

    Args:
        source: As a person names it.
        root: Folder that modules are looked for in first; the working directory by default.

    Raises:
        ConfigError: If it is no file, no folder of a model and no name of a function.
        CutError: If it is a small file that holds no graph.
    """
    file = Path(source)
    if source.endswith(".onnx"):
        if not file.is_file():
            raise ConfigError(f"{source} is not there; name an .onnx file")
        if file.stat().st_size < SMALL_BYTES:
            from skipserve.graph.prepare import read_structure

            read_structure(file)
    elif file.is_dir():
        open_folder(file)
    elif file.exists() or ":" not in source:
        raise no_source(source)
    else:
        _require_module(source, root or Path())


def _require_module(source: str, root: Path) -> None:
    where, _, function = source.partition(":")
    if where.endswith(".py"):
        if not (root / where).is_file():
            raise ConfigError(f"{where} is not there; name a module and its function, module:fn")
        module = where.removesuffix(".py").replace("/", ".")
        raise ConfigError(f"{where} is a file; name the module: {module}:{function or 'function'}")
    if not where or not function or not all(part.isidentifier() for part in where.split(".")):
        raise no_source(source)
    first = where.partition(".")[0]
    here = (root / f"{first}.py").is_file() or (root / first).is_dir()
    if not here and find_spec(first) is None:
        raise ConfigError(
            f"there is no module {first!r}: neither {first}.py here nor an installed package"
        )


def no_source(name: str) -> ConfigError:
    """The error for a name that is no source of any kind."""
    return ConfigError(
        f"{name!r} is no .onnx file, no folder that is there, and names no function; write "
        "FILE.onnx, the path of a Hugging Face folder, or module:function"
    )


def require_sources(source: str, data: Path, fit: Path | None, root: Path | None = None) -> None:
    """Look whether a network and its rows are there.

    Args:
        source: As a person names it.
        data: Its rows.
        fit: Rows to fit on, or ``None``.
        root: Folder that modules are looked for in first; the working directory by default.

    Raises:
        ConfigError: Naming the first that is not.
        CutError: If the network is a small file that holds no graph.
    """
    require_source(source, root)
    require_rows(data)
    if fit is not None:
        require_rows(fit)
