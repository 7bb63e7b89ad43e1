"""Pooling of sentence-transformers: how the tokens of a text become one vector."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from skipserve.errors import ConfigError
from skipserve.sources.hugging_face.folder import (
    CONFIG,
    EMBEDDINGS,
    Folder,
    read_any_json,
    read_json,
)

Mode = Literal["mean", "cls", "max"]
LAYOUTS = (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"])
LIBRARY = "sentence_transformers."
# What the files of its version 5 and earlier call the modes, each with a value of its own.
FLAGS = {"mean_tokens": "mean", "cls_token": "cls", "max_tokens": "max"}
FLAG = "pooling_mode_"


@dataclass(frozen=True)
class Pooling:
    """Pooling settings.

    Attributes:
        mode: The mean of a text's tokens, its first one, or the largest of each number.
        unit: Whether it is brought to length 1.
    """

    mode: Mode
    unit: bool


def pooling_of(folder: Folder) -> Pooling:
    """The pooling settings of a folder.

    Raises:
        ConfigError: If they say anything but Transformer, Pooling and perhaps Normalize, or a mode
            that is not known.
    """
    file = folder.path / EMBEDDINGS
    modules = read_any_json(file)
    if not isinstance(modules, list) or not all(isinstance(one, Mapping) for one in modules):
        raise ConfigError(f"{file} holds no list of modules")
    kinds = [_kind(one) for one in modules]
    if kinds not in LAYOUTS:
        raise ConfigError(
            f"{file} lists {', '.join(kinds) or 'nothing'}; expected Transformer, Pooling and "
            "perhaps Normalize, as other modules are not brought; export the whole to ONNX and "
            "bring the file"
        )
    paths = [str(one.get("path") or "") for one in modules]
    if paths[0]:
        raise ConfigError(
            f"{file} has its Transformer in {paths[0]}; expected it in the folder itself, as "
            "sentence-transformers has written it since its version 2"
        )
    return Pooling(_mode(folder, paths[1]), unit="Normalize" in kinds)


def _kind(module: Mapping[str, Any]) -> str:
    """The class name of a module; the full path for modules of other libraries."""
    whole = str(module.get("type"))
    return whole.rpartition(".")[2] if whole.startswith(LIBRARY) else whole


def _mode(folder: Folder, path: str) -> Mode:
    file = folder.path / path / CONFIG
    values = read_json(file)
    said = values.get("pooling_mode")
    if said is None:
        flags = [key.removeprefix(FLAG) for key, on in values.items() if on is True]
        said = [FLAGS.get(one, one) for one in flags if f"{FLAG}{one}" in values]
    modes = [said] if isinstance(said, str) else list(said)
    if len(modes) != 1 or modes[0] not in get_args(Mode):
        raise ConfigError(
            f"{file} pools by {' and '.join(map(str, modes)) or 'nothing'}; expected one of "
            f"{', '.join(get_args(Mode))}"
        )
    if values.get("include_prompt") is False:
        raise ConfigError(f"{file} leaves prompts out of the pooling (include_prompt = false)")
    return cast(Mode, modes[0])
