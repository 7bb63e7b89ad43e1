"""The README's commands are run as they stand there, and the replies are as it prints them.

The page docs/index.md goes on where the README ends; its requests are asked, too. Models of one's
own are brought in test_own_models.py.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from clone import Shell, blocks, cloned, commands
from running import ROOT, cli

TEXT = (ROOT / "README.md").read_text()
BLOCKS, START = blocks("README.md"), blocks("docs/index.md")
# What the README asks for answers; `make serve` would build two others.
ASKED = ("moons_residual", "mnist1d_resnet")
SHELL = [commands(block) for kind, block in BLOCKS if kind == "sh"]


@pytest.fixture(scope="module")
def clone(tmp_path_factory) -> Path:
    """A clone with an environment and the README's models, of the weights that ship with them."""
    root = cloned(tmp_path_factory.mktemp("clone"))
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
