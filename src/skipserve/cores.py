"""The cores this process may use, with the limits of its container."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def usable_cores(root: Path = Path("/")) -> int:
    """Cores this process may keep busy, at least 1.

    The fewest of those that its affinity names and what the quotas of its control groups
    (version 2 or 1) are worth, rounded down: a thread more than that is throttled.

    Args:
        root: Where ``proc`` and ``sys`` are.
    """
    cores = [os.cpu_count() or 1]
    if hasattr(os, "sched_getaffinity"):
        cores.append(len(os.sched_getaffinity(0)))
    for group in _groups(root):
        with suppress(OSError, ValueError, ZeroDivisionError):
            cores.append(int(_quota(group)))
    return max(1, min(cores))


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Set the threads of PyTorch, and restore them afterwards.

    Sums depend on how they are split, times on how many split them; neither may depend on what
    this process did last.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _groups(root: Path) -> Iterator[Path]:
    """The control groups that limit this process: its own and all parents."""
    mounted = root / "sys/fs/cgroup"
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        lines = []
    yield mounted  # a container sees its own group here
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = mounted / controllers  # version 2 has none, version 1 a folder for each
        group = top / path.lstrip("/")
        while group.is_relative_to(top):
            yield group
            group = group.parent


def _quota(group: Path) -> float:
    try:
        quota, period = (group / "cpu.max").read_text().split()
    except OSError:
        quota = (group / "cpu.cfs_quota_us").read_text().strip()
        period = (group / "cpu.cfs_period_us").read_text()
    if quota in ("max", "-1"):
        return float(os.cpu_count() or 1)
    return int(quota) / int(period)
