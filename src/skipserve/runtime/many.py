"""Many rows: batches that run in parallel, one on each core."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from skipserve.runtime.rows import Rows

T = TypeVar("T")


def in_batches(run: Callable[[Rows], T], rows: Rows, size: int, workers: int) -> Iterator[T]:
    """Results of a function on batches of rows, in order.

    ONNX Runtime on a CPU takes batches side by side: several cores on one operation wait for each
    other, the longer the busier the machine is.

    Args:
        run: Is called from several threads where there are several workers.
        rows: Any number of them.
        size: Of a batch.
        workers: Batches that run side by side.
    """
    batches = [rows[start : start + size] for start in range(0, len(rows), size)]
    if workers == 1:
        yield from map(run, batches)
        return
    with ThreadPoolExecutor(workers) as pool:
        yield from pool.map(run, batches)
