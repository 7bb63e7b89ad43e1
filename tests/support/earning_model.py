"""A model that is watched while it earns, with a worker that counts evidence."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from monitored import Watch, Worker

from skipserve.artifacts.certificates import from_json
from skipserve.earning.binding import binding_of
from skipserve.earning.counts_file import CountsFile
from skipserve.earning.process_file import folder_of

RISKS = (0.02, 0.05)


def earning(artifact, mode="earned", **settings):
    """The same artifact, as a TOML with these settings would make it."""
    asked = {"certificate": mode, "eager_rows": 0, **settings}
    router = artifact.manifest.router.model_copy(update=asked)
    manifest = artifact.manifest.model_copy(update={"router": router})
    certificates = artifact.certificates
    if mode == "earned":
        certificates = certificates.model_copy(update={"certificates": ()})
    return replace(artifact, manifest=manifest, certificates=certificates)


class Model:
    """A model that is watched, with a worker that counts evidence."""

    def __init__(self, directory, artifact, state=None, **settings):
        directory.mkdir(exist_ok=True)
        self.state = state or directory / "state"
        self.artifact = artifact
        self.watch = Watch(directory, artifact, self.state, **settings)
        self.worker = Worker(self.watch.directory, 1).opens(certified=False)
        spec = artifact.manifest.router
        made = [[from_json(one) for one in row] for row in artifact.certificates.candidates]
        self.candidates = len(made)
        self.binding = binding_of(
            artifact.manifest,
            np.array(made, np.float32).reshape(-1, len(spec.decisions)),
            artifact.hashes("onnx", "fp32"),
            "fp32",
            "cpu",
        )
        self.file = CountsFile(self.state, self.binding)

    @property
    def folder(self):
        return folder_of(self.state, self.binding)

    @property
    def control(self):
        return self.watch.switch.control()

    def sees(self, rows, wrong_from=None, share=0.2):
        """Evidence rows on which the candidates from one on disagree too often."""
        differ = np.zeros(self.candidates, np.int64)
        if wrong_from is not None:
            differ[wrong_from:] = round(share * rows)
        self.file.add(self.control.epoch, rows, differ, differ)
        self.file.flush()
        self.watch.tick()

    def value(self, name, **labels):
        return self.watch.value(name, **labels)
