"""skipserve: serve a residual network only as deep as each input needs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from skipserve.artifacts.artifact import Artifact
    from skipserve.artifacts.asked import AskedPrecision, AskedProvider, BackendName
    from skipserve.runtime.engine import Engine

# Without ``open``: a star import must not shadow the builtin.
__all__ = ["__version__", "bring", "pipeline"]
# The only place of the version: a source folder on the path has no metadata.
__version__ = "0.1.0"


def open(  # noqa: A001 - reads as skipserve.open
    directory: str | os.PathLike[str],
    *,
    backend: BackendName = "onnxruntime",
    precision: AskedPrecision = "auto",
    provider: AskedProvider = "auto",
    threads: int = 1,
) -> Engine:
    """Open an artifact directory for prediction.

    Args:
        directory: Holds ``manifest.json`` and the files it names.
        backend: ``onnxruntime`` or ``torchscript``.
        precision: ``auto`` takes FP16 on CUDA and FP32 on a CPU, where there are such files.
        provider: ``auto`` takes CUDA where there is one.
        threads: Cores used inside one operation; 0 takes all.

    Example:
        >>> engine = skipserve.open("artifacts/moons_residual")  # doctest: +SKIP
        >>> engine.predict([[0.5, -0.2]]).labels  # doctest: +SKIP
        array([1])

    Raises:
        ArtifactError: If it is missing, foreign or damaged, or has no such files.
        LaunchError: If ``cuda`` was asked for and is not there.
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


def pipeline(task: str, model: str | os.PathLike[str], risk: float | None = None) -> Any:
    """Open an artifact that answers as a pipeline of transformers does.

    Args:
        task: ``text-classification`` or ``image-classification``.
        model: A name in artifacts/, or an artifact directory.
        risk: ε of the router; full depth for ``None``, or where nothing so careful is certified.

    Example:
        >>> classify = skipserve.pipeline("text-classification", "spam", 0.01)  # doctest: +SKIP
        >>> classify("you won a prize")  # doctest: +SKIP
        [{'label': 'spam', 'score': 0.998}]

    Raises:
        ConfigError: If there is no such pipeline or artifact, or the model takes no
            such values.
    """
    from skipserve.pipelines import pipeline as open_pipeline

    return open_pipeline(task, model, risk)


def bring(
    source: Any,
    rows: str | os.PathLike[str] | Mapping[str, Any],
    *,
    name: str,
    risk: float = 0.01,
    labels: str | None = None,
    text: str | Sequence[str] = (),
    task: Literal["classify", "multilabel", "regress", "embed", "score"] | None = None,
    tolerance: float | None = None,
    top: int | None = None,
    query: str | None = None,
    project: str | os.PathLike[str] = ".",
) -> Artifact:
    """Bring a trained network: cut it, fit exits, certify, package.

    Args:
        source: An ``.onnx`` file, a Hugging Face folder, or a pair of a torch module and an example
            of its inputs of at least two rows.
        rows: A file of rows, or arrays [N, …] by input.
        name: Of the model.
        risk: ε that is wanted.
        labels: Name of the column of true classes, if there is one.
        text: Names of the columns of texts: one, or two for pairs; found where none is named.
        task: What its answers are; where it is left out, what a folder proposes, else ``classify``.
        tolerance: Of ``regress`` and ``score``: the largest difference from full depth that agrees.
        top: Of ``score``: certify queries; one disagrees if another document is among its first
            ``top``.
        query: The column that says which query a row belongs to; the first text of each pair where
            it is left out.
        project: Folder that gets export/, artifacts/ and model_store/.

    Returns:
        The artifact, certified as far as the rows allow.

    Example:
        >>> made = skipserve.bring("net.onnx", "rows.npz", name="net")  # doctest: +SKIP
        >>> skipserve.open(made.directory).predict(rows, risk=0.01).depth_run  # doctest: +SKIP
        array([0, 0, 3])

    Raises:
        ConfigError: If the name, the rows or the risk is wrong.
        CutError: If the network cannot be cut.
    """
    from skipserve.building.bring import bring_objects

    texts = (text,) if isinstance(text, str) else tuple(text)
    said = {"labels": labels, "text": texts, "task": task, "tolerance": tolerance}
    said |= {"top": top, "query": query, "name": name, "risk": risk}
    return bring_objects(source, rows, said, Path(project))
