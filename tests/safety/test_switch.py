"""The switch: seen by all at once, thrown by its own user alone, and also when the disk is full."""

from __future__ import annotations

import resource
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from skipserve.commands.router import status
from skipserve.errors import ConfigError, LaunchError
from skipserve.hosts.control import ROUTERS, announce, find_router, find_routers
from skipserve.hosts.directory import Directory
from skipserve.routing.config import MOST_RISKS
from skipserve.safety.standing import (
    STATE_VARIABLE,
    StandingOrderWatch,
    give_order,
    lift_order,
    standing_order,
)
from skipserve.safety.switch import DIRECTORY_VARIABLE, ControlState, Switch, control_of, switch_of
from skipserve.slices import MOST, OTHER

PORT = 9464


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


@pytest.fixture
def instance(tmp_path):
    """The directory of an instance that this process runs."""
    held = Directory(PORT)
    directory = held.path
    (directory / "switches").mkdir()
    store = tmp_path / "model_store"
    store.mkdir()
    orders = {"moons": standing_order(store / "moons.mar"), "plain": None}
    for model in orders:
        Switch(directory / "switches" / model)
    announce(directory, orders)
    yield directory
    held.remove()


def test_a_command_finds_the_instance_by_its_port(instance):
    moons = find_router(PORT, "moons")
    assert (moons.set("disabled"), moons.state()) == ("on", "disabled")
    assert (find_router(PORT, "moons").set("on"), moons.state()) == ("disabled", "on")
    with pytest.raises(LaunchError, match="no service of this user has its metrics on port 9465"):
        find_routers(PORT + 1)
    with pytest.raises(ConfigError, match="has no model 'sun', only moons, plain"):
        find_router(PORT, "sun")


def test_off_by_hand_is_kept_beside_the_archives_until_it_is_on_again(instance, tmp_path):
    order = tmp_path / "model_store" / ".router-off" / "moons"
    moons = find_router(PORT, "moons")
    assert not moons.stays_off()
    for _ in range(2):
        moons.set("disabled")
        assert order.read_text().startswith("switched off 2")
        assert moons.stays_off()
    for _ in range(2):
        moons.set("on")
        assert not order.exists()
        assert not moons.stays_off()


def test_another_folder_may_keep_it(tmp_path, monkeypatch):
    archive = tmp_path / "store" / "moons.mar"
    assert standing_order(archive) == tmp_path / "store" / ".router-off" / "moons"
    monkeypatch.setenv(STATE_VARIABLE, str(tmp_path / "state"))
    assert standing_order(archive) == tmp_path / "state" / ".router-off" / "moons"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(STATE_VARIABLE, "state")  # the command line has another working directory
    assert standing_order(archive) == tmp_path / "state" / ".router-off" / "moons"


@pytest.fixture
def watch(tmp_path):
    """Over the order of a model that serves."""
    order = tmp_path / "state" / ".router-off" / "moons"
    return StandingOrderWatch("moons", order, Switch(tmp_path / "moons"))


def test_an_order_throws_the_switch_when_it_comes_and_when_it_goes(watch, caplog):
    watch.look()
    assert (watch.switch.state(), caplog.text) == ("on", "")
    give_order(watch.order)
    watch.look()
    assert watch.switch.state() == "disabled"
    assert "moons skips nothing: it was switched off by hand" in caplog.text
    lift_order(watch.order)
    watch.look()
    assert watch.switch.state() == "on"
    assert f"moons may skip again: {watch.order} was removed" in caplog.text


@pytest.mark.parametrize("state", ["disabled", "fell_back"])
def test_without_an_order_what_was_switched_otherwise_stays(watch, state):
    watch.switch.set(state)
    for _ in range(2):
        watch.look()
        assert watch.switch.state() == state


def test_an_order_that_cannot_be_lifted_does_not_overrule_the_command(watch):
    give_order(watch.order)
    watch.look()
    watch.switch.set("on")
    watch.look()
    assert watch.switch.state() == "on"


def test_an_order_that_cannot_be_looked_for_is_neither_there_nor_gone(watch):
    give_order(watch.order)
    watch.look()
    folder = watch.order.parent
    folder.rename(folder.with_name("gone"))
    folder.symlink_to(folder.name)  # a loop: looking ends with an error
    with pytest.raises(OSError, match="symbolic links"):
        watch.look()
    assert watch.switch.state() == "disabled"


def test_off_that_cannot_be_kept_is_off_and_says_so(instance, tmp_path):
    (tmp_path / "model_store" / ".router-off").write_text("in the way")
    moons = find_router(PORT, "moons")
    with pytest.raises(LaunchError, match=r"disabled now, but a restart .* SKIPSERVE_STATE"):
        moons.set("disabled")
    assert moons.state() == "disabled"
    assert not moons.stays_off()


def test_a_model_without_a_router_has_nothing_to_switch(instance):
    for state in ("on", "disabled"):
        with pytest.raises(ConfigError, match="plain has no router"):
            find_router(PORT, "plain").set(state)


def test_status_tells_how_each_stands_now_and_after_a_restart(instance, tmp_path, capsys):
    moons = find_router(PORT, "moons")
    order = tmp_path / "model_store" / ".router-off" / "moons"

    def told():
        status(None, PORT)
        return capsys.readouterr().out.splitlines()

    assert told() == ["moons: on", "plain: no router"]
    moons.set("disabled")
    assert told() == ["moons: disabled, also after a restart", "plain: no router"]
    order.unlink()
    assert told()[0] == "moons: disabled, until a restart"
    moons.set("fell_back")
    assert told()[0] == "moons: fell_back"


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"moons": 1}'])
def test_what_is_not_ours_is_not_taken_for_an_instance(instance, content):
    (instance / ROUTERS).write_bytes(content)
    with pytest.raises(LaunchError, match="no service"):
        find_routers(PORT)


def test_another_users_directory_is_not_taken_for_ours(instance, monkeypatch):
    owner = Path(instance).stat().st_uid
    monkeypatch.setattr("os.geteuid", lambda: owner + 1)
    with pytest.raises(LaunchError, match="no service"):
        find_routers(PORT)


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
