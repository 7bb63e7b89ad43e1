"""The origin of an artifact: network, source and router."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from skipserve.artifacts.asked import Precision
from skipserve.artifacts.manifest import Source
from skipserve.artifacts.parity import Expected
from skipserve.preprocessing.config import Preprocessing
from skipserve.routing.config import ExitsConfig, RouterConfig
from skipserve.routing.network import Network
from skipserve.routing.placing import FittedRouter

if TYPE_CHECKING:
    from skipserve.networks import ResidualNetwork


@dataclass(frozen=True)
class Prepared:
    """Preprocessing: turns texts or pictures into the inputs of a network.

    Attributes:
        config: What the manifest says of it.
        files: Content of the files that it needs, by name.
    """

    config: Preprocessing
    files: Mapping[str, bytes]


@dataclass(frozen=True)
class Origin:
    """The origin of an artifact.

    Attributes:
        source: Where it comes from.
        network: Its plain graph in FP32, its blocks found.
        expected: Answers of the source, to compare files with.
        torch: The network in PyTorch, where it was trained here: TorchScript takes it.
        prepared: What turns values into rows, if anything does.
        values: Those that the expected rows were made of.
        notes: What a person should know of it, in words.
        query: The column of queries in its rows, or ``None``.
        columns: The columns of texts or pictures in its rows, where they were named.
    """

    source: Source
    network: Network
    expected: Expected
    torch: ResidualNetwork | None = None
    prepared: Prepared | None = None
    values: tuple[object, ...] = ()
    notes: tuple[str, ...] = ()
    query: str | None = None
    columns: tuple[str, ...] = ()


@dataclass(frozen=True)
class Routing:
    """A router, fitted separately for each precision that needs it.

    Attributes:
        exits: What was asked for.
        router: What was asked for.
        fitted: By precision; FP16 takes those of FP32.
    """

    exits: ExitsConfig
    router: RouterConfig
    fitted: dict[Precision, FittedRouter] = field(default_factory=dict)

    def of(self, precision: Precision) -> FittedRouter:
        """The router of files in a precision."""
        return self.fitted["int8" if precision == "int8" else "fp32"]
