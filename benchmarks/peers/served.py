"""What every peer serves: the same ONNX file on the same threads, set by the environment.

Rows are numbers; where there is a tokenizer, texts.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

NAME = os.environ["PEER_MODEL_NAME"]
FILE = Path(os.environ["PEER_MODEL_FILE"])
TOKENIZER = os.environ["PEER_TOKENIZER"]
Row = str if TOKENIZER else list[float]
PORT = int(os.environ["PEER_PORT"])
SPARE_PORTS = [int(port) for port in os.environ["PEER_SPARE_PORTS"].split(",")]
BATCH_SIZE = int(os.environ["PEER_BATCH_SIZE"])
BATCH_DELAY_S = 0.001
WORKERS = int(os.environ["PEER_WORKERS"])
THREADS = int(os.environ["PEER_THREADS"])
SCRATCH = Path(os.environ["PEER_SCRATCH"])
QUEUE_SIZE = 1000


class Model:
    """The model in an ONNX Runtime session with the options that skipserve uses."""

    def __init__(self) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = THREADS
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = ort.InferenceSession(FILE, options, providers=["CPUExecutionProvider"])
        spec = self._session.get_inputs()[0]
        self._inputs = [one.name for one in self._session.get_inputs()]
        self._tokenizer = None
        if TOKENIZER:
            from tokenizers import Tokenizer

            # It says itself where it truncates, and pads to the longest of a batch.
            self._tokenizer = Tokenizer.from_file(TOKENIZER)
        self.row_shape = spec.shape[1:]
        self.classes = self._session.get_outputs()[0].shape[1]

    def probabilities(self, rows: Any) -> np.ndarray:
        """Rows [B, *inputs], as lists or an array, or texts, to probabilities [B, classes]."""
        feeds = self._tokens(rows) if self._tokenizer else {"inputs": np.asarray(rows, np.float32)}
        return self._session.run(["probabilities"], feeds)[0]

    def _tokens(self, texts: list[str]) -> dict[str, np.ndarray]:
        encoded = self._tokenizer.encode_batch_fast(texts)
        made = {
            "input_ids": [one.ids for one in encoded],
            "attention_mask": [one.attention_mask for one in encoded],
            "token_type_ids": [one.type_ids for one in encoded],
        }
        return {name: np.array(made[name], np.int64) for name in self._inputs}


def outputs(probabilities: np.ndarray) -> list[dict[str, Any]]:
    """What the reply to a request holds for its rows."""
    labels = probabilities.argmax(axis=1).tolist()
    return [
        {"label": label, "probabilities": row}
        for label, row in zip(labels, probabilities.tolist(), strict=True)
    ]
