"""Checks one reply against the known answers of the rows that were sent."""

from __future__ import annotations

import math
from dataclasses import dataclass

import msgspec

from skipserve.loadtest.payloads import Choice, Pool

# Probabilities travel as rounded decimals of FP32 or FP16.
SUMS_TO_ONE = 5e-3


class Output(msgspec.Struct):
    """One row of a reply."""

    label: int
    probabilities: list[float]
    depth_run: int
    held_back: bool = False


class Answer(msgspec.Struct):
    """A reply of the native protocol."""

    outputs: list[Output]
    router: str
    risk: float | None = None
    router_reason: str = ""


@dataclass
class Finding:
    """What one reply showed.

    Attributes:
        failure: Why the reply is wrong; empty if it is right.
        routed_rows: Rows that were answered with the router on.
        disagreements: Of these, rows whose label differs from full depth.
        unforeseen: Of these, rows whose label the artifact gives neither at full depth nor at its
            thresholds.
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

    At full depth a label that differs is a failure; with the router on it is a disagreement.

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
    found = Finding()
    foreseen = pool.routed.get(choice.router, pool.full)
    for offset, output in enumerate(answer.outputs):
        row = (first + offset) % len(pool.rows)
        if problem := _malformed(output, pool):
            return Finding(f"malformed reply: {problem}")
        if not routed:
            if output.label != pool.full[row]:
                return Finding("wrong answer: another label than the artifact at full depth")
            if output.depth_run != pool.depth:
                return Finding("wrong answer: router off, and not every block was run")
            continue
        found.routed_rows += 1
        found.blocks_run += output.depth_run
        found.held_back += output.held_back
        if output.label != pool.full[row]:
            found.disagreements += 1
            found.unforeseen += output.label != foreseen[row]
    return found


def _malformed(output: Output, pool: Pool) -> str:
    probabilities = output.probabilities
    if len(probabilities) != pool.classes:
        return f"{len(probabilities)} probabilities for {pool.classes} classes"
    if not all(0 <= one <= 1 for one in probabilities) or not math.isclose(
        sum(probabilities), 1, abs_tol=SUMS_TO_ONE
    ):
        return "probabilities are not between 0 and 1, or do not add up to 1"
    if not 0 <= output.label < pool.classes or probabilities[output.label] < max(probabilities):
        return "the label is not the most probable class"
    if not 0 <= output.depth_run <= pool.depth:
        return f"{output.depth_run} of {pool.depth} blocks run"
    return ""
