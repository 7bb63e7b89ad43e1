"""Evidence: rows drawn by chance run everything, and judge every candidate."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kept_evidence import Kept, Told
from numpy.typing import NDArray

import skipserve
from skipserve.artifacts.serving import ServingConfig
from skipserve.earning.ladder import Ladder
from skipserve.protocols.messages import RawRequest, Reply
from skipserve.runtime.engine import Engine
from skipserve.safety.switch import ControlState
from skipserve.service.batches import Batches
from skipserve.service.evidence import Witness
from skipserve.service.reader import AcceptedRequest
from skipserve.service.runs import Runs
from skipserve.service.service import Service
from skipserve.training.recipes import open_recipe

RISK = 0.05


@pytest.fixture(scope="module")
def project(routed_project: tuple[Path, list[str]]) -> Path:
    return routed_project[0]


@pytest.fixture(scope="module")
def stepped(project: Path) -> Engine:
    """The files that run stage by stage."""
    return skipserve.open(project / "artifacts" / "small", provider="cpu")


@pytest.fixture(scope="module")
def moons() -> NDArray[np.float32]:
    """Rows of which about one in five is answered otherwise when it skips."""
    rows = open_recipe("two_moons").draw("certify").inputs.numpy()[:600]
    return np.float32(rows / 2 + rows.mean(0) / 2)


def request_of(rows: NDArray[np.float32], router: Any = None) -> RawRequest:
    body: dict[str, Any] = {"inputs": rows.tolist()}
    if router is not None:
        body["parameters"] = {"router": router}
    return RawRequest(json.dumps(body).encode(), {})


def outputs(replies: list[Reply]) -> list[dict[str, Any]]:
    return [one for reply in replies for one in json.loads(reply.body)["outputs"]]


def expected(engine: Engine, rows: NDArray[np.float32]) -> tuple[list[int], list[int]]:
    """Disagreements and blocks of every candidate, by running each."""
    checked = engine.check(rows)
    full = engine.run(checked).labels
    differ, blocks = [], []
    for thresholds in engine.candidates:
        answers = engine.run_thresholds(checked, thresholds, engine.guard_limit)
        differ.append(int((answers.labels != full).sum()))
        blocks.append(int(answers.depth_run.sum()))
    return differ, blocks


def test_every_candidate_is_judged_as_if_it_had_run(stepped, moons):
    kept = Kept()
    service = Service(stepped, ServingConfig(risk=RISK, evidence=1.0), counts={"": kept})
    replies = service.answer([request_of(part) for part in np.array_split(moons, 40)])
    differ, blocks = expected(stepped, moons)
    assert kept.rows == {0: len(moons)} and kept.dropped == 0
    assert kept.disagreements[0].tolist() == differ
    assert kept.blocks[0].tolist() == blocks
    assert differ[-1] > 60  # something could have been counted wrong
    # They were answered at full depth, and say so.
    told = outputs(replies)
    assert {one["depth_run"] for one in told} == {stepped.manifest.depth}
    assert [one["label"] for one in told] == stepped.predict(moons).labels.tolist()


def test_rows_that_propose_show_what_every_exit_read_and_are_no_evidence(stepped, moons, switch):
    kept, rows = Kept(), moons[:50] * 3  # outside the guard, some of them
    switch.write(ControlState(epoch=4, in_force=(), proposing=True))
    serving = ServingConfig(risk=RISK, evidence=1.0)
    Service(stepped, serving, switch=switch, counts={"": kept}).answer([request_of(rows)])
    assert not kept.rows
    ((epoch, shown),) = kept.shown
    readings = stepped.read(stepped.check(rows))
    leaves = [one.leaves for one in stepped.manifest.router.exits]
    farthest = np.maximum.accumulate(readings.distances, axis=1)[:, leaves]
    assert epoch == 4 and (farthest > 1).any()
    np.testing.assert_allclose(shown.distances, farthest, rtol=1e-4)
    np.testing.assert_allclose(shown.signals, readings.signals, rtol=1e-4)
    classes = readings.answers.argmax(axis=2)
    assert (shown.agrees == (classes[:, :-1] == classes[:, -1:])).all()


def test_what_was_proposed_is_in_force_with_its_own_guard_and_is_judged_by_it(
    stepped, moons, switch
):
    rows, name, own = moons[:64] * 4, "a" * 32, Kept()
    others = len(stepped.manifest.router.risks) - 1
    places, ladders = (*(None,) * others, 0), (*("",) * others, name)
    serving = ServingConfig(risk=RISK, evidence=0.0)
    kept = Kept()
    kept.ladders[name] = Ladder(stepped.candidates[-1:], 1e6, name)
    guarded = stepped.run_thresholds(stepped.check(rows), stepped.candidates[-1], 1.0)
    free = stepped.run_thresholds(stepped.check(rows), stepped.candidates[-1], 1e6)
    assert guarded.depth_run.sum() > free.depth_run.sum()
    switch.write(ControlState(epoch=1, in_force=places, proposals=ladders, proposal=name))
    service = Service(stepped, serving, switch=switch, counts={"": kept})
    told = outputs(service.answer([request_of(rows)]))
    assert [one["depth_run"] for one in told] == free.depth_run.tolist()
    # A service that knows of no such ladder runs everything, until it does.
    late = Kept()
    service = Service(stepped, serving, switch=switch, counts={"": late})
    told = outputs(service.answer([request_of(rows)]))
    assert {one["depth_run"] for one in told} == {stepped.manifest.depth}
    late.ladders |= kept.ladders
    told = outputs(service.answer([request_of(rows)]))
    assert [one["depth_run"] for one in told] == free.depth_run.tolist()
    watched = ServingConfig(risk=RISK, evidence=1.0)
    Service(stepped, watched, switch=switch, counts={"": kept}).answer([request_of(rows)])
    full = stepped.predict(rows).labels
    assert (kept.proposals, kept.rows) == ({name}, {1: len(rows)})
    assert kept.disagreements[1].tolist() == [int((free.labels != full).sum())]
    assert kept.blocks[1].tolist() == [int(free.depth_run.sum())]
    Service(stepped, watched, switch=switch, counts={"": own}).answer([request_of(rows)])
    assert not own.rows


def test_files_that_decide_inside_judge_what_is_in_force_and_earn_nothing_else(
    project, moons, switch
):
    engine = skipserve.open(project / "artifacts" / "small", provider="cpu", backend="torchscript")
    kept, place = Kept(), len(engine.candidates) - 1
    in_force = tuple(place if one == RISK else None for one in engine.manifest.router.risks)
    switch.write(ControlState(in_force=in_force))
    serving = ServingConfig(risk=RISK, evidence=1.0)
    service = Service(engine, serving, switch=switch, counts={"": kept})
    replies = service.answer([request_of(moons)])
    differ, blocks = expected(engine, moons)
    assert kept.disagreements[0][place] == differ[place] > 0
    assert kept.blocks[0][place] == blocks[place]
    others = np.delete(kept.disagreements[0], place)
    assert (others == len(moons)).all()
    assert {one["depth_run"] for one in outputs(replies)} != {engine.manifest.depth}
    switch.write(ControlState(epoch=1, in_force=(None,) * len(in_force)))
    service.answer([request_of(moons)])
    assert list(kept.rows) == [0]  # nothing could be learnt


def test_only_rows_whose_request_leaves_the_router_on_give_evidence(stepped, moons):
    kept = Kept()
    service = Service(stepped, ServingConfig(risk=RISK, evidence=1.0), counts={"": kept})
    service.answer([request_of(moons[:30], "off"), request_of(moons[30:50], {"risk": 0.02})])
    assert kept.rows == {0: 20}
    without = Kept()
    Service(stepped, ServingConfig(evidence=1.0), counts={"": without}).answer(
        [request_of(moons[:30])]
    )
    assert not without.rows


def test_a_share_of_the_rows_is_drawn_and_the_rest_leaves_as_before(stepped, moons):
    kept = Kept()
    service = Service(stepped, ServingConfig(risk=RISK, evidence=0.2), counts={"": kept})
    told = outputs(service.answer([request_of(moons[i : i + 3]) for i in range(0, 600, 3)]))
    # 600 draws at 0.2: five deviations of a binomial.
    assert 71 <= kept.rows[0] <= 169
    routed = stepped.predict(moons, RISK).depth_run
    deeper = sum(one["depth_run"] > depth for one, depth in zip(told, routed, strict=True))
    assert deeper <= kept.rows[0]
    assert all(one["depth_run"] >= depth for one, depth in zip(told, routed, strict=True))
    unchanged = sum(one["depth_run"] == d for one, d in zip(told, routed, strict=True))
    assert unchanged >= len(moons) - kept.rows[0]


def test_while_nothing_is_in_force_all_rows_give_evidence_at_full_depth(stepped, moons, switch):
    kept = Kept()
    switch.write(ControlState(epoch=3, in_force=(None,) * len(stepped.manifest.router.risks)))
    serving = ServingConfig(risk=RISK, evidence=0.01)
    service = Service(stepped, serving, switch=switch, counts={"": kept})
    (reply,) = service.answer([request_of(moons)])
    body = json.loads(reply.body)
    assert body["router"] == "off" and "earned" in body["router_reason"]
    assert kept.rows == {3: len(moons)}
    assert kept.disagreements[3].tolist() == expected(stepped, moons)[0]


def test_while_the_launcher_is_eager_all_rows_give_evidence_whatever_is_in_force(
    stepped, moons, switch
):
    kept = Kept()
    in_force = (0,) * len(stepped.manifest.router.risks)
    switch.write(ControlState(epoch=1, in_force=in_force, eager=True))
    serving = ServingConfig(risk=RISK, evidence=1e-9)
    service = Service(stepped, serving, switch=switch, counts={"": kept})
    (reply,) = service.answer([request_of(moons)])
    assert json.loads(reply.body)["router"] == "on"
    assert kept.rows == {1: len(moons)}
    switch.write(ControlState(epoch=1, in_force=in_force))
    service.answer([request_of(moons)])
    assert kept.rows == {1: len(moons)}


def test_what_is_earned_is_in_force_at_once_for_the_risks_it_is_earned_for(stepped, moons, switch):
    spec = stepped.manifest.router
    at, bold = spec.risks.index(RISK), len(stepped.candidates) - 1
    in_force = tuple(bold if i == at else None for i in range(len(spec.risks)))
    service = Service(stepped, ServingConfig(risk=RISK, evidence=0.0), switch=switch)
    switch.write(ControlState(epoch=2, in_force=in_force))
    told = outputs(service.answer([request_of(moons)]))
    answers = stepped.run_thresholds(
        stepped.check(moons), stepped.candidates[bold], stepped.guard_limit
    )
    assert [one["depth_run"] for one in told] == answers.depth_run.tolist()
    (reply,) = service.answer([request_of(moons[:5], {"risk": min(spec.risks)})])
    body = json.loads(reply.body)
    assert body["router"] == "off" and "no certificate of risk" in body["router_reason"]
    switch.set("disabled")
    (reply,) = service.answer([request_of(moons[:5])])
    assert json.loads(reply.body)["router_reason"] == "switched off by the operator"


def test_a_candidate_that_does_not_exist_is_full_depth(stepped, moons, switch):
    switch.write(ControlState(in_force=(10_000,) * len(stepped.manifest.router.risks)))
    service = Service(stepped, ServingConfig(risk=RISK), switch=switch)
    (reply,) = service.answer([request_of(moons[:5])])
    assert json.loads(reply.body)["router"] == "off"


def test_a_row_outside_the_guard_agrees_with_full_depth_under_every_candidate(stepped):
    far = np.float32([[1e3, -1e3], [500.0, 500.0]])
    kept = Kept()
    service = Service(stepped, ServingConfig(risk=RISK, evidence=1.0), counts={"": kept})
    told = outputs(service.answer([request_of(far)]))
    assert not kept.disagreements[0].any()
    assert (kept.blocks[0] == 2 * stepped.manifest.depth).all()
    assert all(one["held_back"] for one in told)


def test_rows_that_would_have_left_are_not_said_to_be_held_back(stepped, moons):
    service = Service(stepped, ServingConfig(risk=RISK, evidence=1.0))
    told = outputs(service.answer([request_of(moons)]))
    routed = stepped.predict(moons, RISK).held_back.tolist()
    assert [one["held_back"] for one in told] == routed


def test_rows_of_another_measure_say_nothing_to_the_alarm(stepped, moons):
    rows, told = stepped.check(moons[:8]), Told()
    place = stepped.setting(RISK).candidate
    drawn = np.ones(4, dtype=bool)
    settings = [
        replace(stepped.setting(RISK), measure=measure)
        for measure in ("disagreement", "accuracy_lost")
    ]
    runs: Runs[Any] = Runs(stepped, Batches(stepped.manifest.signature), 64)
    now = ControlState(epoch=1)
    jobs = [
        AcceptedRequest(
            rows[i : i + 4], settings[i // 4], RawRequest(b"", {}), drawn, i, None, now, None, None
        )
        for i in (0, 4)
    ]
    runs.admit(jobs)
    kept = Kept()
    witness = Witness(stepped, told, {"": kept})
    while runs:
        for ran in runs.step()[0]:
            witness.see(ran)
    assert place is not None and kept.rows == {1: 8}
    assert told.rows == {RISK: 4}


def test_a_risk_without_a_certificate_does_not_run_everything_where_others_are_in_force(
    stepped, moons, switch
):
    spec = stepped.manifest.router
    in_force = tuple(0 if risk == RISK else None for risk in spec.risks)
    switch.write(ControlState(epoch=1, in_force=in_force))
    kept = Kept()
    serving = ServingConfig(risk=min(spec.risks), evidence=1e-9)
    service = Service(stepped, serving, switch=switch, counts={"": kept})
    service.answer([request_of(moons), request_of(moons, {"risk": RISK})])
    assert not kept.rows
