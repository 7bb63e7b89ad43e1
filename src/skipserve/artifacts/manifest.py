"""The manifest: the description of an artifact, as JSON beside its model files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from skipserve.artifacts.archive_names import split_key
from skipserve.artifacts.asked import Format, Precision
from skipserve.artifacts.router_spec import RouterSpec
from skipserve.files import replace_text
from skipserve.preprocessing.config import Preprocessing, TextInput
from skipserve.schema import Grown, Record, Sha256
from skipserve.signature import Signature
from skipserve.slices import UNSLICED, Slices
from skipserve.tasks import AnyTask

MANIFEST = "manifest.json"
MANIFEST_VERSION: Literal[3] = 3

Role = Literal["plain", "stage", "exit", "routed", "weights"]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_]*$", max_length=64)]


class Source(Record):
    """The source of a model.

    Attributes:
        kind: ``recipe``: trained here; ``onnx``: a file; ``module``: a torch module;
            ``hugging_face``: a folder.
        name: Of the recipe, the file, the function or the folder.
        sha256: Of the weights, the file or the files.
        network: Configuration of a network trained here.
        accuracy: Of the source on its test rows, a ratio, if it is known.
    """

    kind: Literal["recipe", "onnx", "module", "hugging_face"]
    name: str
    sha256: Sha256
    network: dict[str, Any] | None = None
    accuracy: float | None = None


class Parity(Record):
    """Differences of the files of one format and precision from their source.

    Attributes:
        format: Of the files.
        precision: Of the files.
        tolerance: Largest absolute difference of an answer that would have been published.
        largest_difference: Largest absolute difference that was seen.
        rows: Rows compared.
        decisions: The same for the decisions, if there is a router.
        disagreement: Share of the rows that are answered otherwise than by the source; ``None``
            where it was not counted.
    """

    format: Format
    precision: Precision
    tolerance: float
    largest_difference: float
    rows: int
    decisions: DecisionParity | None = None
    disagreement: float | None = None


class DecisionParity(Record):
    """How often files run rows as deep as the reference, at equal thresholds.

    Attributes:
        tie_band: Rows with a signal this near to its threshold, relative to it, do not count.
        rows: Rows outside the tie band.
        equal: Share of them that ran equally deep and were held back alike.
    """

    tie_band: float
    rows: int
    equal: float


class ModelFile(Record):
    """One file of an artifact.

    Attributes:
        path: Its name.
        role: ``plain``: the whole network; ``stage`` and ``exit``: its pieces, in order;
            ``routed``: network and router in one file; ``weights``: what ONNX files share.
        format: ONNX or TorchScript.
        precision: Of the numbers in it.
        sha256: Of its content.
        size_bytes: Of its content.
    """

    path: str
    role: Role
    format: Format
    precision: Precision
    sha256: Sha256
    size_bytes: int


class Example(Record):
    """An example row and its answer at full depth.

    Attributes:
        inputs: One row of each input, by name.
        answer: The answer.
        value: What a client sends for it, where the model takes texts or pictures.
    """

    inputs: dict[str, Any]
    answer: tuple[float, ...]
    value: Any = None


class Depths(Record):
    """Two rows that leave at different depths: the first and the last of those tried.

    Attributes:
        shallow: A row whose answer is settled early, by input.
        deep: A row whose answer is settled late, or only at full depth.
        values: What a client sends for the two, where the model takes texts or pictures.
    """

    shallow: dict[str, Any]
    deep: dict[str, Any]
    values: tuple[Any, Any] | None = None


class Manifest(Grown):
    """The content of an artifact and its source.

    Attributes:
        name: The model's name; also its name on the server.
        source: What it comes from.
        signature: What the network takes and gives.
        task: What its answer is.
        depth: Number of blocks.
        residual: Whether every block is a sum with what came in.
        opset: Of the ONNX files.
        files: All model files.
        parity: One entry a format and precision.
        largest_activation: Largest absolute value seen inside the network on the parity rows;
            FP16 ends at 65,504.
        example: A row and its answer.
        versions: Packages that made the files.
        router: The router, or ``None``.
        depths: Rows that it runs unequally deep, or ``None``.
        preprocessing: What turns texts or pictures into its inputs, or ``None``.
        query: The column of its rows that says which query one belongs to, where the task counts
            queries; ``None``: the first text of each pair. Files of rows are read so by default.
        columns: The columns of its rows that hold its texts or pictures, where they were named;
            files of rows are read so by default.
    """

    LATER: ClassVar[tuple[str, ...]] = ("query", "columns")

    manifest_version: Literal[3] = MANIFEST_VERSION
    name: Name
    source: Source
    signature: Signature
    task: AnyTask
    depth: Annotated[int, Field(ge=1)]
    residual: bool
    opset: int
    files: tuple[ModelFile, ...]
    parity: tuple[Parity, ...]
    largest_activation: float
    example: Example
    versions: dict[str, str]
    router: RouterSpec | None = None
    depths: Depths | None = None
    preprocessing: Preprocessing | None = None
    query: str | None = None
    columns: tuple[str, ...] = ()

    @property
    def model(self) -> str:
        """The name of the model; ``name`` has the version too where two versions are served."""
        return split_key(self.name)[0]

    @property
    def slices(self) -> Slices:
        """The slices of its traffic; without a router there is one, without a name."""
        return self.router.slices if self.router else UNSLICED

    @property
    def text(self) -> TextInput | None:
        """The text preprocessing, if the model takes texts."""
        made = self.preprocessing
        return made if isinstance(made, TextInput) else None

    @property
    def recipe(self) -> str | None:
        """Name of the recipe it was trained by, if it was trained here."""
        return self.source.name if self.source.kind == "recipe" else None

    @property
    def example_request(self) -> dict[str, Any]:
        """Body of a native request for the example."""
        if self.example.value is not None:
            return {"inputs": [self.example.value]}
        return self.request_of(self.example.inputs)

    @property
    def depths_request(self) -> dict[str, Any]:
        """Body of a native request for two rows of unequal depth, or for the example."""
        if self.depths is None:
            return self.example_request
        if self.depths.values is not None:
            return {"inputs": list(self.depths.values)}
        return self.request_of(self.depths.shallow, self.depths.deep)

    def request_of(self, *rows: dict[str, Any]) -> dict[str, Any]:
        """Body of a native request for rows of tensors, each a mapping by input."""
        names = [one.name for one in self.signature.inputs]
        # With preprocessing, rows without an input name are texts or pictures.
        if len(names) == 1 and self.preprocessing is None:
            return {"inputs": [row[names[0]] for row in rows]}
        return {"inputs": {name: [row[name] for row in rows] for name in names}}


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Write a directory's manifest, replacing an older one as a whole."""
    replace_text(directory / MANIFEST, manifest.model_dump_json(indent=2) + "\n")
