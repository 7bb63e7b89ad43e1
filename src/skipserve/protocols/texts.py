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
            return self.texts([inputs], field), True
        if not isinstance(inputs, list):
            raise _wrong(field)
        if not inputs:
            raise _empty(field)
        if all(isinstance(one, str) for one in inputs):
            return self.texts(inputs, field), False
        if all(_is_token(one) for one in inputs):
            return self._tokens([inputs]), True
        if all(isinstance(one, list) and one and all(map(_is_token, one)) for one in inputs):
            return self._tokens(inputs), False
        raise _wrong(field)

    def texts(self, values: Sequence[object], field: str) -> Values:
        """Texts or pairs of texts, at least one.

        Args:
            values: A row each.
            field: Of the request that they come from, for the error.

        Raises:
            InputError: If the model has nothing to make tokens of them, or there are too many.
        """
        if not values:
            raise _empty(field)
        self._check_count(len(values))
        if self._manifest.text is None:
            raise InputError(
                "no_tokenizer",
                f"{self._manifest.model} takes token ids and no texts: it was brought without a "
                "tokenizer",
            )
        return Values(values)

    def check_cut(self, side: str | None, field: str) -> None:
        """Whether long texts lose the end that a request wants them to lose.

        Args:
            side: ``left`` or ``right``, in capitals or not; ``None``: whatever the model does.
            field: Of the request, for the error.

        Raises:
            InputError: If the tokenizer of the model cuts the other one.
        """
        text = self._manifest.text
        if side is not None and text is not None and side.lower() != text.truncation:
            raise InputError(
                "invalid_parameter",
                f"{field} is {side!r}, and the tokenizer of {self._manifest.model} cuts long texts "
                f"on the {text.truncation}; leave it out",
            )

    def _check_count(self, rows: int) -> None:
        if rows > self._max_rows:
            raise InputError(
                "too_many_rows", f"{rows} rows, at most {self._max_rows} are answered at once"
            )

    def _tokens(self, rows: list[list[int]]) -> Tensors:
        self._check_count(len(rows))
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


def _empty(field: str) -> InputError:
    return InputError("empty", f"{field} holds no row; send at least one")


def _wrong(field: str) -> InputError:
    return InputError("wrong_type", f"{field} must be {EXPECTED}")
