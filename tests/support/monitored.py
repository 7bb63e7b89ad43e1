"""A monitor of one model, and workers that write counts as the metrics library does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from prometheus_client.mmap_dict import MmapedDict, mmap_key
from prometheus_client.parser import text_string_to_metric_families

from skipserve.artifacts.serving import ServingConfig
from skipserve.safety.model_watch import Watched
from skipserve.safety.monitor import Monitor
from skipserve.safety.switch import Switch
from skipserve.telemetry.exposition import Exposition

RISK = 0.05


class Worker:
    """The files of one worker process."""

    def __init__(self, directory: Path, pid: int) -> None:
        self._directory = directory
        self._pid = pid

    def add(self, name: str, value: float, kind: str = "counter", **labels: str) -> None:
        series = f"skipserve_{name}" + ("_total" if kind == "counter" else "")
        labels = {"model": "small", **labels}
        key = mmap_key(f"skipserve_{name}", series, list(labels), list(labels.values()), "Help.")
        file = MmapedDict(str(self._directory / f"{kind}_{self._pid}.db"))
        file.write_value(key, file.read_value(key)[0] + value, 0.0)
        file.close()

    def opens(self, certified: bool = True) -> Worker:
        kind = {"backend": "onnxruntime", "provider": "cpu", "precision": "fp32"}
        self.add("model_info", 1, "gauge_livemax", **kind)
        if certified:
            self.add("certified_risk_ratio", RISK, "gauge_livemax")
        return self

    def evidence(self, rows: int, disagreements: int, risk: float = RISK) -> None:
        self.add("evidence_rows", rows, risk=str(risk))
        self.add("evidence_disagreements", disagreements, risk=str(risk))

    def signals(self, stage: int, counts: list[int]) -> None:
        for bin_, count in enumerate(counts):
            self.add("signal_rows", count, stage=str(stage), bin=str(bin_))


class Watch:
    """A monitor of one model, and what it says."""

    def __init__(self, directory: Path, artifact, state: Path, **settings) -> None:
        (directory / "metrics").mkdir()
        self.directory = directory / "metrics"
        self.switch = Switch(directory / "small")
        self.exposition = Exposition(self.directory)
        serving = ServingConfig(**{"risk": RISK, **settings})
        self.model = Watched(artifact, serving, self.switch, state)
        self.monitor = Monitor(self.exposition, [self.model])
        self.now_s = 0.0

    def tick(self, seconds: float = 1.0) -> None:
        self.now_s += seconds
        self.monitor.tick(self.now_s)

    def value(self, name: str, **labels: str) -> float | None:
        text = self.exposition.text()[0].decode()
        found = [
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == f"skipserve_{name}" and labels.items() <= sample.labels.items()
        ]
        assert len(found) <= 1
        return found[0] if found else None

    def state(self) -> str:
        states = ("on", "off", "uncertified", "fell_back", "disabled")
        (state,) = [s for s in states if self.value("router_state", state=s)]
        return state


def other_files(model: Watched) -> Watched:
    manifest = model.artifact.manifest
    files = [one.model_copy(update={"sha256": "0" * 64}) for one in manifest.files]
    changed = manifest.model_copy(update={"files": tuple(files)})
    return replace(model, artifact=replace(model.artifact, manifest=changed))
