"""Counts of this process, or of all workers of a service from their files."""

from __future__ import annotations

import shutil
import struct
import threading
import time
from collections import Counter as Tally
from collections.abc import Iterable
from pathlib import Path

from prometheus_client import REGISTRY
from prometheus_client.metrics_core import Metric
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

PREFIX = "skipserve_"
ATTEMPTS = 5
# The first write to a mapped page that a full disk cannot give ends a process with SIGBUS: whoever
# is about to make files looks for so much room before.
SPACE_BYTES = 4 << 20


class LostCounts(OSError):
    """Files of workers were removed by another process."""


class Here(Collector):
    """Counts of this process since this object was made."""

    def __init__(self) -> None:
        self._before = {
            self._key(sample): sample.value
            for metric in self._ours()
            for sample in metric.samples
            if metric.type != "gauge"
        }

    def collect(self) -> Iterable[Metric]:
        return self.read("*")

    def read(self, pattern: str) -> list[Metric]:
        found = self._ours()
        for metric in found:
            metric.samples = [
                sample._replace(value=sample.value - self._before.get(self._key(sample), 0.0))
                for sample in metric.samples
            ]
        return found

    def writers(self) -> set[int]:
        return set()

    def retire(self, pid: int) -> None:
        """Nothing to retire."""

    def _ours(self) -> list[Metric]:
        # Libraries count there, too.
        return [metric for metric in REGISTRY.collect() if metric.name.startswith(PREFIX)]

    @staticmethod
    def _key(sample: Sample) -> tuple[str, frozenset[tuple[str, str]]]:
        return sample.name, frozenset(sample.labels.items())


class Workers(Collector):
    """Counts in the files of all workers, ended ones included."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = threading.Lock()  # held while files are read or merged
        self._seen: set[str] = set()

    def collect(self) -> Iterable[Metric]:
        return self.read("*.db")

    def read(self, pattern: str) -> list[Metric]:
        for _ in range(ATTEMPTS):
            try:
                with self._lock:
                    # A file without content is one that a worker is just creating.
                    self._notice()
                    files = [str(f) for f in self._directory.glob(pattern) if f.stat().st_size]
                    merged = MultiProcessCollector.merge(files)  # type: ignore[no-untyped-call]
                    self._seen.update(Path(file).name for file in files)
                return list(merged)
            except (FileNotFoundError, RuntimeError, ValueError, struct.error) as error:
                problem = error  # a worker has just gone, or is growing its file
                time.sleep(0.01)
        raise OSError(f"the workers' metrics in {self._directory} cannot be read: {problem}")

    def writers(self) -> set[int]:
        numbers = (file.stem.rpartition("_")[2] for file in self._directory.glob("*.db"))
        return {int(number) for number in numbers if number.isdigit()} - {0}

    def _notice(self) -> None:
        # Only retire() removes files; other losses would lower the counts.
        gone = self._seen - {file.name for file in self._directory.glob("*.db")}
        if gone:
            lost = ", ".join(sorted(gone))
            raise LostCounts(f"{lost} in {self._directory} was deleted, and the counts in it")

    def retire(self, pid: int) -> None:
        with self._lock:
            self._notice()
            mark_process_dead(pid, str(self._directory))  # type: ignore[no-untyped-call]
            if shutil.disk_usage(self._directory).free >= SPACE_BYTES:
                for kind in ("counter", "histogram"):
                    self._put_together(kind, pid)
            self._seen = {name for name in self._seen if (self._directory / name).exists()}

    def _put_together(self, kind: str, pid: int) -> None:
        # Keys and values of such files simply add up; no process has the number 0.
        dead, all_dead = (self._directory / f"{kind}_{number}.db" for number in (pid, 0))
        sums: Tally[str] = Tally()
        for file in (dead, all_dead):
            if file.exists() and file.stat().st_size:
                values = MmapedDict.read_all_values_from_file(str(file))  # type: ignore[no-untyped-call]
                sums.update({key: value for key, value, _, _ in values})
        if sums:
            fresh = self._directory / f"{kind}.fresh"
            fresh.unlink(missing_ok=True)
            written = MmapedDict(str(fresh))  # type: ignore[no-untyped-call]
            for key, value in sums.items():
                written.write_value(key, value, 0.0)  # type: ignore[no-untyped-call]
            written.close()  # type: ignore[no-untyped-call]
            fresh.replace(all_dead)
        dead.unlink(missing_ok=True)
