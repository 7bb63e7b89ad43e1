"""The log on stderr: one line an event, as JSON or text.

    worker  ──→ stderr, JSON ──→ TorchServe ──┐
    frontend (Java) ──→ stderr, JSON ─────────┼──→ relay ──→ Log ──→ stderr of `skipserve serve`
    launcher ─────────────────────────────────┘

Whatever else comes the same way (a crash of the JVM, a library that prints) is made an event.
"""

from __future__ import annotations

import logging
import re
import sys
import threading
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from typing import IO, Any, TextIO

import msgspec

from skipserve.errors import ConfigError

Event = Mapping[str, Any]

READ_BYTES = 1 << 16
# Java's "\tat …", "Caused by: …"; Python's '  File "…"' and, at the end, "ValueError: …".
_CONTINUES = re.compile(r"\s|Caused by: |[\w.]+(Error|Exception)\b")
# A message may quote what a client sent; on a terminal it must not start a line or move the cursor.
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))}


# Disconnects are not errors; TorchServe's frontend logs a stack trace for each.
HUNG_UP = re.compile(r"NativeIoException[^\n]*(Connection reset by peer|Broken pipe)")
HEAD = ("time", "level", "logger", "message")


def fields(**values: object) -> dict[str, object]:
    """Fields for ``extra=`` of a logging call; they become keys of the event."""
    return {"fields": {key: value for key, value in values.items() if value not in (None, "")}}


class Log:
    """Writes events to a stream, whole lines only, from any thread.

    Args:
        format: ``"json"`` or ``"text"``.
        stream: Default: stderr.

    Raises:
        ConfigError: If there is no such format.
    """

    def __init__(self, format: str = "json", stream: TextIO | None = None) -> None:
        if format not in ("text", "json"):
            raise ConfigError(f"log format {format!r}; expected text or json")
        self.format = format
        self._render = _json if format == "json" else _text
        self._stream = stream or sys.stderr
        self._lock = threading.Lock()

    def write(self, event: Event) -> None:
        """Write one event; errors of the stream are ignored."""
        line = self._render(event) + "\n"
        with self._lock:
            try:
                self._stream.write(line)
                self._stream.flush()
            except (OSError, ValueError):
                pass

    def relay(self, stream: IO[bytes], name: str) -> None:
        """Write what another process prints until it ends; closes the stream.

        Args:
            stream: Of its lines.
            name: Of the logger, where a line does not say it; such a line is a warning.
        """
        with stream:
            for line in _joined(stream):
                if HUNG_UP.search(line):
                    continue
                foreign = {"time": _now(), "level": "warning", "logger": name, "message": line}
                try:
                    self.write(_parse(line) or foreign)
                except Exception:  # any line: a full pipe would stop the server
                    self.write(foreign)

    def attach(self) -> None:
        """Attach the root logger, and so those of libraries, from WARNING on.

        Loggers under ``skipserve`` write from INFO on.
        """
        root = logging.getLogger()
        root.handlers = [_Handler(self)]
        root.setLevel(logging.WARNING)
        logging.getLogger("skipserve").setLevel(logging.INFO)
        logging.captureWarnings(True)


class _Handler(logging.Handler):
    def __init__(self, log: Log) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._log.write(_event(record))
        except Exception:
            self.handleError(record)


def _joined(stream: IO[bytes]) -> Iterator[str]:
    # The lines of a stack trace arrive together and are one event.
    rest = b""
    while chunk := stream.read1(READ_BYTES):  # type: ignore[attr-defined]
        lines = (rest + chunk).split(b"\n")
        rest = lines.pop()
        event: list[str] = []
        for line in lines:
            text = line.decode(errors="replace").rstrip()
            if event and (event[0].startswith("{") or not _CONTINUES.match(text)):
                yield "\n".join(event)
                event.clear()
            if text:
                event.append(text)
        if event:
            yield "\n".join(event)
    if rest:
        yield rest.decode(errors="replace")


def _event(record: logging.LogRecord) -> Event:
    event: dict[str, Any] = {
        "time": _now(record.created),
        "level": record.levelname.lower(),
        "logger": record.name,
        "message": record.getMessage(),
        **getattr(record, "fields", {}),
    }
    if record.exc_info:
        event["exception"] = logging.Formatter().formatException(record.exc_info)
    return event


def _parse(line: str) -> Event | None:
    if not line.startswith("{"):
        return None
    try:
        event = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if not isinstance(event, dict) or not set(HEAD) <= event.keys():
        return None
    # Java's pattern cannot leave a key out.
    return {key: value for key, value in event.items() if value != "" or key in HEAD}


def _now(timestamp_s: float | None = None) -> str:
    moment = datetime.now(timezone.utc)
    if timestamp_s is not None:
        moment = datetime.fromtimestamp(timestamp_s, timezone.utc)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _json(event: Event) -> str:
    return msgspec.json.encode(event, enc_hook=str).decode()


def _text(event: Event) -> str:
    rest = dict(event)
    exception = rest.pop("exception", "")
    head = " ".join(str(rest.pop(key)) for key in HEAD)
    tail = "".join(f" {key}={_json(value)}" for key, value in rest.items())
    return f"{(head + tail).translate(_CONTROLS)}\n{exception}".rstrip()
