"""Inputs of a model: texts, pictures or anything array-like in, checked rows out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from skipserve.artifacts.artifact import Artifact
from skipserve.errors import InputError
from skipserve.preprocessing.opening import open_preprocessor
from skipserve.preprocessing.preprocessor import Preprocessor, TextPreprocessor, Token
from skipserve.runtime.rows import Rows, check_rows


class Inputs:
    """Makes the rows of one model.

    Args:
        artifact: Of the model.
    """

    def __init__(self, artifact: Artifact) -> None:
        self._manifest = artifact.manifest
        self._preprocessor = open_preprocessor(artifact)

    def check(self, rows: object) -> Rows:
        """Validate a batch: a mapping of input names to arrays, or one array for a single input.

        Raises:
            InputError: Naming the input and the first row that are wrong.
        """
        return check_rows(rows, self._manifest.signature, self._manifest.name)

    def prepare(self, values: Sequence[object]) -> Rows:
        """Rows from the texts or pictures of one request, which has bounds.

        Args:
            values: At least one, as a client sends it, or bytes.

        Raises:
            InputError: If the model takes only tensors, naming the first row that is wrong, or if
                the pictures are too large together.
        """
        return self.check(self._takes_values()(values))

    def prepare_many(self, values: Sequence[object], first: int = 0) -> Rows:
        """Rows from any number of texts or pictures; what bounds a request does not bound them.

        Args:
            values: At least one, as a client sends it, or bytes.
            first: Number of the first, for the error.

        Raises:
            InputError: If the model takes only tensors, or naming the first row that is wrong.
        """
        prepare = self._takes_values()
        # Texts are padded to one length.
        if isinstance(prepare, TextPreprocessor) or len(values) < 2:
            return self.check(prepare(values, first))
        parts = [prepare([one], row) for row, one in enumerate(values, first)]
        return self.check({name: np.concatenate([one[name] for one in parts]) for name in parts[0]})

    def _takes_values(self) -> Preprocessor:
        if self._preprocessor is None:
            raise InputError("wrong_type", f"{self._manifest.name} takes tensors alone")
        return self._preprocessor

    def tokens(self, values: Sequence[object], special: bool) -> list[list[Token]]:
        """The tokens of texts.

        Args:
            values: Texts.
            special: Whether special tokens are added, such as ``[CLS]``.

        Raises:
            InputError: If the model takes no texts, or a value is not a text.
        """
        if not isinstance(self._preprocessor, TextPreprocessor):
            raise InputError("no_tokenizer", f"{self._manifest.name} takes no texts")
        return self._preprocessor.tokens(values, special)

    def read(self, inputs: object) -> Rows:
        """Rows from whatever a caller in Python has.

        Args:
            inputs: Anything array-like of shape [B, *inputs], a mapping of input names to such, or
                a list of texts or pictures where the model takes them.

        Raises:
            InputError: If the inputs are not rows of the model.
        """
        if self._preprocessor is not None and isinstance(inputs, list):
            return self.prepare_many(inputs)
        try:
            arrays: Any = (
                {name: np.asarray(one) for name, one in inputs.items()}
                if isinstance(inputs, Mapping)
                else np.asarray(inputs)
            )
        except ValueError:
            raise InputError("ragged", "inputs must be rows of one length") from None
        return self.check(arrays)
