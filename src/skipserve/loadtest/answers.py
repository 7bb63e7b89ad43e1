"""Checking replies against the known answers of the rows that were sent."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import msgspec
import numpy as np
from pydantic import TypeAdapter

from skipserve.loadtest.payloads import Choice, Pool
from skipserve.tasks import AnyTask, Classify, Task


class Output(msgspec.Struct):
    """One row of a reply."""

    depth_run: int
    held_back: bool = False
    label: int | None = None
    labels: list[int] | None = None
    probabilities: list[float] | None = None
    values: list[float] | None = None
    embedding: list[float] | None = None
    score: float | None = None


class Answer(msgspec.Struct):
    """A reply of the native protocol."""

    outputs: list[Output]
    router: str
    risk: float | None = None
    router_reason: str = ""


@dataclass
class Finding:
    """Findings about one reply.

    Attributes:
        failure: Why the reply is wrong; empty if it is right.
        routed_rows: Rows that were answered with the router on.
        disagreements: Of these, rows that disagree with full depth, as the task defines it.
        unforeseen: Of these, rows that the artifact answers otherwise at its thresholds, too.
        blocks_run: Blocks the routed rows ran.
        held_back: Routed rows that the guard sent to full depth.
    """

    failure: str = ""
    routed_rows: int = 0
    disagreements: int = 0
    unforeseen: int = 0
    blocks_run: int = 0
    held_back: int = 0


_decoder = msgspec.json.Decoder(Answer)


def read_answer(content: bytes) -> Answer:
    """Decode a reply.

    Raises:
        msgspec.DecodeError: If it is not one.
    """
    return _decoder.decode(content)


def check(pool: Pool, choice: Choice, first: int, content: bytes) -> Finding:
    """Compare a reply with what is known about its rows.

    At full depth an answer that disagrees is a failure; with the router on it is a disagreement.

    Args:
        pool: Where the rows came from.
        choice: What was asked.
        first: Place of the first row in the pool.
        content: Body of the reply.
    """
    try:
        answer = read_answer(content)
    except msgspec.DecodeError as error:
        return Finding(f"malformed reply: {error}")
    if len(answer.outputs) != choice.rows:
        return Finding(f"malformed reply: {len(answer.outputs)} answers for {choice.rows} rows")
    routed = answer.router == "on"
    if routed and choice.router == "off":
        return Finding("wrong answer: the router was on, asked for off")
    found, task = Finding(), _task(pool.task, pool.width)
    foreseen = pool.routed.get(choice.router, pool.full)
    for offset, output in enumerate(answer.outputs):
        row = (first + offset) % len(pool.rows)
        if problem := _malformed(output, pool, task):
            return Finding(f"malformed reply: {problem}")
        if not routed:
            if not _same(task, output, pool.full[row]):
                return Finding("wrong answer: another than the artifact gives at full depth")
            if output.depth_run != pool.depth:
                return Finding("wrong answer: router off, and not every block was run")
            continue
        found.routed_rows += 1
        found.blocks_run += output.depth_run
        found.held_back += output.held_back
        if not _same(task, output, pool.full[row]):
            found.disagreements += 1
            found.unforeseen += not _same(task, output, foreseen[row])
    return found


@cache
def _task(text: str, width: int) -> Task:
    task: Task = TypeAdapter(AnyTask).validate_json(text) if text else Classify(classes=width)
    return task


def _same(task: Task, output: Output, known: Any) -> bool:
    """Whether a row agrees with a known answer: by its decision, or else by its numbers."""
    decision = task.decision_in(output)
    if decision is not None:
        return bool(decision == known)
    served = np.array([task.answer_in(output)], np.float32)
    return bool(task.agree(served, np.array([known], np.float32))[0])


def _malformed(output: Output, pool: Pool, task: Task) -> str:
    answer = task.answer_in(output)
    if len(answer) != pool.width:
        classes = f"{pool.width} classes" if task.classes else f"an answer of {pool.width}"
        return f"{len(answer)} {task.output} for {classes}"
    if fault := task.fault_in(output):
        return fault
    if not 0 <= output.depth_run <= pool.depth:
        return f"{output.depth_run} of {pool.depth} blocks run"
    return ""
