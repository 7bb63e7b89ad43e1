"""A fixed depth as a graph of its own, open: the fairest rival of a router."""

from __future__ import annotations

from skipserve.artifacts.artifact import Artifact
from skipserve.artifacts.asked import Precision
from skipserve.graph.fixed_depth import fixed_depth
from skipserve.graph.memory import open_model
from skipserve.runtime.pieces import OnnxPiece


def fixed_alone(artifact: Artifact, precision: Precision, blocks: int) -> OnnxPiece | None:
    """Open the network up to the exit behind so many blocks, on one core.

    Args:
        artifact: With a router.
        precision: Of its files.
        blocks: Of the fixed depth.

    Returns:
        The open graph, which answers as rows do that leave there; ``None`` if no row can leave
        there.
    """
    spec = artifact.manifest.router
    stages = artifact.files("onnx", precision, "stage")
    if spec is None or spec.policy == "skip" or not stages or blocks not in spec.decisions:
        return None
    place = [one.blocks for one in spec.exits].index(blocks)
    return OnnxPiece(open_model(fixed_depth(stages[: place + 1])))
