"""The README's commands are run as they stand there, and the replies are as it prints them.

The page docs/index.md goes on where the README ends; its requests are asked, too. So are the
examples of docs/text.md, of the model that the README brings, and those of docs/images.md.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import folders
import numpy as np
import onnx
import picture_folders
import pytest
import torch
from logits import Logits
from running import ROOT, cli, free_ports

from skipserve.artifacts.torch_files import export_module
from skipserve.training.checkpoint import load_checkpoint
from skipserve.training.recipes import open_recipe


def blocks(page: str) -> list[tuple[str, str]]:
    """Language and content of the blocks of code on a page."""
    text = (ROOT / page).read_text()
    return re.findall(r"^```(\w+)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


TEXT = (ROOT / "README.md").read_text()
BLOCKS, START = blocks("README.md"), blocks("docs/index.md")
# What the README asks for answers; `make serve` would build two others.
ASKED = ("moons_residual", "mnist1d_resnet")
PORT, METRICS = "8080", "9464"


def commands(block: str) -> list[str]:
    """The commands of a block for a shell, without comments."""
    lines = block.replace("\\\n", " ").splitlines()
    return [re.split(r"\s+#", line)[0].strip() for line in lines]


SHELL = [commands(block) for kind, block in BLOCKS if kind == "sh"]


class Shell:
    """A terminal in a clone of the repository whose environment is the one that runs the tests."""

    def __init__(self, root: Path) -> None:
        self.root = root
        port, metrics = free_ports()
        self.ports = {PORT: str(port), METRICS: str(metrics)}
        names = {"SKIPSERVE_PORT": self.ports[PORT], "SKIPSERVE_METRICS_PORT": self.ports[METRICS]}
        self.environment = {**os.environ, **names}
        self.begun: list[str] = []

    def run(self, command: str) -> str:
        """What a command prints; it must succeed."""
        for said, free in self.ports.items():
            command = command.replace(f":{said}/", f":{free}/")
        done = subprocess.run(
            ["bash", "-euc", "\n".join([*self.begun, command])],
            cwd=self.root,
            env=self.environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    @contextlib.contextmanager
    def serving(self, command: str) -> Iterator[Path]:
        """A command that serves until it is ended; its log."""
        log = self.root / f"serve.{self.ports[PORT]}.log"
        with log.open("w") as output:
            process = subprocess.Popen(
                ["bash", "-euc", "\n".join([*self.begun, f"exec {command}"])],
                cwd=self.root,
                env=self.environment,
                stdout=output,
                stderr=output,
            )
        try:
            while "\nready" not in log.read_text():
                assert process.poll() is None, log.read_text()
                time.sleep(0.05)
            yield log
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


@pytest.fixture(scope="module")
def clone(tmp_path_factory) -> Path:
    """A clone with an environment and the README's models, of the weights that ship with them."""
    root = tmp_path_factory.mktemp("clone")
    for folder in ("export", "handlers", "src"):
        ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(ROOT / folder, root / folder, ignore=ignored)
    (root / "docs").mkdir()
    for file in ("Makefile", "README.md", "LICENSE", "pyproject.toml", "docs/two-rows.json"):
        shutil.copy(ROOT / file, root / file)
    bin_ = root / ".venv" / "bin"
    bin_.mkdir(parents=True)
    (bin_ / "activate").write_text('export PATH="$PWD/.venv/bin:$PATH"\n')
    for name, called in (("skipserve", "-m skipserve.cli"), ("pip", "-m pip")):
        (bin_ / name).write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {called} "$@"\n')
        (bin_ / name).chmod(0o755)
    for made in ("python", "serve"):  # as the Makefile leaves them: newer than pyproject.toml
        (root / ".venv" / made).touch()
    build = cli("build", *(f"export/{name}.toml" for name in ASKED))
    done = subprocess.run(build, cwd=root, check=True, capture_output=True, text=True)
    for name in ASKED:
        assert f"{name}: weights from export/weights/{name}.safetensors" in done.stderr
    return root


@pytest.fixture(scope="module")
def served(clone) -> Iterator[tuple[Shell, str]]:
    """The first command, run; and what it printed."""
    ((command,), *_) = SHELL
    assert command == "make serve"
    shell = Shell(clone)
    # exec, for make must get the signal that ends the service, not a shell around it.
    with shell.serving(f"{command} MODELS={shlex.quote(' '.join(ASKED))}") as log:
        yield shell, log.read_text()


def routed(shell: Shell, command: str) -> dict[str, Any]:
    """The reply to a command; asked again while its first row gives evidence, one in a hundred."""
    for _ in range(5):
        answer: dict[str, Any] = json.loads(shell.run(command))
        outputs = answer.get("outputs")
        if not outputs or outputs[0]["depth_run"] < answer["depth"]:
            break
    return answer


def pairs(page: str) -> list[tuple[str, Any]]:
    """Requests on a page, and the replies that stand right below them."""
    block = r"^```{}\n((?:(?!```).*\n)+)```\n"
    both = block.format("sh") + block.format("json")
    found = re.findall(both, (ROOT / page).read_text(), re.MULTILINE)
    return [(commands(asked)[0], json.loads(reply)) for asked, reply in found]


@pytest.mark.server
def test_each_reply_is_as_it_stands_below_its_command(served):
    assert len(pairs("README.md")) == [kind for kind, _ in BLOCKS].count("json") == 1
    for command, expected in pairs("README.md"):
        answer = routed(served[0], command)
        # Another machine computes slightly other probabilities, and fits slightly other exits.
        depths = []
        for row, printed in zip(answer["outputs"], expected["outputs"], strict=True):
            numbers, shown = row.pop("probabilities"), printed.pop("probabilities")
            assert sum(numbers) == pytest.approx(1, abs=1e-5)
            assert shown == pytest.approx(numbers, abs=0.1)
            depths.append((row.pop("depth_run"), printed.pop("depth_run")))
        assert answer == expected
        for shallow, deep in zip(*depths, strict=True):
            assert 0 <= shallow < deep <= answer["depth"]


@pytest.mark.server
def test_the_first_page_of_docs_is_answered_alike(served):
    ((wrong, expected),) = pairs("docs/index.md")
    assert json.loads(served[0].run(wrong)) == expected
    requests = [json.loads(content) for kind, content in START if kind == "json"]
    for request in (one for one in requests if "parameters" in one):
        rows = json.loads((ROOT / "docs" / "two-rows.json").read_text())
        body = json.dumps({**request, **rows})
        asked = f"curl -d '{body}' -H 'Content-Type: application/json' -s"
        reply = json.loads(
            served[0].run(f"{asked} http://127.0.0.1:8080/predictions/mnist1d_resnet")
        )
        router = request["parameters"]["router"]
        assert reply["router"] == ("off" if router == "off" else "on")
        assert reply.get("risk") == (None if router == "off" else router["risk"])


def test_its_python_example_runs(clone, monkeypatch, capsys):
    monkeypatch.chdir(clone)
    (example,) = [content for kind, content in START if kind == "python"]
    exec(example, {})
    assert capsys.readouterr().out.startswith("[1] [[")


def test_the_first_reply_is_a_routers():
    ((_, first),) = pairs("README.md")
    depths = [row["depth_run"] for row in first["outputs"]]
    assert first["router"] == "on"
    assert len(set(depths)) == len(depths) == 2
    assert f"The second row ran {depths[1]}." in TEXT


@pytest.mark.server
def test_what_serve_ends_with_asks_the_router_two_rows_of_different_depth(served):
    shell, printed = served
    (command,) = [line for line in printed.splitlines() if line.startswith("curl")]
    assert command.endswith("/predictions/mnist1d_resnet")
    answer = routed(shell, command)
    shallow, deep = answer["outputs"]
    assert answer["router"] == "on"
    assert shallow["depth_run"] < deep["depth_run"]
    assert [shallow["held_back"], deep["held_back"]] == [False, False]
    told = printed[printed.index(command) + len(command) :]
    assert "depth_run" in told and f"{answer['depth']} blocks" in told and "held_back" in told


def write_network(root: Path, checkpoint: Path) -> None:
    network = load_checkpoint(checkpoint).network.eval()
    model = export_module(Logits(network).eval(), (torch.zeros(2, 2),), ("point",), "logits")
    onnx.save(model, root / "net.onnx")
    samples = open_recipe("two_moons").draw("certify")
    np.savez(root / "rows.npz", point=samples.inputs.numpy(), label=samples.labels.numpy())


def write_folder(root: Path, _: Path) -> None:
    folders.write(root / "film-mood")
    texts = folders.sentences(600)
    moods = [folders.LABELS[len(text) % 3] for text in texts]
    folders.write_rows(root / "reviews.jsonl", texts, mood=moods)


def write_pictures(root: Path, _: Path) -> None:
    names = ("bag", "boot", "sneaker")
    named = {"id2label": dict(enumerate(names)), "label2id": {n: i for i, n in enumerate(names)}}
    picture_folders.write(root / "fashion_resnet", "resnet", depths=[1, 1, 1], **named)
    for folder, count, seed in (("pictures", 300, 0), ("fit", 210, 1)):
        picture_folders.write_classes(root / folder, count, seed)
        for made, name in zip(picture_folders.LABELS, names, strict=True):
            (root / folder / made).rename(root / folder / name)
    first, *_ = sorted((root / "pictures" / "sneaker").glob("*.png"))
    first.rename(first.with_name("a00033.png"))


def test_models_of_ones_own_are_brought_where_a_page_says_so():
    """What is tried below is all that README.md, docs/text.md and docs/images.md try."""
    assert [len(examples(page)) for page in ("docs/text.md", "docs/images.md")] == [2, 2]


def examples(page: str) -> list[tuple[str, str]]:
    """The blocks of a page that ask a model: a terminal's, and those in Python."""
    asking = ("predictions/film_mood", "predictions/fashion_resnet")
    return [
        (kind, content)
        for kind, content in blocks(page)
        if kind == "python" or (kind == "sh" and any(one in content for one in asking))
    ]


@pytest.mark.server
@pytest.mark.parametrize(
    ("page", "source", "write", "more"),
    [
        ("README.md", "net.onnx", write_network, None),
        ("README.md", "film-mood", write_folder, "docs/text.md"),
        ("docs/images.md", "fashion_resnet", write_pictures, "docs/images.md"),
    ],
    ids=["numbers", "texts", "pictures"],
)
def test_a_model_of_ones_own_is_brought_served_and_asked(
    clone, checkpoint, monkeypatch, page, source, write, more
):
    write(clone, checkpoint)
    shells = [commands(content) for kind, content in blocks(page) if kind == "sh"]
    (block,) = [lines for lines in shells if any(f"bring {source} " in line for line in lines)]
    begun = [content for content in examples(more) if commands(content[1]) != block] if more else []
    shell = Shell(clone)
    shell.begun.append(". .venv/bin/activate")
    asked = 0
    with contextlib.ExitStack() as until_asked:
        for command in block:
            if command.startswith("skipserve serve"):
                until_asked.enter_context(shell.serving(command))
            elif command.startswith("curl"):
                reply = json.loads(shell.run(command))
                asked += len(reply["outputs"])
                assert all(0 <= row["depth_run"] <= reply["depth"] for row in reply["outputs"])
            elif command.startswith("pip install"):
                installs(shell, command)
            else:
                shell.run(command)
        for kind, content in begun:
            if kind == "python":
                monkeypatch.chdir(clone)
                exec(content, {})
                continue
            for command in commands(content):
                said = shell.run(command)
                assert not command.startswith("curl") or "error" not in json.loads(said)
    assert asked >= 1


def installs(shell: Shell, command: str) -> None:
    """The project can be installed so, and has each extra; what it asks for is here already."""
    offline = "--dry-run --no-deps --no-build-isolation --no-index"
    said = shell.run(command.replace("pip install", f"pip install {offline}", 1) + " 2>&1")
    assert "Would install skipserve" in said
    assert "does not provide the extra" not in said


def test_every_command_is_run_by_a_test():
    """Those blocks are all that there are."""
    kinds = [
        "serve" if lines == ["make serve"] else "reply" if lines[0].startswith("curl") else "own"
        for lines in SHELL
    ]
    assert kinds == ["serve", "reply", "own", "own"]
    assert {kind for kind, _ in BLOCKS} == {"sh", "json"}


def test_it_is_short():
    assert len(TEXT.splitlines()) <= 120


def test_each_make_target_and_path_exists():
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {"serve", "test", "load", "bench", "docs"} <= targets
    assert set(re.findall(r"`make (\w+)", TEXT)) <= targets
    for path in re.findall(r"\]\(([^)#]+)", TEXT):
        assert path.startswith("http") or (ROOT / path).exists(), path
    for script in re.findall(r"python ((?:benchmarks|deploy)/[\w/]+\.py)", TEXT):
        assert (ROOT / script).exists(), script
