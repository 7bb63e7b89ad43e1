"""A model that earns its certificates: from counts in files to what the workers are told."""

from __future__ import annotations

import logging
import resource
from dataclasses import replace

import numpy as np
import pytest
from earning_model import Model, earning
from monitored import Worker, other_files
from needed_rows import rows_needed

from skipserve.earning.lines import Header, line
from skipserve.earning.wealth import level_of
from skipserve.safety.switch import ControlState


def test_it_starts_at_full_depth_and_earns(model, caplog):
    caplog.set_level(logging.WARNING)
    model.watch.tick()
    assert model.control == ControlState("on", 1, (None, None))
    assert model.watch.state() == "uncertified"
    level = level_of(1, 0.05)
    model.sees(rows_needed(0.05, level) - 1, wrong_from=3)
    assert model.control.in_force == (None, None)
    model.sees(1)
    assert model.control.in_force == (None, 2)
    assert model.watch.state() == "on"
    assert "small has candidate 3 of" in caplog.text
    assert model.value("earning_in_force", risk="0.05") == 3
    assert model.value("earning_proposed", risk="0.05") == 0
    assert model.value("earning_in_force", risk="0.02") is None
    assert model.value("earning_bolder_total") == 1
    model.sees(rows_needed(0.02, level), wrong_from=3)
    assert model.control.in_force == (2, 2)


def test_how_far_it_is_can_be_seen(model):
    model.sees(40)
    needed = rows_needed(0.05, level_of(1, 0.05))
    assert model.value("earning_epoch") == 1
    assert model.value("earning_rows") == 40
    assert model.value("earning_needed_rows", risk="0.05") == needed
    assert model.value("earning_disagreements", candidate="1") == 0
    assert model.value("earning_problem") == 0
    model.sees(10)
    left = model.value("earning_left_seconds", risk="0.05")
    assert left == pytest.approx((needed - 50) / (50 / 2))


def test_a_restart_keeps_what_was_earned(tmp_path, certified, model, caplog):
    model.sees(2_000, wrong_from=5)
    assert model.control.in_force == (4, 4)
    model.file.close()
    again = Model(tmp_path / "again", earning(certified), model.state)
    assert again.control.in_force is None  # the host tells before workers open it
    again.watch.tick()
    assert again.control == ControlState("on", 1, (4, 4))
    other = Model(tmp_path / "other", other_files(model.watch.model).artifact, model.state)
    other.watch.tick()
    other.watch.tick()
    assert other.control == ControlState("on", 1, (None, None))


def test_replicas_that_share_a_volume_earn_together(tmp_path, certified, model):
    other = Model(tmp_path / "other", earning(certified), model.state)
    other.watch.tick()
    half = rows_needed(0.05, level_of(1, 0.05)) // 2 + 1
    model.sees(half)
    assert model.control.in_force == (None, None)
    other.sees(half)
    model.watch.tick()
    last = model.candidates - 1
    assert model.control.in_force == other.control.in_force == (None, last)


def test_the_alarm_withdraws_and_traffic_earns_anew(model):
    model.sees(2_000, wrong_from=5)
    model.watch.tick()
    model.worker.evidence(100, 30)
    model.watch.tick()
    assert model.control.state == model.watch.state() == "fell_back"
    assert not any(model.control.in_force)
    model.watch.tick()
    assert model.control == ControlState("fell_back", 2, (None, None))
    assert model.value("router_fallbacks_total") == 1
    # Rows that were drawn before count for the epoch before.
    model.file.add(1, 9_000, np.zeros(model.candidates, np.int64), np.zeros(1, np.int64))
    model.sees(rows_needed(0.05, level_of(1, 0.05)))
    assert model.control.state == "fell_back"
    model.sees(rows_needed(0.05, level_of(2, 0.05)))
    assert model.control.state == model.watch.state() == "on"
    assert model.control.in_force[1] == model.candidates - 1


def test_few_rows_prove_little_so_all_of_the_first_give_evidence(tmp_path, certified):
    model = Model(tmp_path / "one", earning(certified, eager_rows=1_500, epoch_rows=4_000))
    model.watch.tick()
    model.sees(1_000, wrong_from=5)
    assert model.control == ControlState("on", 1, (4, 4), eager=True)
    model.sees(500, wrong_from=5)
    assert model.control == ControlState("on", 1, (4, 4), eager=False)
    model.sees(2_500, wrong_from=5)
    assert model.control == ControlState("on", 2, (4, 4), eager=False)
    model.worker.evidence(100, 30)
    model.watch.tick()
    model.watch.tick()
    assert model.control == ControlState("fell_back", 3, (None, None), eager=True)


def test_an_epoch_ends_and_what_it_earned_stays_while_the_next_earns(tmp_path, certified):
    model = Model(tmp_path / "one", earning(certified, epoch_rows=1_000))
    model.watch.tick()
    model.sees(1_000, wrong_from=4)
    assert model.control == ControlState("on", 2, (3, 3))
    model.sees(999, wrong_from=0)
    assert model.control == ControlState("on", 2, (3, 3))
    model.sees(1, wrong_from=0)
    assert model.control == ControlState("on", 3, (None, None))
    assert model.watch.state() == "uncertified"


def test_offline_certificates_stand_until_the_alarm_and_are_followed_by_earned_ones(
    tmp_path, certified
):
    model = Model(tmp_path / "one", earning(certified, "offline"))
    model.worker.add("certified_risk_ratio", 0.05, "gauge_livemax")
    model.watch.tick()
    model.sees(50_000)
    assert model.control == ControlState("on", 1, None)
    assert model.value("earning_epoch") is None
    model.worker.evidence(100, 30)
    model.watch.tick()
    model.watch.tick()
    assert model.control == ControlState("fell_back", 2, (None, None))
    model.sees(2_000, wrong_from=2)
    assert model.control == ControlState("on", 2, (1, 1))


def test_an_alarm_is_taken_back_by_switching_on_what_fell_back_and_by_no_other_command(
    tmp_path, certified
):
    model = Model(tmp_path / "one", earning(certified, "offline"))
    model.watch.tick()
    model.worker.evidence(100, 30)
    model.watch.tick()
    assert model.control.state == "fell_back"
    for state in ("disabled", "on"):  # as for maintenance
        model.watch.switch.set(state)
        model.watch.tick()
    assert model.control.state == "fell_back"
    model.watch.switch.set("on")
    model.watch.tick()
    assert model.control.state == "on" and model.control.in_force is None


def test_both_go_on_by_what_is_bolder(tmp_path, certified):
    made = certified.certificates.certificates
    own = {one.risk: one.candidate for one in made if one.measure == "disagreement"}
    artifact = earning(certified, "both", confidence=0.9)
    model = Model(tmp_path / "one", artifact)
    model.watch.tick()
    model.sees(3_000, wrong_from=own[0.02] + 1)
    assert model.control.in_force is None
    assert model.value("earning_bolder_total") == 0
    model.sees(30_000)
    assert model.control.in_force[1] == model.candidates - 1
    assert model.control.own  # of what traffic does not earn
    model.worker.evidence(100, 60)
    model.watch.tick()
    model.watch.tick()
    assert (model.control.in_force, model.control.own) == ((None, None), False)


def test_half_of_delta_is_for_each_of_both(certified):
    router = earning(certified, "both").manifest.router
    assert (router.offline_confidence, router.earned_level) == pytest.approx((0.975, 0.025))


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (lambda file, data: file.write_bytes(data.replace(b"epoch", b"epoca")), "is damaged"),
        (lambda file, data: file.write_bytes(line(Header("ledger", "0" * 64))), "other files"),
        (lambda file, data: file.write_bytes(line(Header("ledger", "0" * 64, 9))), "a newer one"),
        (
            lambda file, data: (file.parent / "counts.x").write_bytes(
                line(Header("counts", "0" * 64))
            ),
            "other files",
        ),
    ],
)
def test_files_that_cannot_be_relied_on_lead_to_full_depth(model, caplog, harm, says):
    model.sees(2_000, wrong_from=5)
    assert model.control.in_force == (4, 4)
    file = model.folder / "ledger"
    before = file.read_bytes()
    harm(file, before)
    model.watch.tick()
    assert model.control == ControlState("on", 0, (None, None))
    assert model.watch.state() == "uncertified"
    assert model.value("earning_problem") == 1
    (told,) = [one for one in caplog.records if "earns nothing" in one.message]
    assert says in told.message
    model.watch.tick()
    assert len([one for one in caplog.records if "earns nothing" in one.message]) == 1
    (model.folder / "counts.x").unlink(missing_ok=True)
    file.write_bytes(before)
    model.watch.tick()
    assert model.control.in_force == (4, 4)


def test_on_a_full_disk_nothing_is_in_force_that_could_not_be_watched(model, monkeypatch):
    model.sees(2_000, wrong_from=5)
    monkeypatch.setattr("skipserve.safety.evidence_files.ROOM_BYTES", 1 << 62)
    model.watch.tick()
    assert model.control.in_force == (None, None)
    assert model.value("earning_problem") == 1
    monkeypatch.undo()
    model.watch.tick()
    assert model.control.in_force == (4, 4)


def test_a_withdrawal_that_cannot_be_written_down_holds_all_the_same(model):
    model.sees(2_000, wrong_from=5)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = (model.folder / "ledger").stat().st_size
    model.worker.evidence(100, 30)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, hard))
    try:
        model.watch.monitor.tick(model.watch.now_s + 1)
        model.watch.monitor.tick(model.watch.now_s + 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert model.control == ControlState("fell_back", 1, (None, None))
    model.watch.tick(3)
    assert model.control == ControlState("fell_back", 2, (None, None))


def test_workers_that_run_on_different_things_earn_nothing(model, caplog):
    model.sees(2_000, wrong_from=5)
    kind = {"backend": "onnxruntime", "provider": "cuda", "precision": "fp16"}
    Worker(model.watch.directory, 2).add("model_info", 1, "gauge_livemax", **kind)
    model.watch.tick()
    assert model.control == ControlState("on", 0, (None, None))
    assert "its workers run on onnxruntime cpu fp32 and onnxruntime cuda fp16" in caplog.text


def test_candidates_that_are_not_ordered_earn_nothing(tmp_path, certified, caplog):
    artifact = earning(certified)
    candidates = artifact.certificates.candidates
    shuffled = artifact.certificates.model_copy(
        update={"candidates": (*candidates[2:], *candidates[:2])}
    )
    model = Model(tmp_path / "one", replace(artifact, certificates=shuffled))
    model.watch.tick()
    model.watch.tick()
    assert model.control == ControlState("on", 0, (None, None))
    assert "not ordered from careful to bold" in caplog.text


def test_a_clock_that_jumps_lets_nothing_get_old_or_young(tmp_path, certified):
    artifact = earning(certified, epoch_rows=1_000, greatest_age_s=60.0)
    model = Model(tmp_path / "one", artifact)
    model.watch.tick()
    model.sees(1_000, wrong_from=4)
    assert model.control.in_force == (3, 3)
    model.watch.tick(30)
    assert model.control.in_force == (3, 3)
    model.watch.tick(31)
    assert model.control.in_force == (None, None)


def test_while_two_artifacts_answer_nothing_is_counted_or_in_force(model):
    model.sees(2_000, wrong_from=5)
    model.watch.monitor.hold([model.watch.model])
    assert model.control == ControlState("on", 0, ())
    model.watch.monitor.hold(())
    model.watch.tick()
    assert model.control == ControlState("on", 1, (4, 4))
    assert model.value("earning_bolder_total") == 2


def test_an_operator_has_the_last_word(model):
    model.sees(2_000, wrong_from=5)
    model.watch.switch.set("disabled")
    model.sees(20_000)
    assert model.control.state == "disabled"
    model.watch.switch.set("on")
    model.watch.tick()
    assert model.control.state == "on"
    assert model.control.in_force is not None
