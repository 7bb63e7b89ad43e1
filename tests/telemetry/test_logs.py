"""The log: one line an event, from every source."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys

import pytest

from skipserve.errors import ConfigError
from skipserve.telemetry.logs import Log

EVENT = {"time": "2026-01-01T00:00:00.000Z", "level": "error", "logger": "a", "message": "b"}
JAVA = (
    b'Exception in thread "main" java.lang.IllegalStateException: no\n'
    b"\tat org.pytorch.serve.ModelServer.main(ModelServer.java:1)\n"
    b"Caused by: java.io.IOException: disk\n"
    b"\t... 3 more\n"
)
PYTHON = (
    b'Traceback (most recent call last):\n  File "a.py", line 1\n    import b\nImportError: b\n'
)


def relayed(content: bytes, format: str = "json") -> list[str]:
    """What comes out on stderr of what another process wrote into a pipe."""
    read, write = os.pipe()
    os.write(write, content)
    os.close(write)
    out = io.StringIO()
    Log(format, out).relay(os.fdopen(read, "rb"), "torchserve")
    return out.getvalue().splitlines()


def test_an_event_passes_as_it_is():
    assert [json.loads(line) for line in relayed(json.dumps(EVENT).encode() + b"\n")] == [EVENT]


def test_what_javas_pattern_left_empty_is_left_out():
    line = json.dumps(EVENT | {"exception": ""}).encode()
    assert json.loads(relayed(line)[0]) == EVENT


@pytest.mark.parametrize("trace", [JAVA, PYTHON], ids=["java", "python"])
def test_a_stack_trace_is_one_event(trace):
    lines = relayed(b"before\n" + trace + b"after\n" + json.dumps(EVENT).encode() + b"\n")
    messages = [json.loads(line)["message"] for line in lines]
    assert messages == ["before", trace.decode().rstrip(), "after", "b"]


@pytest.mark.parametrize(
    "line", [b"\xff\xfe", b"{}", b'{"time": 1', b"[" * 9, b'{"message": "no more"}', b"no newline"]
)
def test_anything_else_is_an_event_too(line):
    (found,) = relayed(line)
    event = json.loads(found)
    assert event.keys() == EVENT.keys()
    assert event["message"] == line.decode(errors="replace")


@pytest.mark.parametrize("format", ["text", "json"])
def test_an_event_without_a_message_ends_no_relay(format):
    silent = json.dumps({**EVENT, "message": "", "exception": "java.io.IOException"}).encode()
    first, *_, last = relayed(silent + b"\n" + json.dumps(EVENT).encode() + b"\n", format)
    assert EVENT["time"] in first
    assert EVENT["message"] in last


def test_a_client_that_hung_up_leaves_no_line():
    cause = "io.netty.channel.unix.Errors$NativeIoException: readAddress(..) failed: {} by peer"
    reset, other = (
        json.dumps({**EVENT, "message": "", "exception": cause.format(what)})
        for what in ("Connection reset", "Something else")
    )
    assert len(relayed(f"{reset}\n{other}\n".encode())) == 1


def test_text_keeps_what_a_client_sent_on_its_line():
    event = EVENT | {"message": "refused\n\x1b[2J", "request_id": "7"}
    (line,) = relayed(json.dumps(event).encode(), "text")
    assert line == r'2026-01-01T00:00:00.000Z error a refused\x0a\x1b[2J request_id="7"'


def test_a_process_whose_log_this_is_writes_events_only():
    code = (
        "import logging, warnings\n"
        "from skipserve.telemetry.logs import Log, fields\n"
        "Log().attach()\n"
        "log = logging.getLogger('skipserve.x')\n"
        "log.info('one', extra=fields(status=200, code=''))\n"
        "logging.getLogger('library').info('not this')\n"
        "warnings.warn('two')\n"
        "try: 1 / 0\n"
        "except ZeroDivisionError: log.exception('three %d', 3, extra=fields(ids=['a']))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    one, two, three = (json.loads(line) for line in done.stderr.splitlines())
    assert (one["level"], one["message"], one["status"]) == ("info", "one", 200)
    assert "code" not in one
    assert "UserWarning: two" in two["message"]
    assert (three["message"], three["ids"]) == ("three 3", ["a"])
    assert three["exception"].endswith("ZeroDivisionError: division by zero")


def test_a_format_that_is_not_there_is_refused():
    with pytest.raises(ConfigError, match="'xml'; expected text or json"):
        Log("xml")
