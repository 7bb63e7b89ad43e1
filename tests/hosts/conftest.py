"""TorchServe's own reader, for every file that patches it, and starts that are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import CommandLine
from running import free_ports


@pytest.fixture
def original(monkeypatch: pytest.MonkeyPatch) -> Callable[..., bytearray]:
    """TorchServe's reader, put back after the test."""
    from ts import async_service
    from ts.protocol import otf_message_handler

    reader: Callable[..., bytearray] = otf_message_handler._retrieve_buffer
    monkeypatch.setattr(otf_message_handler, "_retrieve_buffer", reader)
    batch = otf_message_handler._retrieve_inference_msg
    monkeypatch.setattr(otf_message_handler, "_retrieve_inference_msg", batch)
    monkeypatch.setattr(async_service.AsyncService, "run", async_service.AsyncService.run)
    return reader


@pytest.fixture
def refused(project: Path, command_line: CommandLine) -> Callable[..., str]:
    """The one line that a start with options ends with."""

    def start(*options: str) -> str:
        port, metrics_port = free_ports()
        ports = ["--port", str(port), "--metrics-port", str(metrics_port)]
        ended = command_line("serve", *ports, *options, folder=project)
        assert ended.code == 2
        assert len(ended.err.splitlines()) == 1, ended.err
        return ended.err

    return start
