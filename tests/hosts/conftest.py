"""TorchServe's own reader, for every file that patches it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from ts import async_service
from ts.protocol import otf_message_handler


@pytest.fixture
def original(monkeypatch: pytest.MonkeyPatch) -> Callable[..., bytearray]:
    """TorchServe's reader, put back after the test."""
    reader: Callable[..., bytearray] = otf_message_handler._retrieve_buffer
    monkeypatch.setattr(otf_message_handler, "_retrieve_buffer", reader)
    batch = otf_message_handler._retrieve_inference_msg
    monkeypatch.setattr(otf_message_handler, "_retrieve_inference_msg", batch)
    monkeypatch.setattr(async_service.AsyncService, "run", async_service.AsyncService.run)
    return reader
