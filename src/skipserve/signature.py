"""The signature of a graph: its named inputs and outputs, their dtypes and dimensions."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field

from skipserve.schema import Record

Dtype = Literal["float32", "float16", "float64", "int64", "int32", "int16", "int8", "uint8", "bool"]
DTYPES: tuple[Dtype, ...] = get_args(Dtype)
# The first dimension of every tensor: one entry a row.
BATCH = "batch"


class TensorSpec(Record):
    """Name, dtype and shape of an input or output.

    Attributes:
        name: As the graph has it.
        dtype: NumPy's name.
        shape: Sizes; a word such as ``batch`` or ``length`` stands for a free one. Equal words are
            equal sizes.
        count: Whole numbers from 0 to one less are known to the network, such as the tokens of its
            vocabulary; ``None`` where nothing is known of that.
    """

    name: str
    dtype: Dtype
    shape: tuple[int | str, ...]
    count: int | None = None

    @property
    def row_shape(self) -> tuple[int | str, ...]:
        """Shape of one row, without the batch."""
        return self.shape[1:]


class Signature(Record):
    """Inputs and outputs of a graph.

    Attributes:
        inputs: At least one; the first dimension of each is the batch.
        outputs: At least one, likewise.
        mask: The input that says which positions of a row are real (1) and which are padding (0),
            if there is one: rows of different length can then be padded to one batch.
        largest: Largest size of a free dimension, by its word, where it is known.
    """

    inputs: Annotated[tuple[TensorSpec, ...], Field(min_length=1)]
    outputs: Annotated[tuple[TensorSpec, ...], Field(min_length=1)]
    mask: str | None = None
    largest: dict[str, int] = Field(default_factory=dict)

    def input(self, name: str) -> TensorSpec | None:
        """The input with a name, or ``None``."""
        return next((one for one in self.inputs if one.name == name), None)

    @property
    def symbols(self) -> dict[str, tuple[int | str, ...]]:
        """Dimensions of every input by name."""
        return {one.name: one.shape for one in self.inputs}
