"""The files of a Hugging Face folder, checked before anything is loaded."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from skipserve.errors import ConfigError
from skipserve.files import sha256_of
from skipserve.sources.graph_files import graph_files
from skipserve.sources.hugging_face import adapter as peft
from skipserve.sources.hugging_face.adapter import Adapter, adapter_in

CONFIG, TOKENIZER_CONFIG = "config.json", "tokenizer_config.json"
WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
# optimum writes the one or the other.
GRAPHS = ("model.onnx", "onnx/model.onnx")
PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")
# What a folder is of: ends of its architecture's name, or the file that sentence-transformers adds.
TEXTS, PICTURES, EMBEDDINGS = "ForSequenceClassification", "ForImageClassification", "modules.json"


@dataclass(frozen=True)
class Folder:
    """A Hugging Face folder.

    Attributes:
        path: Where it is.
        config: Its ``config.json``.
        graph: An ONNX file in place of weights, if it has no weights.
        tuned: Weights that take the place of its own, or ``None``.
        adapter: What PEFT tuned on top of its weights, or ``None``.
    """

    path: Path
    config: Mapping[str, Any]
    graph: Path | None
    tuned: Path | None = None
    adapter: Adapter | None = None

    @property
    def name(self) -> str:
        """The name of the folder that was brought."""
        return (self.path if self.adapter is None else self.adapter.path).name

    @property
    def architecture(self) -> str:
        """The class of transformers that its weights are of."""
        names = self.config.get("architectures") or [""]
        return str(names[0])

    @property
    def family(self) -> str | None:
        """``TEXTS``, ``PICTURES`` or ``EMBEDDINGS``; ``None`` if it is of another kind."""
        if self.adapter is not None and self.adapter.classifies:
            return TEXTS
        for suffix in (TEXTS, PICTURES):
            if self.architecture.endswith(suffix):
                return suffix
        return EMBEDDINGS if (self.path / EMBEDDINGS).is_file() else None

    def files(self) -> Iterator[Path]:
        """Files that the outcome depends on."""
        weights = graph_files(self.graph) if self.graph else sorted(self.path.glob("*.safetensors"))
        yield from weights
        beside = ["*/config.json"] if self.family == EMBEDDINGS else []
        for pattern in ("*.json", "*.txt", "*.model", *beside):
            yield from sorted(self.path.glob(pattern))
        if self.adapter is not None:
            yield from sorted(one for one in self.adapter.path.iterdir() if one.is_file())

    def sha256(self) -> str:
        """SHA-256 of all files."""
        digest = hashlib.sha256()
        for file in self.files():
            inside = file.is_relative_to(self.path)
            name = file.relative_to(self.path) if inside else Path("adapter", file.name)
            digest.update(f"{name} {sha256_of(file)}\n".encode())
        if self.tuned is not None:
            digest.update(sha256_of(self.tuned).encode())
        return digest.hexdigest()


def is_folder(path: Path) -> bool:
    """Whether a folder says that it is one of Hugging Face's."""
    return any((path / name).is_file() for name in (CONFIG, peft.CONFIG))


def open_folder(path: Path) -> Folder:
    """Open a folder.

    Raises:
        ConfigError: If it holds no model, needs custom code, or its weights are a pickle.
    """
    if (path / peft.CONFIG).is_file():
        adapter = adapter_in(path, read_json(path / peft.CONFIG))
        base = open_folder(adapter.base)
        if base.graph is not None:
            raise ConfigError(
                f"{adapter.base} is a graph, to which no adapter can be added; expected "
                f"{WEIGHTS[0]}"
            )
        return replace(base, config=_headed(base.config, adapter.labels()), adapter=adapter)
    if not (path / CONFIG).is_file():
        raise ConfigError(
            f"{path} has no {CONFIG}; expected a Hugging Face folder, as save_pretrained writes it"
        )
    config = read_json(path / CONFIG)
    beside = path / TOKENIZER_CONFIG
    for name, values in ((CONFIG, config), (TOKENIZER_CONFIG, read_json(beside))):
        if values.get("auto_map"):
            raise ConfigError(
                f"{path / name} needs code of its own (auto_map), which is not run; export the "
                "model to ONNX where you trust it, and bring the file"
            )
    if any((path / name).is_file() for name in WEIGHTS):
        return Folder(path, config, None)
    graphs = [path / name for name in GRAPHS if (path / name).is_file()]
    if graphs:
        return Folder(path, config, graphs[0])
    if any((path / name).is_file() for name in PICKLES):
        raise ConfigError(
            f"{path} holds its weights as a pickle ({PICKLES[0]}), which can run code when it is "
            "opened; write them as safetensors first, with save_pretrained of transformers 5"
        )
    raise ConfigError(f"{path} holds no weights; expected {WEIGHTS[0]} or {GRAPHS[0]}")


def _headed(config: Mapping[str, Any], labels: int | None) -> Mapping[str, Any]:
    """The settings of a base under a head of so many labels, which the base may not name."""
    if labels is None or labels == len(config.get("id2label") or {}):
        return config
    return {**config, "id2label": None, "num_labels": labels}


def read_json(file: Path) -> dict[str, Any]:
    """A JSON file of settings; empty if the file does not exist.

    Raises:
        ConfigError: If it is not JSON, or holds no object.
    """
    values = read_any_json(file)
    if not isinstance(values, dict):
        raise ConfigError(f"{file} holds no object")
    return values


def read_any_json(file: Path) -> Any:
    """A JSON file that may hold a list; an empty object if it does not exist."""
    if not file.is_file():
        return {}
    try:
        return json.loads(file.read_text())
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{file} is not JSON: {error}") from None


def names_of(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the classes, by ``id2label``; empty where the folder gives none.

    Raises:
        ConfigError: If it does not name every class from 0 on, each differently.
    """
    given = config.get("id2label")
    if not given:
        return ()
    try:
        names = {int(key): str(name) for key, name in given.items()}
    except (AttributeError, ValueError):
        names = {}
    if sorted(names) != list(range(len(names))) or not names or len({*names.values()}) < len(names):
        raise ConfigError(
            f"id2label in {CONFIG} must name the classes 0, 1, …, each once and differently; "
            f"got {given!r}"
        )
    return tuple(names[i] for i in range(len(names)))
