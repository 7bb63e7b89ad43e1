"""What evidence is bound to stays the same from one version of this package to the next."""

from __future__ import annotations

import numpy as np

from skipserve.artifacts.manifest import Manifest
from skipserve.earning.binding import binding_of
from skipserve.signature import BATCH, Signature, TensorSpec
from skipserve.tasks import Score

SAID = {
    "name": "ranker",
    "source": {"kind": "onnx", "name": "net.onnx", "sha256": "0" * 64},
    "signature": Signature(
        inputs=(TensorSpec(name="x", dtype="float32", shape=(BATCH, 2)),),
        outputs=(TensorSpec(name="y", dtype="float32", shape=(BATCH, 1)),),
    ),
    "task": Score(tolerance=0.5),
    "depth": 2,
    "residual": True,
    "opset": 17,
    "files": (),
    "parity": (),
    "largest_activation": 1.0,
    "example": {"inputs": {"x": [0.0, 0.0]}, "answer": (0.0,)},
    "versions": {},
    "router": {
        "signal": "norm",
        "policy": "exit",
        "exits": ({"blocks": 1, "stream": "s", "features": 3},),
        "guard_quantile": 1.0,
        "guard_limit": None,
        "chosen": "",
    },
}
# As it was before scores could count queries.
BINDING = "ba308b11dcf10f7e660496a3e9acf37d48439b4b07fabd542b7ed6561bdf9a14"


def binding(task: Score) -> str:
    manifest = Manifest.model_validate({**SAID, "task": task})
    candidates = np.array([[1.0], [0.5]], np.float32)
    return binding_of(manifest, candidates, {"a": "0" * 64}, "fp32", "cpu")


def test_what_a_score_model_earned_is_kept_at_an_upgrade() -> None:
    assert binding(Score(tolerance=0.5)) == BINDING
    assert len({BINDING, *(binding(Score(tolerance=0.5, top=top)) for top in (1, 2))}) == 3


def test_a_score_that_counts_rows_is_written_as_before() -> None:
    assert Score(tolerance=0.5).model_dump(mode="json") == {"tolerance": 0.5, "kind": "score"}
    counts = Score(tolerance=0.5, top=3)
    assert Score.model_validate(counts.model_dump()) == counts
    assert '"top":3' in counts.model_dump_json()
