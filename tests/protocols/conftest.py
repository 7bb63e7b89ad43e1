"""The protocols of the small artifact, for every file about them."""

from __future__ import annotations

import native_requests
import numpy as np
import oip_requests
import pytest
from numpy.typing import NDArray

from skipserve.artifacts.artifact import Artifact
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
