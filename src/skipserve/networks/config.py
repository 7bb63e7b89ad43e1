"""Network configuration, the same in TOML, checkpoint and manifest."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from skipserve.errors import ConfigError, suggestion
from skipserve.schema import Record, parse

Connection = Literal["plain", "residual", "gated"]
Placement = Literal["none", "pre", "post", "peri"]
Positive = Annotated[int, Field(gt=0)]


class NetworkConfig(Record):
    """The choices common to all families.

    Attributes:
        inputs: Shape of one row, without the batch dimension.
        classes: Number of classes the head tells apart.
        depth: Number of blocks.
        width: Width of the residual stream.
        connection: ``plain`` (``f(x)``), ``residual`` (``x + αf(x)``) or ``gated``
            (``x + g(x)·(f(x) − x)`` with a learned sigmoid ``g``).
        family: ``mlp``, a perceptron on flat rows; ``convnet``, 1-D convolutions on a signal;
            ``encoder``, a transformer on the patches of a signal.
        norm: Where normalisation stands: ``none``; ``pre`` (before ``f``); ``post`` (after the
            sum); ``peri`` (before and after ``f``).
        alpha: Scale of the update of a residual block.
    """

    family: str
    inputs: tuple[Positive, ...]
    classes: Annotated[int, Field(ge=2)]
    depth: Annotated[int, Field(ge=1, le=1000)] = 20
    width: Positive = 64
    connection: Connection = "residual"
    norm: Placement = "none"
    alpha: Annotated[float, Field(gt=0)] = 1 / math.sqrt(2)

    @property
    def skippable(self) -> bool:
        """Whether skipping a block leaves the stream unchanged."""
        return self.connection != "plain"


class MLPConfig(NetworkConfig):
    """A multilayer perceptron on flat rows."""

    family: Literal["mlp"] = "mlp"


class ConvNetConfig(NetworkConfig):
    """A 1-D convolutional network on a signal of ``inputs = (length,)``.

    Normalisation is over channels and positions together (GroupNorm with one group): statistics
    of a batch would differ between rows that leave and rows that stay.

    Attributes:
        kernel: Width of the convolutions, in samples.
    """

    family: Literal["convnet"] = "convnet"
    depth: Annotated[int, Field(ge=1, le=1000)] = 12
    norm: Placement = "pre"
    alpha: Annotated[float, Field(gt=0)] = 1.0
    kernel: Annotated[int, Field(ge=1)] = 5


class EncoderConfig(NetworkConfig):
    """A transformer encoder on a signal of ``inputs = (length,)`` cut into patches.

    Attributes:
        heads: Attention heads; divides ``width``.
        expansion: Hidden width of the feed-forward part, in multiples of ``width``.
        patch: Samples per token; divides the length of the input.
        pooling: How tokens become one vector: their ``mean``, or a learned ``class`` token.
    """

    family: Literal["encoder"] = "encoder"
    depth: Annotated[int, Field(ge=1, le=1000)] = 12
    norm: Placement = "pre"
    alpha: Annotated[float, Field(gt=0)] = 1.0
    heads: Positive = 4
    expansion: Positive = 4
    patch: Positive = 1
    pooling: Literal["mean", "class"] = "mean"

    def model_post_init(self, _context: Any) -> None:
        if self.width % self.heads:
            raise ValueError(f"heads = {self.heads} does not divide width = {self.width}")
        if self.inputs[0] % self.patch:
            raise ValueError(f"patch = {self.patch} does not divide the length {self.inputs[0]}")


FAMILIES: dict[str, type[NetworkConfig]] = {
    "mlp": MLPConfig,
    "convnet": ConvNetConfig,
    "encoder": EncoderConfig,
}


def parse_network(values: Mapping[str, Any], where: str = "network") -> NetworkConfig:
    """Read a network configuration from parsed TOML or JSON.

    Raises:
        ConfigError: On an unknown family or key, or a value out of range.
    """
    family = values.get("family", "mlp")
    if family not in FAMILIES:
        hint = suggestion(str(family), FAMILIES, "")
        raise ConfigError(f"{where}: unknown family {family!r}; {hint}")
    return parse(FAMILIES[family], values, where)
