"""Torch modules as sources: ``module:function`` names a function that makes one."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from skipserve.artifacts.manifest import Source
from skipserve.artifacts.torch_files import export_module
from skipserve.errors import ConfigError, CutError
from skipserve.sources.named import no_source
from skipserve.training.tuning.weights import load_tuned

OUTPUT = "logits"


def read_module(
    name: str, root: Path, tuned: Path | None = None
) -> tuple[onnx.ModelProto, Source, nn.Module]:
    """Call ``module:function`` and export what it returns.

    Args:
        name: Of the function; it takes nothing and returns a torch module and an example of its
            inputs (a tensor, a tuple, or a mapping by name) of at least two rows.
        root: Folder that is looked in first.
        tuned: Weights that take the place of its own.

    Returns:
        The graph, where it comes from, and the module.

    Raises:
        ConfigError: If there is no such function, or it returns something else.
        CutError: If the module cannot be exported.
    """
    module, example = _made(name, root)
    if tuned is not None:
        load_tuned(module, tuned)
    return *module_graph(module, example, name), module


def weights_of(name: str, root: Path) -> str:
    """SHA-256 of the weights of what ``module:function`` returns.

    Args:
        name: Of the function.
        root: Folder that is looked in first.

    Raises:
        ConfigError: If there is no such function, or it returns something else.
    """
    return _weights_hash(_made(name, root)[0])


def module_graph(module: nn.Module, example: Any, name: str) -> tuple[onnx.ModelProto, Source]:
    """Export a torch module with its batch free, and integer inputs' second dimension too.

    Raises:
        ConfigError: If the example is no tensors of at least two rows.
        CutError: If the module cannot be exported.
    """
    inputs = _named(module, example)
    rows = {len(tensor) for tensor in inputs.values() if tensor.ndim}
    if len(rows) != 1 or min(rows) < 2:
        raise ConfigError(f"{name}: the example must hold at least two rows of every input")
    free = tuple(
        {0: "batch", 1: "length"}
        if not tensor.is_floating_point() and tensor.ndim == 2
        else {0: "batch"}
        for tensor in inputs.values()
    )
    try:
        model = export_module(module.eval(), tuple(inputs.values()), tuple(inputs), OUTPUT, free)
    except Exception as error:  # the exporter raises its own exception types
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CutError(
            f"{name} cannot be exported: {reason}; bring an ONNX file of the network instead"
        ) from None
    return model, Source(kind="module", name=name, sha256=_weights_hash(module))


def _made(name: str, root: Path) -> tuple[nn.Module, Any]:
    """A module and an example of its inputs."""
    made = _call(name, root)
    if not (isinstance(made, tuple) and len(made) == 2 and isinstance(made[0], nn.Module)):
        raise ConfigError(
            f"{name} must return a torch module and an example of its inputs, "
            f"got {type(made).__name__}"
        )
    return made


def _call(name: str, root: Path) -> Any:
    where, _, function = name.partition(":")
    if not where or not function:
        raise no_source(name)
    sys.path.insert(0, str(root))
    try:
        return getattr(importlib.import_module(where), function)()
    except ImportError as error:
        raise ConfigError(f"{where} cannot be imported: {error}") from None
    except AttributeError as error:
        raise ConfigError(f"{name}: {error}") from None
    finally:
        sys.path.remove(str(root))


def _named(module: nn.Module, example: Any) -> dict[str, Tensor]:
    if isinstance(example, Mapping):
        inputs = dict(example)
    else:
        values = example if isinstance(example, tuple) else (example,)
        names = list(inspect.signature(module.forward).parameters)
        inputs = dict(zip(names, values, strict=False))
    if not inputs or not all(isinstance(one, Tensor) for one in inputs.values()):
        raise ConfigError("the example must be a tensor, a tuple of tensors or a mapping of them")
    return inputs


def _weights_hash(module: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        digest.update(name.encode())
        # Flat first: the count of batches that a BatchNorm has seen is a number without dimensions.
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
