"""What a made ONNX file answers: how often it is right, and whether a row depends on its batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

Rows = dict[str, NDArray[np.generic]]


def check(
    model: Path, rows: Rows, labels: NDArray[np.int64], *, singles: int = 64, batch: int = 100
) -> tuple[float, float]:
    """Ask an ONNX file for the answers of all rows.

    Args:
        model: With one output of logits, [batch, classes], and a dynamic batch dimension.
        rows: By input name; rows in front.
        labels: [rows], the right classes.
        singles: This many of the first rows are asked one by one, too.
        batch: Rows a request.

    Returns:
        The fraction of rows answered rightly, and the largest difference between the logits of a
        row in a batch and of the same row alone.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])

    def ask(first: int, past: int) -> NDArray[np.float32]:
        taken = {name: values[first:past] for name, values in rows.items()}
        answers: NDArray[np.float32] = session.run(None, taken)[0]
        return answers

    count = len(labels)
    logits = np.concatenate([ask(i, min(i + batch, count)) for i in range(0, count, batch)])
    alone = np.concatenate([ask(i, i + 1) for i in range(singles)])
    right = float((logits.argmax(axis=1) == labels).mean())
    return right, float(np.abs(logits[:singles] - alone).max())
