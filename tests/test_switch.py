"""The switch: seen by all at once, thrown by its own user alone, and also when the disk is full."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from skipserve.errors import ConfigError, LaunchError
from skipserve.serving.control import INSTANCE, announce, find_switches, state_of, throw
from skipserve.serving.switch import DIRECTORY_VARIABLE, Switch, switch_of

PORT = 9464


def test_everybody_sees_it_at_once_and_whoever_comes_later(tmp_path):
    launcher, worker = Switch(tmp_path / "model"), Switch(tmp_path / "model")
    assert (launcher.state(), worker.state()) == ("on", "on")
    for state in ("fell_back", "disabled", "on", "fell_back"):
        launcher.throw(state)
        assert worker.state() == state
        assert (tmp_path / "model").read_text().strip() == state  # readable by people, too
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
from skipserve.serving.switch import Switch
switch = Switch(Path(sys.argv[1]) / "model")
full = Path(sys.argv[2]) / "rest"
try:
    full.write_bytes(bytes(1 << 20))
except OSError as error:
    print(error.strerror)
switch.throw("fell_back")
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
    assert switch_of("model").state() == "on"
    monkeypatch.setenv(DIRECTORY_VARIABLE, str(tmp_path))
    Switch(tmp_path / "model").throw("disabled")
    assert switch_of("model").state() == "disabled"


@pytest.fixture
def instance(tmp_path, monkeypatch):
    """The directory of an instance that this process runs."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    directory = tmp_path / "skipserve.abc"
    (directory / "switches").mkdir(parents=True)
    Switch(directory / "switches" / "moons")
    announce(directory, PORT)
    return directory


def test_a_command_finds_the_instance_by_its_port(instance):
    switches = find_switches(PORT)
    assert throw(switches, "moons", "disabled") == "on"
    assert state_of(switches["moons"]) == "disabled"
    assert throw(switches, "moons", "on") == "disabled"
    with pytest.raises(LaunchError, match="no service of this user has its metrics on port 9465"):
        find_switches(PORT + 1)
    with pytest.raises(ConfigError, match="has no model 'sun', only moons"):
        throw(switches, "sun", "on")


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"pid": 4194304, "metrics_port": 9464}'])
def test_what_an_instance_left_behind_is_not_taken_for_one(instance, content):
    (instance / INSTANCE).write_bytes(content)
    with pytest.raises(LaunchError, match="no service"):
        find_switches(PORT)


def test_another_users_directory_is_not_taken_for_ours(instance, monkeypatch):
    owner = Path(instance).stat().st_uid
    monkeypatch.setattr("os.geteuid", lambda: owner + 1)
    with pytest.raises(LaunchError, match="no service"):
        find_switches(PORT)
