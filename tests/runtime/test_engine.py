"""The engine: answers, agreement between files, and rows that are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from small_project import REORDERED

from skipserve.artifacts.artifact import Artifact
from skipserve.artifacts.parity import TOLERANCES
from skipserve.errors import InputError
from skipserve.runtime.engine import Engine
from skipserve.runtime.warming import warm_up
from skipserve.training.checkpoint import load_checkpoint

EVERY_FILE = pytest.mark.parametrize(
    ("backend", "precision"),
    [(backend, p) for backend in ("onnxruntime", "torchscript") for p in ("fp32", "fp16")],
)


# --- answers ---


@pytest.mark.parametrize("count", [1, 2, 64])
def test_a_prediction_has_one_answer_a_row(
    engine: Engine, rows: NDArray[np.float32], count: int
) -> None:
    prediction = engine.predict(rows[:count])
    assert (prediction.labels.shape, prediction.labels.dtype) == ((count,), np.int64)
    assert (prediction.depth_run.shape, prediction.depth_run.dtype) == ((count,), np.int64)
    assert prediction.answers.shape == (count, 2)
    assert prediction.answers.dtype == np.float32
    assert (prediction.depth_run == 4).all()
    assert (prediction.labels == prediction.answers.argmax(axis=1)).all()
    np.testing.assert_allclose(prediction.answers.sum(axis=1), 1, atol=REORDERED)


@pytest.mark.parametrize(
    "inputs",
    [
        [[1, 2], [3, 4]],
        ((1.0, 2.0), (3.0, 4.0)),
        np.array([[1, 2], [3, 4]], dtype=np.int8),
        np.array([[1, 2], [3, 4]], dtype=np.float16),
        np.array([[1, 3], [2, 4]], dtype=np.float64).T,
        torch.tensor([[1, 2], [3, 4]]),
    ],
    ids=["lists", "tuples", "int8", "float16", "transposed float64", "tensor"],
)
def test_anything_array_like_is_answered(engine: Engine, inputs: object) -> None:
    expected = engine.run(engine.check(np.float32([[1, 2], [3, 4]])))
    np.testing.assert_array_equal(engine.predict(inputs).answers, expected.answers)


@EVERY_FILE
def test_a_row_in_a_batch_is_answered_as_alone(
    artifact: Artifact, rows: NDArray[np.float32], backend: Any, precision: Any
) -> None:
    engine = Engine(artifact, backend=backend, precision=precision, provider="cpu")
    batch = engine.predict(rows)
    single = np.concatenate([engine.predict(row[None]).answers for row in rows])
    assert (batch.answers.argmax(1) == single.argmax(1)).all()
    tolerance = {"fp32": REORDERED, "fp16": TOLERANCES["fp16"]}[precision]
    np.testing.assert_allclose(batch.answers, single, rtol=0, atol=tolerance)


@EVERY_FILE
def test_every_file_answers_as_the_network_does(
    artifact: Artifact,
    checkpoint: Path,
    rows: NDArray[np.float32],
    backend: Any,
    precision: Any,
) -> None:
    with torch.no_grad():
        logits = load_checkpoint(checkpoint).network.double()(torch.from_numpy(rows).double())
    expected = logits.softmax(dim=1).numpy()
    engine = Engine(artifact, backend=backend, precision=precision, provider="cpu")
    assert (engine.backend, engine.precision, engine.provider) == (backend, precision, "cpu")
    difference = np.abs(engine.predict(rows).answers - expected).max()
    assert difference <= TOLERANCES[precision], f"largest difference {difference:.3g}"


def test_the_manifests_example_is_true(engine: Engine) -> None:
    example = engine.manifest.example
    prediction = engine.predict({name: [one] for name, one in example.inputs.items()})
    assert prediction.labels[0] == engine.manifest.task.labels(np.array([example.answer]))[0]
    np.testing.assert_allclose(
        prediction.answers[0], example.answer, rtol=0, atol=TOLERANCES["fp32"]
    )


def test_part_of_a_prediction_holds_the_answers_of_its_rows(
    engine: Engine, rows: NDArray[np.float32]
) -> None:
    whole = engine.predict(rows)
    part = whole.rows(3, 7)
    np.testing.assert_array_equal(part.labels, whole.labels[3:7])
    np.testing.assert_array_equal(part.answers, whole.answers[3:7])
    np.testing.assert_array_equal(part.depth_run, whole.depth_run[3:7])


@pytest.mark.parametrize("threads", [0, 2])
def test_threads_change_no_answer(
    artifact: Artifact, engine: Engine, rows: NDArray[np.float32], threads: int
) -> None:
    other = Engine(artifact, provider="cpu", threads=threads)
    warm_up(other, batch_size=4)
    np.testing.assert_allclose(
        other.predict(rows).answers, engine.predict(rows).answers, atol=REORDERED
    )


# --- rows that cannot be answered ---

BAD_ROWS: dict[str, tuple[object, str, int | None, str]] = {
    "row too long": ([[1, 2, 3]], "wrong_shape", 0, "has shape [2], got rows of shape [3]"),
    "one row, not in a list": ([1, 2], "wrong_shape", 0, "has shape [2]"),
    "a number": (1.0, "wrong_shape", None, "has shape [2]"),
    "None": (None, "wrong_shape", None, "has shape [2]"),
    "no row": (np.zeros((0, 2)), "empty", None, "send at least one"),
    "ragged": ([[1, 2], [3]], "ragged", None, "rows of one length"),
    "words": ([["1", "2"]], "wrong_type", None, "must be numbers"),
    "None in a row": ([[1, None]], "wrong_type", None, "must be numbers"),
    "complex": ([[1, 2j]], "wrong_type", None, "must be numbers"),
    "huge integers": ([[10**400, 1]], "wrong_type", None, "must be numbers"),
    "NaN": ([[1, 2], [3, np.nan]], "not_finite", 1, "row 1 holds NaN"),
    "infinity": ([[1, 2], [3, 4], [-np.inf, 5]], "not_finite", 2, "row 2 holds"),
    "beyond float32": ([[1, 2], [1e39, np.nan]], "not_finite", 1, "beyond float32"),
    "infinity in float16": (np.float16([[1, 2], [np.inf, 1]]), "not_finite", 1, "row 1 holds"),
}


@pytest.mark.parametrize(("inputs", "code", "row", "says"), BAD_ROWS.values(), ids=BAD_ROWS)
def test_bad_rows_are_told_what_was_expected(
    engine: Engine, inputs: object, code: str, row: int | None, says: str
) -> None:
    with pytest.raises(InputError) as caught:
        engine.predict(inputs)
    assert (caught.value.code, caught.value.row) == (code, row)
    assert says in caught.value.message


array_likes = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=1),
    max_leaves=8,
)


@given(inputs=array_likes)
def test_no_input_raises_anything_but_an_input_error(engine: Engine, inputs: object) -> None:
    try:
        prediction = engine.predict(inputs)
    except InputError as error:
        assert error.message
    else:
        assert len(prediction.labels) == len(inputs)  # type: ignore[arg-type]
