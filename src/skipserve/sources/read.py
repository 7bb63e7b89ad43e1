"""The result of reading a source of any kind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import onnx

from skipserve.artifacts.manifest import Source
from skipserve.artifacts.origin import Prepared


@dataclass(frozen=True)
class ReadSource:
    """A network that was brought.

    Attributes:
        model: Its graph; the first output is the answer.
        source: Where it comes from.
        names: Of its classes, in order; empty where it gives none.
        prepared: What turns values into its inputs, if anything does.
        limits: Largest size of a free dimension, by its name, where it is known.
        notes: What a person should know of it, in words.
        module: The torch module, which takes the inputs in order, where it came from one.
    """

    model: onnx.ModelProto
    source: Source
    names: tuple[str, ...] = ()
    prepared: Prepared | None = None
    limits: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    module: Any = None
