"""Threads follow the cores of the process: its affinity and the quotas of its cgroups."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from skipserve.cores import torch_threads, usable_cores

AT_MOST = len(os.sched_getaffinity(0))


@pytest.fixture
def machine(tmp_path):
    """A root directory with files of the kernel's: ``machine(path=text, …)``."""

    def made(**files: str):
        for path, text in files.items():
            file = tmp_path / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        return tmp_path

    return lambda files: made(**files)


def test_affinity_counts():
    script = """
import os
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
from skipserve.cores import usable_cores
print(usable_cores())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "1\n", done.stderr


@pytest.mark.skipif(AT_MOST < 2, reason="one core: a quota cannot make it fewer")
@pytest.mark.parametrize(
    ("files", "cores"),
    [
        # Version 2: seen from a container, from the host, limited by a group above.
        ({"sys/fs/cgroup/cpu.max": "100000 100000\n"}, 1),
        ({"sys/fs/cgroup/cpu.max": "50000 100000\n"}, 1),
        ({"sys/fs/cgroup/cpu.max": "150000 100000\n"}, 1),
        ({"sys/fs/cgroup/cpu.max": "max 100000\n"}, AT_MOST),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/cpu.max": "100000 100000\n"}, 1),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/cpu.max": "100000 100000\n"}, 1),
        # Version 1, the controller alone and with its neighbour; a container's own mount.
        (
            {
                "proc/self/cgroup": "3:cpuset:/\n1:cpu:/a\n",
                "sys/fs/cgroup/cpu/a/cpu.cfs_quota_us": "100000\n",
                "sys/fs/cgroup/cpu/a/cpu.cfs_period_us": "100000\n",
            },
            1,
        ),
        (
            {
                "proc/self/cgroup": "4:cpu,cpuacct:/docker/0123\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "100000\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            },
            1,
        ),
        (
            {
                "proc/self/cgroup": "1:cpu:/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            AT_MOST,
        ),
        # Nothing there, and nonsense.
        ({}, AT_MOST),
        ({"sys/fs/cgroup/cpu.max": "many\n"}, AT_MOST),
        ({"sys/fs/cgroup/cpu.max": "100000 0\n"}, AT_MOST),
        ({"proc/self/cgroup": "\n::\n"}, AT_MOST),
    ],
)
def test_quotas_count(machine, files, cores):
    assert usable_cores(machine(files)) == cores


@pytest.mark.slow
def test_an_engine_takes_no_more_than_them(artifact):
    script = """
import os, sys
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
import skipserve, torch
skipserve.open(sys.argv[1], backend="torchscript", provider="cpu", threads=0)
print(torch.get_num_threads())
"""
    command = [sys.executable, "-c", script, str(artifact.directory)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout == "1\n", done.stderr


@pytest.mark.slow
def test_torch_gets_its_threads_back():
    before = torch.get_num_threads()
    with pytest.raises(RuntimeError, match="inside"), torch_threads(before + 1):
        assert torch.get_num_threads() == before + 1
        raise RuntimeError("inside")
    assert torch.get_num_threads() == before
