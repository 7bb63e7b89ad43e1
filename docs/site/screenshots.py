"""The screenshots of docs/operate.md and docs/bring.md: a real service under traffic.

    skipserve build export/mnist1d_resnet.toml
    python docs/site/screenshots.py     # writes docs/screenshots/*.png

Starts a service of `mnist1d_resnet`, asks it for a while, and takes pictures of the live page and
of `skipserve top`; writes the report of the model and takes a picture of its beginning.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from tempfile import TemporaryDirectory

from playwright.sync_api import Browser, sync_playwright
from rich.console import Console

from skipserve.training.recipes import open_recipe
from skipserve.watching.screen import once

OUT = Path(__file__).parents[1] / "screenshots"
MODEL = "mnist1d_resnet"
CLI = [sys.executable, "-m", "skipserve.cli"]
JSON = {"Content-Type": "application/json"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--metrics-port", type=int, default=9464)
    parser.add_argument("--seconds", type=float, default=45, help="of traffic before the pictures")
    parser.add_argument("--rate", type=float, default=60, help="requests a second")
    asked = parser.parse_args()
    OUT.mkdir(exist_ok=True)
    subprocess.run([*CLI, "report", MODEL], check=True)
    report = Path("reports", MODEL, "report.html").resolve()
    with sync_playwright() as playwright, TemporaryDirectory() as folder:
        chromium = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox"]
        )
        picture(chromium, report.as_uri(), "report", 1000, 900)
        with serving(asked.port, asked.metrics_port), asking(asked.port, asked.rate):
            url = f"http://127.0.0.1:{asked.metrics_port}"
            watched = chromium.new_page(viewport={"width": 900, "height": 760})
            watched.goto(url)
            watched.wait_for_timeout(1000 * asked.seconds)
            watched.screenshot(path=OUT / "page.png", full_page=True, timeout=120_000)
            frame = Path(folder, "top.html")
            frame.write_text(top(url))
        picture(chromium, frame.as_uri(), "top", 900, 200)
        chromium.close()


@contextmanager
def serving(port: int, metrics_port: int) -> Iterator[None]:
    ports = ["--port", str(port), "--metrics-port", str(metrics_port)]
    process = subprocess.Popen([*CLI, "serve", *ports, MODEL], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    while not process.stdout.readline().startswith("ready"):
        assert process.poll() is None, "the service did not start"
    try:
        yield
    finally:
        process.terminate()
        process.wait()


@contextmanager
def asking(port: int, rate: float) -> Iterator[None]:
    """Rows of the test split, one a request, in a thread."""
    rows = open_recipe("mnist1d").draw("test").inputs[:2000].numpy().round(4).tolist()
    ended = threading.Event()

    def ask() -> None:
        connection = HTTPConnection("127.0.0.1", port)
        for row in itertools.cycle(rows):
            if ended.is_set():
                return
            connection.request("POST", f"/predictions/{MODEL}", json.dumps({"inputs": [row]}), JSON)
            connection.getresponse().read()
            time.sleep(1 / rate)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def top(url: str) -> str:
    """A frame of `skipserve top`, as HTML."""
    with Path(os.devnull).open("w") as nothing:
        console = Console(record=True, width=96, file=nothing, highlight=False)
        once(url, 5.0, console)
    page = (
        '<body style="margin:12px;background:#15181c;color:#e4e6e9">'
        '<pre style="font:15px/1.25 DejaVu Sans Mono,monospace;margin:0">{code}</pre>'
    )
    return console.export_html(inline_styles=True, code_format=page)


def picture(chromium: Browser, url: str, name: str, width: int, height: int) -> None:
    page = chromium.new_page(viewport={"width": width, "height": height})
    page.goto(url)
    page.screenshot(path=OUT / f"{name}.png", full_page=name == "top", timeout=120_000)
    page.close()


if __name__ == "__main__":
    main()
