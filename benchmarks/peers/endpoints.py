"""Starting and stopping the contenders, and checking that they answer rightly."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.request import Request

import psutil
from contenders import HERE, Peer, Settings, label_of, native
from models import WORK, RacedModel

from skipserve.address import Address
from skipserve.direct import open_directly
from skipserve.hosts.config import HostConfig
from skipserve.hosts.launcher import Server

START_S, STOP_S, REPLY_S = 90.0, 10.0, 60.0
# Ports of one server: its own, and those it opens whether we like it or not.
PORTS_EACH = 6


class WillNotServe(Exception):
    """A server that does not start, or answers wrongly; the message says why."""


@dataclass(frozen=True)
class Endpoint:
    """A server that answers rightly.

    Attributes:
        url: Where requests go.
        bodies: By router setting (``on``, ``off``), the requests in turn.
        awake: A context in which it runs.
    """

    url: str
    bodies: dict[str, list[bytes]]
    awake: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext


class OurServer:
    """skipserve as `skipserve serve` runs it."""

    def __init__(self, model: RacedModel, settings: Settings, port: int) -> None:
        self._model = model
        config = HostConfig(Address("127.0.0.1", port, port + 1), settings.workers)
        # And else what the model ships with.
        overrides = {"batch_size": settings.batch_size, "threads": settings.threads}
        self._server = Server([model.archive], config, overrides=overrides)

    def endpoint(self) -> Endpoint:
        rows = self._model.rows
        bodies = {"off": [_dump(native(row)) for row in rows]}
        if self._model.routed:
            # A request that asks for nothing gets the model's own risk.
            full = {"parameters": {"router": "off"}}
            bodies = {"on": bodies["off"], "off": [_dump({"inputs": [r], **full}) for r in rows]}
        url = self._server.url(self._server.manifests[0])
        for router, requests in bodies.items():
            _check(url, requests, self._model, self._model.may_differ if router == "on" else 0)
        return Endpoint(url, bodies)

    def close(self) -> None:
        self._server.close()


class PeerServer:
    """A peer's server.py in its own environment, which is made if it is not there."""

    def __init__(self, peer: Peer, model: RacedModel, settings: Settings, port: int) -> None:
        binaries = environment(peer)
        self._peer, self._model, self._port = peer, model, port
        scratch = WORK / peer.name / f"{port}"
        scratch.mkdir(parents=True, exist_ok=True)
        self._log = scratch / "server.log"
        variables = {
            "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(HERE),
            "OMP_NUM_THREADS": str(settings.threads),
            "PEER_MODEL_NAME": model.name,
            "PEER_MODEL_FILE": str(model.plain),
            "PEER_TOKENIZER": str(model.tokenizer or ""),
            "PEER_PORT": str(port),
            "PEER_SPARE_PORTS": ",".join(str(port + i) for i in range(1, PORTS_EACH)),
            "PEER_SCRATCH": str(scratch),
            **{f"PEER_{name.upper()}": str(value) for name, value in asdict(settings).items()},
        }
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [str(binaries / "python"), "server.py"],
                env={**os.environ, **variables},
                cwd=peer.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def endpoint(self) -> Endpoint:
        """Wait until it answers, and check what it answers.

        Raises:
            WillNotServe: With the last error in its log, or what was wrong.
        """
        url = f"http://127.0.0.1:{self._port}{self._peer.path.format(model=self._model.name)}"
        bodies = [_dump(self._peer.body(row)) for row in self._model.rows]
        deadline = time.monotonic() + START_S
        while True:
            try:
                _ask(url, bodies[0])
                break
            except (OSError, HTTPException, ValueError) as error:
                if self._process.poll() is not None:
                    raise WillNotServe(last_error(self._log.read_text(errors="replace"))) from None
                if time.monotonic() > deadline:
                    said = last_error(self._log.read_text(errors="replace"))
                    raise WillNotServe(
                        f"no answer within {START_S:.0f} s ({error}): {said}"
                    ) from None
                time.sleep(0.2)
        _check(url, bodies, self._model, 0)
        if not self._peer.polls:
            return Endpoint(url, {"off": bodies})
        self._each(psutil.Process.suspend)
        return Endpoint(url, {"off": bodies}, self._awake)

    def close(self) -> None:
        """End it and all that it started."""
        family = self._each(psutil.Process.resume)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGTERM)
        self._wait()
        _gone, alive = psutil.wait_procs(family, timeout=STOP_S)
        for process in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    @contextlib.contextmanager
    def _awake(self) -> Iterator[None]:
        self._each(psutil.Process.resume)
        time.sleep(0.2)
        try:
            yield
        finally:
            self._each(psutil.Process.suspend)

    def _each(self, do: Callable[[psutil.Process], None]) -> list[psutil.Process]:
        family = []
        with contextlib.suppress(psutil.NoSuchProcess):
            first = psutil.Process(self._process.pid)
            family = [first, *first.children(recursive=True)]
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                do(process)
        return family[1:]

    def _wait(self) -> None:
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def environment(peer: Peer) -> Path:
    """The bin/ of a peer's virtual environment, made from its pinned requirements when needed.

    Raises:
        WillNotServe: If pip cannot install them.
    """
    requirements = peer.folder / "requirements.txt"
    venv = WORK / peer.name / "venv"
    made_from = venv / "made-from"
    wanted = hashlib.sha256(requirements.read_bytes()).hexdigest()
    if not made_from.is_file() or made_from.read_text() != wanted:
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(venv)], check=True)
        pip = [str(venv / "bin" / "python"), "-m", "pip", "install", "-q", "-r", str(requirements)]
        done = subprocess.run(pip, capture_output=True, text=True)
        if done.returncode:
            raise WillNotServe(f"pip: {last_error(done.stderr)}")
        made_from.write_text(wanted)
    return venv / "bin"


def last_error(text: str) -> str:
    """The last line that names an error, or else the last line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()] or ["it said nothing"]
    errors = [line for line in lines if re.match(r"(ERROR\b|[\w.]*(Error|Exception)\b)", line)]
    return (errors or lines)[-1][:300]


def _check(url: str, bodies: list[bytes], model: RacedModel, may_differ: int) -> None:
    labels = model.labels
    # Sixteen at a time, so that a batch that mixes up its rows is found out.
    with ThreadPoolExecutor(16) as pool:
        try:
            answers = list(pool.map(lambda body: label_of(_ask(url, body), model.names), bodies))
        except (OSError, HTTPException, ValueError, LookupError, TypeError) as error:
            raise WillNotServe(f"{url} does not answer as expected: {error!r}") from None
    wrong = sum(a != b for a, b in zip(answers, labels, strict=True))
    if wrong > may_differ:
        raise WillNotServe(f"{url} gives the wrong label for {wrong} of {len(labels)} rows")


def _ask(url: str, body: bytes) -> Any:
    request = Request(url, body, {"Content-Type": "application/json"})
    with open_directly(request, REPLY_S) as reply:
        return json.load(reply)


def _dump(message: object) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode()
