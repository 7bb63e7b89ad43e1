"""The directory of a service: its place, its owner, and leftovers of killed launchers."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from skipserve.errors import LaunchError
from skipserve.hosts import directory as places
from skipserve.hosts.control import announce, find_router
from skipserve.hosts.directory import (
    LONGEST,
    Directory,
    find,
    is_held,
    metrics_url,
    remove_leftovers,
)

LAUNCHER = """
import sys
from skipserve.hosts.directory import Directory
print(Directory(int(sys.argv[1])).path, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A short folder, and the only place there is."""
    with tempfile.TemporaryDirectory(prefix="s.", dir="/tmp") as folder:
        for name in places.VARIABLES:
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("TMPDIR", folder)
        monkeypatch.setattr(places, "FALLBACKS", ())
        yield Path(folder)


@contextmanager
def launcher(metrics_port: int) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    process = subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, str(metrics_port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            assert process.stdout is not None
            yield process, Path(process.stdout.readline().strip())
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:9464"),
        ("127.0.0.2", "http://127.0.0.2:9464"),
        ("0.0.0.0", "http://127.0.0.1:9464"),
        ("::", "http://[::1]:9464"),
        ("::1", "http://[::1]:9464"),
    ],
)
def test_commands_know_where_a_service_has_its_metrics(short, host, url):
    directory = Directory(9464, host)
    found = find(9464)
    assert found is not None
    assert metrics_url(found) == url
    directory.remove()
    with pytest.raises(LaunchError, match="has ended"):
        metrics_url(found)


def test_a_killed_launcher_is_found_by_nobody_and_swept_by_the_next(short):
    with launcher(9464) as (process, left):
        assert find(9464) == left
        assert find(9465) is None
        (left / "switches").mkdir()
        announce(left, {"small": short / "off"})
        found = find_router(9464, "small")
        assert remove_leftovers(short) == []  # it lives
        process.kill()
        process.wait()
    with pytest.raises(LaunchError, match="has ended; nothing was switched"):
        found.set("disabled")
    assert not (short / "off").exists()
    with pytest.raises(LaunchError, match="no service of this user has its metrics on port 9464"):
        find_router(9464, "small")
    assert left.is_dir()
    fresh = Directory(9464)
    assert not left.exists()
    assert find(9464) == fresh.path
    fresh.remove()
    assert list(short.iterdir()) == []


def test_what_is_not_ours_is_never_swept(short):
    (short / "skipserve.mine").mkdir()  # of the same name, and without our file
    with tempfile.TemporaryDirectory() as elsewhere:
        (Path(elsewhere) / places.ABOUT).write_text('{"metrics_port":9464}')
        (short / "skipserve.link").symlink_to(elsewhere)
        assert remove_leftovers(short) == []
        assert find(9464) is None
        assert (Path(elsewhere) / places.ABOUT).is_file()
    assert (short / "skipserve.mine").is_dir()


def test_what_was_deleted_is_missed(short):
    directory = Directory(9464)
    for name in ("store", "metrics"):
        (directory.path / name).mkdir()
    (directory.path / "store" / "model.onnx").touch()
    (directory.path / "metrics" / "counter_7.db").touch()
    directory.remember(directory.path / "store")
    (directory.path / "metrics" / "counter_7.db").unlink()  # comes and goes
    assert directory.is_whole()
    (directory.path / "store" / "model.onnx").unlink()
    assert not directory.is_whole()
    assert is_held(directory.path)
    directory.remove()


@pytest.mark.parametrize("name", ["l" * 82, "tmpü", "tmp dir", "a:b", "100%"])
def test_a_place_that_java_or_a_socket_cannot_use_is_passed_over_by_name(
    short, monkeypatch, caplog, name
):
    odd = short / name
    odd.mkdir()
    monkeypatch.setenv("TMPDIR", str(odd))
    monkeypatch.setenv("TMP", str(short))
    directory = Directory(9464)
    assert directory.path.parent == short
    assert f"TMPDIR={odd}" in caplog.text
    directory.remove()
    assert list(odd.iterdir()) == []


def test_the_longest_place_holds_a_socket(short, monkeypatch):
    import socket

    longest = short / ("l" * (LONGEST - len(str(short)) - 1))
    longest.mkdir()
    monkeypatch.setenv("TMPDIR", str(longest))
    directory = Directory(9464)
    assert directory.path.parent == longest
    (directory.path / "tmp").mkdir()
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(directory.path / "tmp" / "management.sock"))
    directory.remove()


def test_no_place_at_all_is_one_line_that_names_the_variable(short, monkeypatch):
    missing = short / "missing"
    monkeypatch.setenv("TMPDIR", str(missing))
    monkeypatch.setattr(places, "FALLBACKS", ("/proc",))
    with pytest.raises(LaunchError) as caught:
        Directory(9464)
    said = str(caught.value)
    assert f"TMPDIR={missing}: No such file or directory" in said
    assert "/proc: " in said
    assert "set TMPDIR to a folder" in said
    assert "\n" not in said


def test_a_relative_place_is_made_absolute(short, monkeypatch):
    monkeypatch.chdir(short)
    monkeypatch.setenv("TMPDIR", ".")
    directory = Directory(9464)
    assert directory.path.is_absolute()
    assert directory.path.parent.samefile(short)
    directory.remove()
