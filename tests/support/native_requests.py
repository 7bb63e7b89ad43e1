"""Requests of the native protocol."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

MAX_ROWS = 8
Decode = Callable[..., NDArray[np.float32]]


def request(rows: object, **fields: object) -> bytes:
    return json.dumps({"inputs": rows, **fields}).encode()
