"""The manifest: everything an artifact says about itself, as JSON beside its model files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from skipserve.files import replace_text
from skipserve.routing.measures import CONFIDENCE, RISKS
from skipserve.schema import Record

MANIFEST = "manifest.json"
MANIFEST_VERSION: Literal[1] = 1

Format = Literal["onnx", "torchscript"]
Precision = Literal["fp32", "fp16"]
SUFFIXES: dict[Format, str] = {"onnx": "onnx", "torchscript": "pt"}


def model_file_name(format: Format, precision: Precision) -> str:
    """Name of a model file in its artifact, such as ``model.fp32.onnx``."""
    return f"model.{precision}.{SUFFIXES[format]}"


class TensorSpec(Record):
    """Name, dtype and shape of an input or output.

    ``-1`` stands for the batch; in ``signals`` for the decisions taken in it.
    """

    name: str
    dtype: Literal["float32", "int64", "bool"]
    shape: tuple[int, ...]


class Parity(Record):
    """How far a file's probabilities lie from those of the FP64 network.

    Attributes:
        tolerance: Largest absolute difference that would have been published.
        largest_difference: Largest absolute difference that was seen.
        rows: Rows compared: random ones, far ones and real ones.
        decisions: The same for the decisions, if the file has a router.
    """

    tolerance: float
    largest_difference: float
    rows: int
    decisions: DecisionParity | None = None


class DecisionParity(Record):
    """How many rows a file runs as deep as the eager FP32 router does, at the same thresholds.

    Attributes:
        tie_band: Rows with a signal this near to its threshold, relative to it, do not count.
        rows: Rows outside the tie band.
        equal: Share of them that ran equally deep and were held back alike.
    """

    tie_band: float
    rows: int
    equal: float


class RouterSpec(Record):
    """The router inside the model files.

    Attributes:
        signal: What is compared with the thresholds.
        policy: ``exit`` or ``skip``.
        decisions: Blocks run when each decision is taken; one threshold each.
        exit_heads: ``shared`` or ``distilled``: what answers for rows that leave.
        guard_quantile: Of the calibration rows; 1.0 is off.
        guard_limit: The ``guard_limit`` that lies there; ``None`` is +inf, off.
        grouping: How the stages were chosen, in words, with the measured costs.
        risks: The ε that `skipserve certify` certifies unless told otherwise.
        confidence: 1 − δ that a certificate must have to be used.
    """

    signal: str
    policy: Literal["exit", "skip"]
    decisions: tuple[int, ...]
    exit_heads: Literal["shared", "distilled"] = "shared"
    guard_quantile: float
    guard_limit: float | None
    grouping: str
    risks: tuple[float, ...] = RISKS
    confidence: Annotated[float, Field(gt=0, lt=1)] = CONFIDENCE


class ModelFile(Record):
    """One model file of an artifact."""

    path: str
    format: Format
    precision: Precision
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    size_bytes: int
    parity: Parity


class Example(Record):
    """A row and its answer at full depth, to try a server with."""

    inputs: tuple[Any, ...]
    label: int
    probabilities: tuple[float, ...]


class Depths(Record):
    """Two rows to see a router with: of those tried, the first to leave and the last.

    Attributes:
        shallow: A row whose answer is settled early.
        deep: A row whose answer is settled late, or only at full depth.
    """

    shallow: tuple[Any, ...]
    deep: tuple[Any, ...]


class Manifest(Record):
    """What an artifact holds and where it came from.

    Attributes:
        name: The model's name; also its name on the server.
        recipe: The recipe whose data it was trained and checked on.
        network: Configuration of the network.
        accuracy: Test accuracy of the checkpoint, a ratio.
        checkpoint_sha256: Of the weights it was exported from.
        opset: Of the ONNX files.
        inputs: What the graph takes.
        outputs: What the graph gives.
        files: One entry per model file.
        largest_activation: Largest absolute value seen inside the network on the parity rows;
            FP16 ends at 65,504.
        example: A row and its answer.
        router: The router in the files, or ``None``.
        depths: Rows that it runs unequally deep, or ``None``.
        versions: Packages that made the files.
    """

    manifest_version: Literal[1] = MANIFEST_VERSION
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_]*$", max_length=64)]
    recipe: str
    network: dict[str, Any]
    accuracy: float
    checkpoint_sha256: str
    opset: int
    inputs: Annotated[tuple[TensorSpec, ...], Field(min_length=1)]
    outputs: Annotated[tuple[TensorSpec, ...], Field(min_length=1)]
    files: tuple[ModelFile, ...]
    largest_activation: float
    example: Example
    versions: dict[str, str]
    router: RouterSpec | None = None
    depths: Depths | None = None

    def model_post_init(self, _context: Any) -> None:
        if not isinstance(self.network.get("depth"), int):
            raise ValueError("network.depth is missing")

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Shape of one input row."""
        return self.inputs[0].shape[1:]

    @property
    def classes(self) -> int:
        """Number of classes."""
        return self.outputs[0].shape[-1]

    @property
    def depth(self) -> int:
        """Number of blocks."""
        depth = self.network["depth"]
        assert isinstance(depth, int)
        return depth


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Write a directory's manifest, replacing an older one as a whole."""
    replace_text(directory / MANIFEST, manifest.model_dump_json(indent=2) + "\n")
