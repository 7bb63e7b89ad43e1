"""skipserve: serve a residual network only as deep as each input needs."""

from __future__ import annotations

import os
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from skipserve.runtime.engine import BackendName, Engine

__all__ = ["__version__", "open"]
__version__ = version("skipserve")


def open(  # noqa: A001 - reads as skipserve.open
    directory: str | os.PathLike[str],
    *,
    backend: BackendName = "onnxruntime",
    precision: Literal["auto", "fp32", "fp16"] = "auto",
    provider: Literal["auto", "cpu", "cuda"] = "auto",
    threads: int = 1,
) -> Engine:
    """Open an artifact directory for prediction.

    Example:
        >>> engine = skipserve.open("artifacts/moons_residual")  # doctest: +SKIP
        >>> engine.predict([[0.5, -0.2]]).labels  # doctest: +SKIP
        array([1])

    Raises:
        ArtifactError: If it is missing, foreign or damaged.
    """
    from skipserve.artifacts.artifact import open_artifact
    from skipserve.runtime.engine import Engine

    return Engine(
        open_artifact(Path(directory)),
        backend=backend,
        precision=precision,
        provider=provider,
        threads=threads,
    )
