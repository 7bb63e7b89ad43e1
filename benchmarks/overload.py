"""What a service does with five times the requests that it can answer, and with a tenth too many.

One table for a service that refuses whom it would keep waiting (`max_wait_ms`) and one that only
has its queue; another for a service that stays at its risk and one that may move along its
certified risks. No more than some 200 requests a second can be answered, so that the client is not
the limit: a request to a small network has many rows, one to a network of texts (`--texts`) is
short and takes long. With --json also a line of JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.error import URLError

import psutil
import uvloop
from early import asked
from open_loop import Clients, TimedReply, quantile_ms

from skipserve.artifacts.archive import MODEL_CONFIG
from skipserve.direct import open_directly

# In the closed loop: enough for full batches, too few to wait as long as none may.
CLIENTS = 8
OVERLOADED = (
    "| | capacity | asked | goodput | of capacity | accepted p50, p99, max | refused p99, max "
    "| no reply, no Retry-After | memory before, most | recovered after |\n" + "|---" * 10 + "|"
)
DEPTH = "| | asked | refused | p50, p99 | within the SLO |\n" + "|---" * 5 + "|"


@dataclass(frozen=True)
class Overload:
    """What one service did; rates are of requests a second, times in ms, memory in MB."""

    name: str
    capacity: float
    rate: float
    goodput: float
    accepted_p50: float
    accepted_p99: float
    accepted_max: float
    refused_p99: float
    refused_max: float
    wrong: int
    memory_before: float
    memory_most: float
    recovered: float

    def __str__(self) -> str:
        return (
            f"| {self.name} | {self.capacity:.0f}/s | {self.rate:.0f}/s | {self.goodput:.0f}/s "
            f"| {self.goodput / self.capacity:.0%} | {self.accepted_p50:.0f}, "
            f"{self.accepted_p99:.0f}, {self.accepted_max:.0f} ms | {self.refused_p99:.0f}, "
            f"{self.refused_max:.0f} ms | {self.wrong} | {self.memory_before:.0f}, "
            f"{self.memory_most:.0f} MB | {self.recovered:.0f} ms |"
        )


@dataclass(frozen=True)
class Depth:
    """What one service did with a tenth too many; as :class:`Overload`."""

    name: str
    rate: float
    refused: float
    p50: float
    p99: float
    within: float

    def __str__(self) -> str:
        return (
            f"| {self.name} | {self.rate:.0f}/s | {self.refused:.1%} "
            f"| {self.p50:.0f}, {self.p99:.0f} ms | {self.within:.1%} |"
        )


class Service:
    """A service of one model, and its clients.

    Args:
        options: Of the command line.
        arguments: Of `skipserve serve`.
    """

    def __init__(self, options: argparse.Namespace, *arguments: str) -> None:
        self.clients = Clients(options.port, f"/predictions/{options.model}", bodies(options))
        command = [sys.executable, "-m", "skipserve.cli", "serve", options.model, *arguments]
        command += ["--model-store", str(options.model_store), "--batch-size", str(options.batch)]
        command += ["--port", str(options.port), "--metrics-port", str(options.port + 1)]
        self._process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while True:
            if self._process.poll() is not None:
                sys.exit("the service did not start")
            with (
                contextlib.suppress(URLError, ConnectionError),
                open_directly(f"http://127.0.0.1:{options.port + 1}/ready", 10),
            ):
                return
            time.sleep(0.1)

    def memory(self) -> float:
        """Of all of its processes, in MB."""
        launcher = psutil.Process(self._process.pid)
        some = [launcher, *launcher.children(recursive=True)]
        return sum(one.memory_info().rss for one in some) / 1e6

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(60)


def bodies(options: argparse.Namespace) -> list[bytes]:
    """Requests of so many rows each."""
    if options.texts is not None:
        lines = options.texts.read_text().splitlines()[-512:]
        ones = [json.loads(line)[options.column] for line in lines]
    else:
        ones = numbers(options)
    many = [ones[i : i + options.rows] for i in range(0, len(ones), options.rows)]
    asked_too: dict[str, object] = {"parameters": {"router": "off"}} if options.off else {}
    return [
        json.dumps({"inputs": rows, **asked_too}, separators=(",", ":")).encode()
        for rows in many
        if len(rows) == options.rows
    ]


def numbers(options: argparse.Namespace) -> list[object]:
    """Rows of numbers."""
    return [json.loads(body)["inputs"][0] for body in asked(options.model, options.data)]


@contextlib.contextmanager
def serving(options: argparse.Namespace, *arguments: str) -> Iterator[Service]:
    service = Service(options, *arguments)
    try:
        asyncio.run(service.clients.closed(CLIENTS, 2))
        yield service
    finally:
        service.close()


async def capacity(service: Service, seconds: float) -> float:
    found = await service.clients.closed(CLIENTS, seconds)
    return sum(one.status == 200 for one in found) / seconds


async def watched(service: Service, asking: asyncio.Task[list[TimedReply]]) -> float:
    """The most memory that the service has while it is asked."""
    most = service.memory()
    while not asking.done():
        await asyncio.sleep(0.5)
        most = max(most, service.memory())
    return most


async def overloaded(service: Service, name: str, options: argparse.Namespace) -> Overload:
    can, before = await capacity(service, options.seconds / 3), service.memory()
    rate = options.times * can
    asking = asyncio.ensure_future(service.clients.open(rate, options.seconds))
    most = await watched(service, asking)
    found = asking.result()
    end_s = max(one.due_s for one in found)
    after = await service.clients.open(can / 2, 6)
    can = (can + await capacity(service, options.seconds / 3)) / 2
    slo_s = options.slo_ms / 1e3
    good = [one for one in found if one.status == 200]
    refused = [one for one in found if one.status in (429, 503)]
    late = [one.due_s for one in after if one.status != 200 or one.took_s > slo_s]
    return Overload(
        name,
        can,
        rate,
        sum(one.took_s <= slo_s for one in good) / options.seconds,
        *(quantile_ms(good, share) for share in (0.5, 0.99, 1.0)),
        *(quantile_ms(refused, share) for share in (0.99, 1.0)),
        len(found) - len(good) - sum(one.retry_after for one in refused),
        before,
        most,
        1e3 * (max(late) - end_s) if late else 0.0,
    )


def store_at(options: argparse.Namespace, folder: Path) -> Path:
    """A model store of the same archive, whose requests get the lowest risk if they name none."""
    name = f"{options.model}.mar"
    with (
        zipfile.ZipFile(options.model_store / name) as made,
        zipfile.ZipFile(folder / name, "w", zipfile.ZIP_DEFLATED) as other,
    ):
        for entry in made.namelist():
            content = made.read(entry)
            if entry == MODEL_CONFIG:
                config = json.loads(content)
                config["skipserve"]["risk"] = options.risk
                content = json.dumps(config).encode()
            other.writestr(entry, content)
    return folder


def depths(options: argparse.Namespace) -> list[Depth]:
    """A tenth more than the one that stays can answer, to each in turn."""
    bolder = ("--overload-risk", str(options.overload_risk))
    names = (f"stays at {options.risk:g}", f"may go to {options.overload_risk:g}")
    slo_s = options.slo_ms / 1e3
    found: tuple[list[TimedReply], list[TimedReply]] = ([], [])
    with tempfile.TemporaryDirectory() as folder:
        at = argparse.Namespace(**{**vars(options), "model_store": store_at(options, Path(folder))})
        other = argparse.Namespace(**{**vars(at), "port": options.port + 10})
        wait = ("--max-wait-ms", str(options.max_wait_ms))
        with serving(at, *wait) as stays, serving(other, *wait, *bolder) as goes:
            rates = []
            for _ in range(options.rounds):
                rates.append(1.1 * asyncio.run(capacity(stays, options.seconds / 6)))
                for service, some in zip((stays, goes), found, strict=True):
                    some += asyncio.run(service.clients.open(rates[-1], options.seconds / 3))
    rows = []
    for name, some in zip(names, found, strict=True):
        good = [one for one in some if one.status == 200]
        rows.append(
            Depth(
                name,
                sum(rates) / len(rates),
                1 - len(good) / len(some),
                quantile_ms(good, 0.5),
                quantile_ms(good, 0.99),
                sum(one.took_s <= slo_s for one in good) / len(some),
            )
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default="mnist1d_resnet")
    parser.add_argument("--model-store", type=Path, default=Path("model_store"))
    parser.add_argument("--data", type=Path, help=".npz; the first array in it is sent")
    parser.add_argument("--texts", type=Path, help=".jsonl; texts are sent in place of numbers")
    parser.add_argument("--column", default="body", help="of --texts")
    parser.add_argument("--off", action="store_true", help="requests ask for full depth")
    parser.add_argument("--rows", type=int, default=64, help="of each request")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--times", type=float, default=5.0)
    parser.add_argument("--slo-ms", type=float, default=500.0)
    parser.add_argument("--max-wait-ms", type=float, default=250.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--risk", type=float, default=0.005)
    parser.add_argument("--overload-risk", type=float, default=0.05)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--port", type=int, default=21300)
    parser.add_argument("--only", choices=["overload", "depth"])
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    uvloop.install()  # what the clients take, the service lacks
    rows: list[Overload | Depth] = []
    print(f"{options.model}, {options.rows} rows a request, SLO {options.slo_ms:g} ms")
    if options.only != "depth":
        print(OVERLOADED)
        refuses = (f"max_wait_ms = {options.max_wait_ms:g}", str(options.max_wait_ms))
        for name, wait_ms in (refuses, ("only queue_size = 1000", "60000")):
            with serving(options, "--max-wait-ms", wait_ms) as service:
                rows.append(asyncio.run(overloaded(service, name, options)))
            print(rows[-1], flush=True)
    if options.only != "overload":
        print(DEPTH)
        for row in depths(options):
            rows.append(row)
            print(row, flush=True)
    if options.json:
        print(json.dumps({"benchmark": "overload", "rows": [asdict(row) for row in rows]}))


if __name__ == "__main__":
    main()
