"""Making the task's answer the only output of a graph."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from skipserve.errors import ConfigError, CutError
from skipserve.graph.memory import open_model
from skipserve.runtime.rows import Rows
from skipserve.signature import BATCH
from skipserve.tasks import Link, Task, TaskConfig

# Answers whose rows sum to one within this are probabilities already; the same of lengths.
ABOUT_ONE = 1e-3
# Rows used to inspect the output of a network.
LOOKED_AT = 32
_EXPECTED = {
    "classify": "logits or probabilities of at least two classes",
    "multilabel": "a logit or a probability of each label",
    "regress": "its values",
    "embed": "a vector of at least two numbers",
    "score": "one number",
}
_FEWEST = {"classify": 2, "embed": 2}


def as_answer(
    model: onnx.ModelProto, rows: Rows, config: TaskConfig
) -> tuple[onnx.ModelProto, Task]:
    """Make the answer of the task the only output of a graph; returns the task too.

    Args:
        model: As it was brought.
        rows: Real ones.
        config: What its answers are.

    Raises:
        CutError: If its first output is not one answer a row.
        ConfigError: If what was said of the task does not fit.
    """
    output = model.graph.output[0].name
    some = rows[:LOOKED_AT]
    try:
        given: NDArray[Any] = open_model(model).run([output], some.tensors)[0]
    except Exception as error:  # ONNX Runtime raises its own exception types
        raise CutError(f"the graph does not run on the rows: {error}") from None
    given_shape = list(given.shape)
    if given.ndim == 1 and config.kind in ("multilabel", "regress", "score"):
        given = given[:, None]
    width = given.shape[1] if given.ndim == 2 else 0
    if len(given) != len(some) or width < _FEWEST.get(config.kind, 1) or not _fits(config, width):
        raise CutError(
            f"the output {output!r} has shape {given_shape} for {len(some)} rows; expected "
            f"one answer a row: {_EXPECTED[config.kind]}"
        )
    if not np.isfinite(given).all():
        raise CutError(f"the output {output!r} is not finite on the rows that were brought")
    task = config.task(width, _are_unit(given))
    link: Link = "identity" if _is_answer(given, task.link) else task.link
    return _with_link(model, output, task, link), task


def _fits(config: TaskConfig, width: int) -> bool:
    return config.kind != "score" or width == 1


def _are_unit(given: NDArray[Any]) -> bool:
    lengths = np.linalg.norm(given.astype(np.float64), axis=1)
    return bool((np.abs(lengths - 1) < ABOUT_ONE).all())


def _is_answer(given: NDArray[Any], link: Link) -> bool:
    """Whether the output of a network has passed through the link already."""
    if link == "softmax":
        return bool(np.abs(given.sum(axis=1) - 1).max() < ABOUT_ONE and given.min() >= 0)
    if link == "sigmoid":
        return bool(given.min() >= 0 and given.max() <= 1)
    return True


def _with_link(model: onnx.ModelProto, output: str, task: Task, link: Link) -> onnx.ModelProto:
    made = onnx.ModelProto()
    made.CopyFrom(model)
    graph = made.graph
    taken = {one.name for one in (*graph.input, *graph.initializer)}
    taken |= {name for node in graph.node for name in node.output}
    # Exporters call an inner tensor "embedding", too.
    answer = task.output if task.output not in taken else f"{task.output}/answer"
    del graph.output[:]
    made_of = f"{answer}/float"
    graph.node.append(helper.make_node("Cast", [output], [made_of], to=TensorProto.FLOAT))
    if len(model.graph.output[0].type.tensor_type.shape.dim) == 1:  # a column of its own
        shape, column = f"{answer}/shape", f"{answer}/column"
        graph.initializer.append(numpy_helper.from_array(np.array([-1, task.width]), shape))
        graph.node.append(helper.make_node("Reshape", [made_of, shape], [column]))
        made_of = column
    kinds = {"softmax": "Softmax", "sigmoid": "Sigmoid"}
    last = helper.make_node(kinds.get(link, "Identity"), [made_of], [answer])
    if link == "softmax":
        last.attribute.append(helper.make_attribute("axis", -1))
    graph.node.append(last)
    value = helper.make_tensor_value_info(answer, TensorProto.FLOAT, [BATCH, task.width])
    graph.output.append(value)
    return made


def check_answers(task: Task, answers: NDArray[np.float64]) -> None:
    """Refuse a network that gives all rows the same answer.

    Raises:
        ConfigError: Saying what to look at.
    """
    first = np.broadcast_to(answers[:1], answers.shape)
    if len(answers) > 1 and task.agree(answers, first).all():
        raise ConfigError(
            f"the network answers all of {len(answers)} rows alike: there is nothing to tell "
            "apart; check that the rows are scaled as in training"
            + (", and the tolerance" if task.link in ("identity", "unit") else "")
        )
