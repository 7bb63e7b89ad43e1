"""The switch: seen by all at once, thrown by its own user alone, and also when the disk is full."""

from __future__ import annotations

import resource
import subprocess
import sys
import threading
from dataclasses import replace

import pytest

from skipserve.routing.config import MOST_RISKS
from skipserve.safety.standing import (
    StandingOrderWatch,
    give_order,
    lift_order,
)
from skipserve.safety.switch import DIRECTORY_VARIABLE, ControlState, Switch, control_of, switch_of
from skipserve.slices import MOST, OTHER


def test_everybody_sees_it_at_once_and_whoever_comes_later(tmp_path):
    launcher, worker = Switch(tmp_path / "model"), Switch(tmp_path / "model")
    assert (launcher.state(), worker.state()) == ("on", "on")
    for state in ("fell_back", "disabled", "on", "fell_back"):
        launcher.set(state)
        assert worker.state() == state
        assert (tmp_path / "model").read_text().startswith(state)  # readable by people, too
    assert Switch(tmp_path / "model").state() == "fell_back"


@pytest.mark.parametrize("content", [b"", b"\0", b"yes\n", b"\xff" * 100])
def test_what_was_tampered_with_skips_nothing(tmp_path, content):
    switch = Switch(tmp_path / "model")
    (tmp_path / "model").write_bytes(content)
    assert switch.state() == "disabled"


def test_it_can_be_thrown_when_nothing_more_can_be_written(tmp_path):
    script = """
import resource, signal, sys
from pathlib import Path
from skipserve.safety.switch import Switch
switch = Switch(Path(sys.argv[1]) / "model")
full = Path(sys.argv[2]) / "rest"
try:
    full.write_bytes(bytes(1 << 20))
except OSError as error:
    print(error.strerror)
switch.set("fell_back")
print(switch.state())
"""
    # A file system of one page for the switch and a few for the rest, in a namespace of our own.
    mount = 'mount -t tmpfs -o size=64k none $0 && exec $1 -c "$2" $0 $0'
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount]
    if subprocess.run([*command[:4], "true"], capture_output=True).returncode:
        pytest.skip("this machine gives no user namespaces")
    done = subprocess.run(
        [*command, str(tmp_path), sys.executable, script], capture_output=True, text=True
    )
    assert done.stdout.splitlines() == ["No space left on device", "fell_back"], done.stderr


def test_a_link_is_not_followed(tmp_path):
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "model").symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match="symbolic links"):
        Switch(tmp_path / "model")
    assert (tmp_path / "victim").read_text() == "precious"


def test_who_holds_it_keeps_others_waiting(tmp_path):
    one, other = Switch(tmp_path / "model"), Switch(tmp_path / "model")
    order = []

    def wait_for_it():
        with other.held():
            order.append("other")

    thread = threading.Thread(target=wait_for_it)
    with one.held():
        thread.start()
        thread.join(0.1)
        order.append("one")
    thread.join()
    assert order == ["one", "other"]


def test_a_worker_without_a_launcher_skips(tmp_path, monkeypatch):
    monkeypatch.delenv(DIRECTORY_VARIABLE, raising=False)
    assert control_of(switch_of("model").controls(), "").state == "on"
    monkeypatch.setenv(DIRECTORY_VARIABLE, str(tmp_path))
    Switch(tmp_path / "model").set("disabled")
    assert switch_of("model").state() == "disabled"


def test_it_has_room_for_as_many_slices_and_risks_as_can_be_declared(tmp_path):
    switch, reader = Switch(tmp_path / "model"), Switch(tmp_path / "model")
    names = [*(f"{'x' * 61}{i:03}" for i in range(MOST)), OTHER]
    places = tuple(range(100, 100 + MOST_RISKS))
    ladders = tuple(f"{risk:032x}" for risk in range(MOST_RISKS))
    earned = ControlState("on", 10**6, places, proposals=ladders, proposal="a" * 32)
    switch.keep(names)
    assert set(reader.controls()) == set(names)
    switch.tell(dict.fromkeys(names, earned))
    assert all(one == earned for one in reader.controls().values())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, ((tmp_path / "model").stat().st_size, hard))
    try:  # as on a full disk: whatever happens next needs no more room
        switch.set("fell_back")
        worst = replace(earned, state="fell_back", eager=True, proposing=True, own=True)
        switch.tell(dict.fromkeys(names, worst))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert reader.state() == "fell_back"
    assert {one.proposing for one in reader.controls().values()} == {True}
    for one in (switch, reader):
        one.close()
        assert one.controls() == {}


def test_a_damaged_one_is_left_to_whoever_knows_what_it_said(tmp_path):
    switch, order = Switch(tmp_path / "model"), tmp_path / "order"
    watch = StandingOrderWatch("model", order, switch)
    switch.set("fell_back")
    order.touch()
    (tmp_path / "model").write_bytes(b"torn\n")
    watch.look()
    assert switch.is_damaged
    switch.tell({"": ControlState("fell_back")})
    watch.look()
    assert switch.state() == "disabled"


def test_an_order_needs_no_room_but_its_name(tmp_path):
    order = tmp_path / "orders" / "model"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        give_order(order)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert order.exists()
    lift_order(order)
    assert not order.exists()


@pytest.mark.parametrize(
    "control",
    [
        ControlState(),
        ControlState(in_force=()),
        ControlState(epoch=3, in_force=(None, 2), own=True),
        ControlState(epoch=3, in_force=(None, 2)),
        ControlState("fell_back", in_force=(), own=True),
        ControlState(in_force=(1, None), proposals=("a" * 32, ""), proposal="b" * 32, own=True),
    ],
)
def test_what_is_told_is_what_is_read(tmp_path, control):
    Switch(tmp_path / "model").write(control)
    assert Switch(tmp_path / "model").control() == control
