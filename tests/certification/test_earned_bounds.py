"""Bounds that traffic has earned, in a certificate file: the ledger behind them verifies."""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from certificate_values import EPSILON, faults, put, sealed

from skipserve.artifacts.certificates import WrittenThresholds
from skipserve.certification.attesting import certificate_file
from skipserve.certification.findings import Fault
from skipserve.certification.from_traffic import earned_bound
from skipserve.commands.attest import served_file
from skipserve.earning.counts import Counts
from skipserve.earning.epochs import decide, in_force
from skipserve.earning.events import Begun, Crossed, Proposed, Withdrawn
from skipserve.earning.ladder import Place, name_of
from skipserve.earning.ledger import Ledger
from skipserve.earning.rules import Rules
from skipserve.earning.state import State, applied
from skipserve.earning.wealth import level_of, log_wealth
from skipserve.errors import ConfigError
from skipserve.safety.earned import EarnedRecord
from skipserve.safety.kind import Kind, binding_for

pytestmark = pytest.mark.slow


def without_start(values: dict[str, Any], because: str) -> dict[str, Any]:
    """The earned bound, where the first epoch that is told of is the second."""
    changed = copy.deepcopy(values)
    epochs = changed["bounds"][-1]["epochs"]
    del epochs[0]
    epochs[0]["because"] = because
    return sealed(changed)


def test_a_ledger_begins_with_the_start_or_with_a_reset(values, attested, tmp_path):
    assert faults(without_start(values, "reset"), attested, tmp_path) == set()
    for because in ("alarm", "rows", "start"):
        assert faults(without_start(values, because), attested, tmp_path) == {Fault.ORDER}
    again = sealed(put(values, ("bounds", -1, "epochs", 1, "because"), "start"))
    assert faults(again, attested, tmp_path) == {Fault.ORDER}


def earns_in_an_epoch(ledger: Ledger, risk: float) -> None:
    """The most careful candidate is earned, and the next epoch has begun."""
    number, now_s = ledger.read().epoch, time.time()
    ledger.turn(
        lambda state: [
            Crossed(number, risk, 0, 8_000, 0, now_s),
            Begun(number + 1, "rows", 9_000, 9_000, now_s),
        ]
    )


def test_what_was_earned_after_a_reset_verifies(attested, tmp_path):
    kind = Kind("onnxruntime", "cpu", "fp32")
    earned = EarnedRecord(attested, tmp_path, kind)
    ledger = Ledger(tmp_path, binding_for(attested, kind), earned.rules)
    ledger.turn(lambda state: [Begun(1, "start", 0, 9_000, 1.0)])
    earned.reset()
    risk = earned.rules.risks[0]
    earns_in_an_epoch(ledger, risk)
    made = json.loads(served_file([earned]).model_dump_json())
    assert [one["kind"] for one in made["bounds"]].count("earned") == 1
    assert {one["kind"] for one in made["bounds"]} == {"offline", "earned"}
    assert faults(made, attested, tmp_path) == set()


def proposes(
    earned: EarnedRecord, folder: Path, candidates: Sequence[WrittenThresholds], guard_limit: float
) -> Proposed:
    """What epoch 1 has proposed, of which the first candidate is earned."""
    binding, now_s = binding_for(earned.artifact, earned.kind), time.time()
    ledger = Ledger(folder, binding, earned.rules)
    risk, blocks = earned.rules.risks[-1], {"": (1.0,)}
    name = name_of(candidates, guard_limit)
    made = Proposed(1, 100, name, guard_limit, tuple(candidates), blocks, now_s)
    begun, crossed = Begun(1, "start", 0, 9_000, now_s, 100), Crossed(1, risk, 0, 900, 0, now_s)
    over = Begun(2, "rows", 900, 9_000, now_s, 100)
    ledger.turn(lambda state: [begun, made, crossed, over])
    return made


def test_what_was_proposed_on_traffic_is_named_and_checked(attested, tmp_path):
    earned = EarnedRecord(attested, tmp_path, Kind("onnxruntime", "cpu", "fp32"))
    bold, *_, careful = attested.certificates.candidates[::-1]
    proposed = proposes(earned, tmp_path, (careful, bold), 2.5)
    made = json.loads(served_file([earned]).model_dump_json())
    assert faults(made, attested, tmp_path) == set()
    place = ("bounds", len(made["bounds"]) - 1)
    bound = made["bounds"][-1]
    assert (bound["guard_limit"], bound["candidates"]) == (2.5, [list(careful)])
    assert bound["proposal"]["name"] == proposed.proposal
    assert (bound["proposal"]["rows"], len(bound["proposal"]["candidates"])) == (100, 2)
    # Without it they would have to be the artifact's own.
    without = sealed(put(made, (*place, "proposal"), None))
    assert faults(without, attested, tmp_path) == {Fault.NUMBER}
    for path, value, fault in (
        (("guard_limit",), 3.0, Fault.NUMBER),
        (("proposal", "candidates", 1), list(careful), Fault.NUMBER),
        (("proposal", "name"), "0" * 32, Fault.NUMBER),
        (("candidates", 0), list(bold), Fault.ORDER),
    ):
        forged = sealed(put(made, (*place, *path), value))
        assert fault in faults(forged, attested, tmp_path)
    # A limit that is named rightly, but lets in less than calibration did.
    lower = put(made, (*place, "guard_limit"), 0.5)
    name = name_of(proposed.candidates, 0.5)
    lower = sealed(put(lower, (*place, "proposal", "name"), name))
    assert faults(lower, attested, tmp_path) == {Fault.NUMBER}


def test_certificates_that_the_alarm_withdrew_are_not_attested(attested, tmp_path):
    kind = Kind("onnxruntime", "cpu", "fp32")
    earned = EarnedRecord(attested, tmp_path, kind)
    risk, now_s = earned.rules.risks[0], time.time()
    ledger = Ledger(tmp_path, binding_for(attested, kind), earned.rules)
    alarm = [Withdrawn(1, 100, 60, now_s), Begun(2, "alarm", 100, 9_000, now_s)]
    ledger.turn(lambda state: [Begun(1, "start", 0, 9_000, now_s), *alarm])
    with pytest.raises(ConfigError, match="nothing of the kind is certified of small"):
        served_file([earned])
    earns_in_an_epoch(ledger, risk)
    made = json.loads(served_file([earned]).model_dump_json())
    assert [(one["kind"], one["risk"]) for one in made["bounds"]] == [("earned", risk)]
    assert faults(made, attested, tmp_path) == set()


def test_counts_short_of_the_level_prove_nothing(values, attested, tmp_path):
    rows, differ = 300, 5
    crossing = {
        "rows": rows,
        "disagreements": differ,
        "log_wealth": float(log_wealth(rows, differ, EPSILON)),
    }
    assert crossing["log_wealth"] < math.log(1 / level_of(2, 0.025))
    forged = sealed(put(values, ("bounds", -1, "crossings", 0), crossing))
    assert faults(forged, attested, tmp_path) == {Fault.NUMBER}


def test_what_the_epochs_decided_is_a_proof(attested, tmp_path):
    candidates = attested.certificates.candidates
    rules = Rules(
        risks=(0.05,),
        candidates=len(candidates),
        level=0.025,
        epoch_rows=2_000,
        greatest_age_rows=2_000,
    )
    rng, rates = np.random.default_rng(0), np.linspace(0.002, 0.06, len(candidates))
    state, counts, events = State(), Counts.none(len(candidates)), []
    for _ in range(60):
        fresh = decide(rules, state, counts, 0.0)
        state = applied(state, fresh)
        events += fresh
        if any(isinstance(one, Begun) for one in fresh):
            counts = Counts.none(len(candidates))
        counts += Counts(50, rng.binomial(50, rates).astype(np.int64), counts.blocks)
    (place,) = in_force(rules, state, counts.rows, 0.0)
    assert place is not None and state.epoch == 2
    about = {
        "candidates": candidates,
        "guard_limit": attested.manifest.router.guard_limit,
        "confidence": 0.95,
    }
    bound = earned_bound(rules, events, 0.05, place, counts.rows, **about)
    assert (bound.share, len(bound.candidates)) == (pytest.approx(0.5), place.candidate + 1)
    kind = {"precision": "fp32", "provider": "cpu", "files": attested.hashes("onnx", "fp32")}
    values = json.loads(certificate_file(attested, [bound], **kind).model_dump_json())
    assert faults(values, attested, tmp_path) == set()
    with pytest.raises(ConfigError, match="was not earned"):
        earned_bound(rules, events, 0.05, Place(len(candidates) - 1), counts.rows, **about)
