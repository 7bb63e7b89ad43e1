"""Routers that are off by hand: found by port, kept beside the archives, and lifted."""

from __future__ import annotations

from pathlib import Path

import pytest

from skipserve.commands.router import status
from skipserve.errors import ConfigError, LaunchError
from skipserve.hosts.control import ROUTERS, announce, find_router, find_routers
from skipserve.hosts.directory import Directory
from skipserve.safety.standing import (
    STATE_VARIABLE,
    StandingOrderWatch,
    follow_orders,
    give_order,
    lift_order,
    standing_order,
)
from skipserve.safety.switch import Switch

PORT = 9464


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


def test_an_order_that_cannot_be_looked_for_leaves_the_others_followed(tmp_path):
    lost = StandingOrderWatch("lost", tmp_path / ("x" * 300), Switch(tmp_path / "lost"))
    order = tmp_path / "moons.off"
    moons = StandingOrderWatch("moons", order, Switch(tmp_path / "moons"))
    order.touch()
    with pytest.raises(OSError, match="too long"):
        follow_orders({"lost": lost, "plain": None, "moons": moons})
    assert moons.switch.state() == "disabled"
