"""The folder of a model as a person names it, found before anything slow is imported."""

from __future__ import annotations

from pathlib import Path

from skipserve.artifacts.manifest import MANIFEST
from skipserve.errors import ConfigError, suggestion
from skipserve.training.history import WEIGHTS

ARTIFACTS, CHECKPOINTS = "artifacts", "checkpoints"


def find_directory(text: str, root: Path | None = None) -> Path:
    """The directory of an artifact or a checkpoint.

    Args:
        text: Such a directory, or the name of one in artifacts/ or checkpoints/.
        root: Folder that holds those two; the working directory by default.

    Raises:
        ConfigError: If there is no such directory, or it is neither of the two.
    """
    folders = [(root or Path()) / ARTIFACTS, (root or Path()) / CHECKPOINTS]
    places = [Path(text), *(folder / text for folder in folders)]
    for one in places:
        if any((one / file).is_file() for file in (MANIFEST, WEIGHTS)):
            return one
    directory = next((one for one in places if one.is_dir()), None)
    if directory is not None:
        raise ConfigError(
            f"{directory} is neither an artifact (it has no {MANIFEST}) nor a checkpoint (it has "
            f"no {WEIGHTS}); make both with `skipserve build export/NAME.toml`"
        )
    raise _nowhere(text, folders)


def _nowhere(text: str, folders: list[Path]) -> ConfigError:
    if text.endswith(".onnx"):
        return ConfigError(
            f"{text!r} is a graph and no model yet; `skipserve bring {text} --data ROWS` makes one"
        )
    if Path(text).is_file():
        return ConfigError(
            f"{text!r} is a file, expected a directory of an artifact or a checkpoint, or the name "
            f"of one in {ARTIFACTS}/ or {CHECKPOINTS}/"
        )
    names = {one.name for folder in folders if folder.is_dir() for one in folder.iterdir()}
    hint = suggestion(Path(text).name, names, "make one with `skipserve build export/NAME.toml`")
    return ConfigError(
        f"{text!r} is no directory, and no name in {ARTIFACTS}/ or {CHECKPOINTS}/; {hint}"
    )
