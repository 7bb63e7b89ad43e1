"""Pulses: locked files count as workers, and a stuck loop is silent."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import pytest
from pulsing import worker
from running import until

from skipserve.hosts.pulse import BEAT_S, Pulse, living


def silence(directory: Path) -> float:
    (one,) = living(directory)
    return one.silent_s


def test_a_worker_counts_while_it_lives(tmp_path):
    with worker(tmp_path) as one, worker(tmp_path) as two:
        assert {found.pid for found in living(tmp_path)} == {one.pid, two.pid}
        assert {found.model for found in living(tmp_path)} == {"small"}
        one.kill()
        one.wait()
        assert [found.pid for found in living(tmp_path)] == [two.pid]
    assert living(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_left_counts_for_nobody_though_its_number_lives(tmp_path):
    (tmp_path / f"small.{os.getpid()}").touch()
    assert living(tmp_path) == []


@pytest.mark.parametrize("how", ["beats", "does not say"])
def test_a_stopped_worker_is_there_and_silent(tmp_path, how):
    with worker(tmp_path, how) as process:
        process.send_signal(signal.SIGSTOP)
        until(lambda: how != "beats" or silence(tmp_path) > 2 * BEAT_S)
        if how != "beats":
            assert silence(tmp_path) == 0  # nobody knows
        process.send_signal(signal.SIGCONT)
        until(lambda: silence(tmp_path) <= BEAT_S)


def test_waiting_ends_when_there_is_something_to_read(tmp_path):
    pulse = Pulse(tmp_path, "small")
    one, two = socket.socketpair()
    with one, two:
        one.sendall(b"a request")
        pulse.wait(two)
        assert two.recv(100) == b"a request"
    assert [found.pid for found in living(tmp_path)] == [os.getpid()]
