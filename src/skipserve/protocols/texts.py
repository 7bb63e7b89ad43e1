"""Texts and token ids as clients of other servers send them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skipserve.artifacts.manifest import Manifest
from skipserve.errors import InputError
from skipserve.protocols.messages import Tensors, Values
from skipserve.runtime.rows import Rows
from skipserve.signature import TensorSpec

EXPECTED = "a string, a list of strings, a list of token ids or a list of such lists"


def reads_texts(manifest: Manifest) -> bool:
    """Whether a model takes texts or token ids."""
    if manifest.preprocessing is not None:
        return manifest.text is not None
    return _ids(manifest) is not None


def token_ids(manifest: Manifest) -> str:
    """Name of the input that takes token ids, of a model that reads texts."""
    spec = _ids(manifest)
    assert spec is not None
    return spec.name


def token_count(rows: Rows | None, manifest: Manifest) -> int:
    """How many tokens rows hold, padding not counted."""
    spec = _ids(manifest)
    if rows is None or spec is None:
        return 0
    mask = manifest.signature.mask
    if mask is not None:
        return int(np.count_nonzero(rows.tensors[mask]))
    return int(rows.tensors[spec.name].size)


class TextRows:
    """Reads texts and tokens for one model.

    Args:
        manifest: Of the model.
        max_rows: Most rows a request may hold.
    """

    def __init__(self, manifest: Manifest, max_rows: int) -> None:
        self._manifest = manifest
        self._max_rows = max_rows

    def read(self, inputs: object, field: str) -> tuple[Tensors | Values, bool]:
        """The rows of a request, and whether it is a single value outside a list.

        Args:
            inputs: As JSON gave them.
            field: Of the request, for the error.

        Raises:
            InputError: Saying what was expected.
        """
        if isinstance(inputs, str):
            return self.texts([inputs]), True
        if not isinstance(inputs, list):
            raise _wrong(field)
        self._check_count(len(inputs), field)
        if all(isinstance(one, str) for one in inputs):
            return self.texts(inputs), False
        if all(_is_token(one) for one in inputs):
            return self._tokens([inputs], field), True
        if all(isinstance(one, list) and one and all(map(_is_token, one)) for one in inputs):
            return self._tokens(inputs, field), False
        raise _wrong(field)

    def texts(self, values: Sequence[object]) -> Values:
        """Texts or pairs of texts, at least one.

        Raises:
            InputError: If the model has nothing to make tokens of them, or there are too many.
        """
        self._check_count(len(values), "inputs")
        if self._manifest.text is None:
            raise InputError(
                "no_tokenizer",
                f"{self._manifest.model} takes token ids and no texts: it was brought without a "
                "tokenizer",
            )
        return Values(values)

    def _check_count(self, rows: int, field: str) -> None:
        if not rows:
            raise InputError("empty", f"{field} holds no row; send at least one")
        # A list of token ids is one row of any length, so its count is checked later.
        if rows > self._max_rows and field == "inputs":
            raise self._too_many(rows)

    def _too_many(self, rows: int) -> InputError:
        return InputError(
            "too_many_rows", f"{rows} rows, at most {self._max_rows} are answered at once"
        )

    def _tokens(self, rows: list[list[int]], field: str) -> Tensors:
        if len(rows) > self._max_rows:
            raise self._too_many(len(rows))
        manifest, spec = self._manifest, _ids(self._manifest)
        assert spec is not None
        mask, lengths = manifest.signature.mask, [len(row) for row in rows]
        if mask is None and len(set(lengths)) > 1:
            raise InputError(
                "ragged",
                f"{manifest.model} has no mask, so the rows of one request have one length; send "
                "them one by one",
            )
        longest = max(lengths)
        padding = 0 if manifest.text is None else manifest.text.padding
        tensors: dict[str, NDArray[Any]] = {
            one.name: np.zeros((len(rows), longest), np.int64) for one in manifest.signature.inputs
        }
        tensors[spec.name][:] = padding
        for i, row in enumerate(rows):
            try:
                tensors[spec.name][i, : len(row)] = row
            except OverflowError:
                raise InputError(
                    "wrong_type", f"row {i} holds a number that is no token", i
                ) from None
            if mask is not None:
                tensors[mask][i, : len(row)] = 1
        return tensors


def _ids(manifest: Manifest) -> TensorSpec | None:
    """The input that takes token ids, if there is one."""
    signature, text = manifest.signature, manifest.text
    if text is not None:
        return signature.input(text.ids)
    whole = [one for one in signature.inputs if one.dtype.startswith("int")]
    if len(whole) < len(signature.inputs) or any(len(one.shape) != 2 for one in whole):
        return None
    return next((one for one in whole if one.name != signature.mask), None)


def _is_token(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _wrong(field: str) -> InputError:
    return InputError("wrong_type", f"{field} must be {EXPECTED}")
