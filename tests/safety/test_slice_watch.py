"""Slices of one model's traffic: each earns, falls back and begins anew by itself."""

from __future__ import annotations

import logging
import resource
from dataclasses import replace

import numpy as np
import pytest
from earning_model import RISKS, earning
from monitored import Watch, Worker

from skipserve.earning.counts_file import CountsFile
from skipserve.earning.process_file import folder_of
from skipserve.safety.kind import Kind, binding_for
from skipserve.safety.switch import Switch
from skipserve.slices import Slices

TENANTS = Slices(parameter="tenant", values=("acme", "globex"))
KIND = Kind("onnxruntime", "cpu", "fp32")
FULL = (None,) * len(RISKS)


class Model:
    """A model of several slices that is watched, with a worker that counts evidence."""

    def __init__(self, directory, artifact, state=None):
        directory.mkdir(exist_ok=True)
        self.artifact, self.state = artifact, state or directory / "state"
        self.watch = Watch(directory, artifact, self.state)
        self.worker = Worker(self.watch.directory, 1).opens(certified=False)
        self.candidates = len(artifact.certificates.candidates)
        self.files = {
            name: CountsFile(self.state, self.binding(name))
            for name in artifact.manifest.slices.names
        }

    def binding(self, name):
        return binding_for(self.artifact, KIND, name)

    def control(self, name):
        return self.watch.switch.control(name)

    def sees(self, name, rows, differ=0):
        counts = np.full(self.candidates, differ, np.int64)
        self.files[name].add(self.control(name).epoch, rows, counts, counts)
        self.files[name].flush()
        self.watch.tick()

    def alarm(self, name, rows, differ):
        labels = {"slice": name, "risk": "0.05"}
        self.worker.add("evidence_rows", rows, **labels)
        self.worker.add("evidence_disagreements", differ, **labels)
        self.watch.tick()

    def state_of(self, name):
        states = ("on", "off", "uncertified", "fell_back", "disabled")
        (state,) = [s for s in states if self.watch.value("router_state", slice=name, state=s) == 1]
        return state

    def close(self):
        for file in self.files.values():
            file.close()


@pytest.fixture(scope="module")
def sliced(certified):
    return earning(certified, slices=TENANTS)


@pytest.fixture
def model(tmp_path, sliced):
    made = Model(tmp_path / "one", sliced)
    made.watch.tick()
    yield made
    made.close()


def test_one_that_drifts_is_withdrawn_alone_and_comes_back_alone(model, caplog):
    for name in ("acme", "globex"):
        model.sees(name, 2000)
    most = model.candidates - 1
    assert {name: model.control(name).in_force for name in TENANTS.names} == {
        "acme": (most, most),
        "globex": (most, most),
        "other": FULL,
    }
    assert [model.state_of(name) for name in TENANTS.names] == ["on", "on", "uncertified"]
    caplog.set_level(logging.WARNING)
    model.alarm("globex", 200, 5)
    model.alarm("acme", 200, 60)
    assert "small for acme fell back to full depth: 60 of 200" in caplog.text
    model.watch.tick()
    assert model.control("acme").in_force == FULL and model.control("acme").epoch == 2
    assert model.control("globex").in_force == (most, most) and model.control("globex").epoch == 1
    assert [model.state_of(name) for name in TENANTS.names] == ["fell_back", "on", "uncertified"]
    assert model.watch.value("router_fallbacks_total", slice="acme") == 1
    assert model.watch.value("router_fallbacks_total", slice="globex") == 0
    assert model.watch.switch.state() == "fell_back"
    model.sees("acme", 3000)
    assert model.control("acme").in_force == (most, most)
    assert model.watch.value("earning_in_force", slice="acme", risk="0.05") == most + 1


def test_the_command_lets_those_in_again_that_fell_back_and_leaves_the_others(model):
    for name in ("acme", "globex"):
        model.sees(name, 2000)
    model.alarm("acme", 200, 60)
    model.watch.switch.set("on")
    model.watch.tick()
    assert model.control("acme").epoch == 3  # begun anew
    assert model.control("globex").epoch == 1 and model.control("globex").in_force != FULL
    model.watch.switch.set("disabled")
    model.watch.tick()
    assert {model.control(name).state for name in TENANTS.names} == {"disabled"}


def test_each_keeps_what_it_earned_over_a_restart_and_a_declared_neighbour(model, tmp_path, sliced):
    for name in TENANTS.names:
        model.sees(name, 2000)
    model.close()
    again = Model(tmp_path / "two", sliced, model.state)
    again.watch.tick()
    assert all(again.control(name).in_force != FULL for name in TENANTS.names)
    again.close()
    more = Slices(parameter="tenant", values=("initech", "acme", "globex"))
    router = sliced.manifest.router.model_copy(update={"slices": more})
    manifest = sliced.manifest.model_copy(update={"router": router})
    third = Model(tmp_path / "three", replace(sliced, manifest=manifest), model.state)
    third.watch.tick()
    # What one value is does not change with the others; what the rest is does.
    full = [name for name in more.names if third.control(name).in_force == FULL]
    assert full == ["initech", "other"]
    third.close()


def test_a_damaged_file_stops_its_own_slice_alone(model, caplog):
    for name in ("acme", "globex"):
        model.sees(name, 2000)
    folder = folder_of(model.state, model.binding("acme"))
    (counts,) = folder.glob("counts.*")
    counts.write_bytes(counts.read_bytes().replace(b"2000", b"2001", 1))
    model.watch.tick()
    assert "small for acme earns nothing" in caplog.text
    assert model.control("acme").in_force == FULL
    assert model.control("globex").in_force != FULL
    assert model.watch.value("earning_problem", slice="acme") == 1
    assert model.watch.value("earning_problem", slice="globex") == 0


def test_a_model_that_is_served_no_more_is_shown_no_more(model):
    model.sees("acme", 2000)
    model.watch.monitor.follow(model.watch.now_s, [], ())
    text = model.watch.exposition.text()[0].decode()
    shown = {line.partition("{")[0] for line in text.splitlines() if 'slice="acme"' in line}
    # Counters stay.
    assert shown == {
        "skipserve_router_fallbacks_total",
        "skipserve_earning_bolder_total",
    }


def test_workers_of_other_slices_skip_nothing_of_what_they_do_not_share(tmp_path):
    switch = Switch(tmp_path / "model")
    assert switch.control("acme").in_force == ()
    switch.set("disabled")
    assert switch.control("acme").state == "disabled"
    switch.keep([f"{'x' * 60}{i:04}" for i in range(65)])
    assert switch.control(f"{'x' * 60}0064").state == "disabled"
    switch.keep(("",))
    assert set(switch.controls()) == {""} and switch.state() == "disabled"


def test_on_a_full_disk_a_command_for_one_does_not_stop_the_watch_of_the_others(model):
    for name in ("acme", "globex"):
        model.sees(name, 2000)
    model.alarm("acme", 200, 60)
    model.watch.tick()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ledger = folder_of(model.state, model.binding("acme")) / "ledger"
    model.watch.switch.write(replace(model.control("acme"), state="on"), "acme")
    labels = {"slice": "globex", "risk": "0.05"}
    model.worker.add("evidence_rows", 1_000, **labels)
    model.worker.add("evidence_disagreements", 900, **labels)
    resource.setrlimit(resource.RLIMIT_FSIZE, (ledger.stat().st_size + 10, hard))
    try:
        for seconds in (1, 2):
            model.watch.monitor.tick(model.watch.now_s + seconds)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert model.control("globex").state == model.control("acme").state == "fell_back"
    assert model.control("globex").in_force == FULL


def test_a_damaged_switch_is_no_command(model, caplog):
    for name in ("acme", "globex"):
        model.sees(name, 2000)
    model.alarm("globex", 200, 60)
    model.watch.tick()
    before = dict(model.watch.switch.controls())
    file = model.watch.directory.parent / "small"
    file.write_bytes(file.read_bytes().replace(b"on", b"om", 1))
    assert model.watch.switch.state() == "disabled"
    model.watch.tick()
    assert model.watch.switch.controls() == before
    assert model.state_of("globex") == "fell_back" and model.control("globex").epoch == 2
    assert "was damaged" in caplog.text and "by hand" not in caplog.text
