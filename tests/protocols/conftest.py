"""The protocols of the small artifact, and models of texts, for every file about them."""

from __future__ import annotations

from pathlib import Path

import native_requests
import numpy as np
import oip_requests
import pytest
from numpy.typing import NDArray
from once import made_once

from skipserve.artifacts.artifact import Artifact, open_artifact
from skipserve.protocols.messages import JSON, RawRequest
from skipserve.protocols.native import NativeProtocol
from skipserve.protocols.oip import OpenInference
from skipserve.runtime.engine import Engine
from skipserve.runtime.prediction import Prediction


@pytest.fixture(scope="module")
def open_inference(artifact: Artifact) -> OpenInference:
    return OpenInference(artifact.manifest, oip_requests.MAX_ROWS)


@pytest.fixture(scope="module")
def decode_oip(open_inference: OpenInference, engine: Engine) -> oip_requests.Decode:
    """A request to the rows that would run; both steps that can refuse it."""
    return lambda request: engine.check(open_inference.decode(request).rows).tensors["inputs"]


@pytest.fixture(scope="module")
def prediction(engine: Engine, rows: NDArray[np.float32]) -> Prediction:
    return engine.predict(rows[:3])


@pytest.fixture(scope="module")
def native(artifact: Artifact) -> NativeProtocol:
    return NativeProtocol(artifact.manifest, native_requests.MAX_ROWS)


@pytest.fixture(scope="module")
def decode_native(native: NativeProtocol, engine: Engine) -> native_requests.Decode:
    """A body to the rows that would run; both steps that can refuse it."""

    def decode(body: bytes | None, kind: str = JSON) -> NDArray[np.float32]:
        parsed = native.decode(RawRequest(body, {"content-type": kind}))
        return engine.check(parsed.rows).tensors["inputs"]

    return decode


@pytest.fixture(scope="session")
def artifacts(texts_root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    """One model of texts of each task, with a tokenizer."""
    import text_models

    made = made_once(
        tmp_path_factory, "taking", lambda folder: text_models.make(texts_root, folder)
    )
    return {name: open_artifact(made / name) for name in text_models.KINDS}


@pytest.fixture(scope="module")
def engines(artifacts: dict[str, Artifact]) -> dict[str, Engine]:
    return {name: Engine(one, provider="cpu") for name, one in artifacts.items()}
