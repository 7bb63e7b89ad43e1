"""The README's commands do what it says they do."""

from __future__ import annotations

import itertools
import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from running import cli, serving
from typer.testing import CliRunner

from skipserve.cli import app

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
COMMANDS = [
    line.split(" #")[0].strip()
    for kind, block in BLOCKS
    if kind == "sh"
    for line in block.replace("\\\n", " ").splitlines()
]
# What the README asks for answers.
ASKED = ("moons_residual", "mnist1d_resnet")
MINE = [command for command in COMMANDS if "skipserve " in command]


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """The README's models, built as they stand, of the weights that ship with them."""
    root = tmp_path_factory.mktemp("project")
    for folder in ("export", "handlers"):
        shutil.copytree(ROOT / folder, root / folder)
    build = cli("build", *(f"export/{name}.toml" for name in ASKED))
    done = subprocess.run(build, cwd=root, check=True, capture_output=True, text=True)
    for name in ASKED:
        assert f"{name}: weights from export/weights/{name}.safetensors" in done.stderr
    return root


@pytest.fixture(scope="module")
def running(project):
    with serving(project, *ASKED) as server:
        yield server


def reply(command: str) -> Any:
    asked = ["curl", "-s", *shlex.split(command)[1:]]
    return json.loads(subprocess.run(asked, check=True, capture_output=True).stdout)


@pytest.mark.server
def test_each_curl_answers_what_stands_below_it(running):
    pairs = [
        (first[1], second[1])
        for first, second in itertools.pairwise(BLOCKS)
        if first[1].startswith("curl") and second[0] == "json"
    ]
    assert len(pairs) >= 2
    for command, said in pairs:
        answer = routed(command.replace(":8080/", f":{running.port}/"))
        expected = json.loads(said)
        if "outputs" not in expected:
            assert answer == expected
            continue
        # Another machine computes slightly other probabilities, and fits slightly other exits.
        depths = []
        for one in (answer, expected):
            for row in one["outputs"]:
                assert sum(row.pop("probabilities")) == pytest.approx(1, abs=1e-5)
            depths.append([row.pop("depth_run") for row in one["outputs"]])
        assert answer == expected
        assert sorted(depths[0]) == depths[0] and sorted(depths[1]) == depths[1]
        assert 0 <= depths[0][0] < depths[0][-1] <= answer["depth"]


def test_the_first_request_asks_a_router():
    first, *_ = [json.loads(block) for kind, block in BLOCKS if kind == "json"]
    depths = [row["depth_run"] for row in first["outputs"]]
    assert first["router"] == "on"
    assert len(set(depths)) == len(depths) == 2


def routed(command: str) -> dict[str, Any]:
    """The reply to a command; asked again while its first row gives evidence, one in a hundred."""
    for _ in range(5):
        answer = reply(command)
        outputs = answer.get("outputs")
        if not outputs or outputs[0]["depth_run"] < answer["depth"]:
            break
    return answer


@pytest.mark.server
def test_what_serve_ends_with_asks_the_router_two_rows_of_different_depth(running):
    (command,) = [line for line in running.printed.splitlines() if line.startswith("curl")]
    assert command.endswith("/predictions/mnist1d_resnet")
    answer = routed(command)
    shallow, deep = answer["outputs"]
    assert answer["router"] == "on"
    assert shallow["depth_run"] < deep["depth_run"]
    assert [shallow["held_back"], deep["held_back"]] == [False, False]
    told = running.printed[running.printed.index(command) + len(command) :]
    assert "depth_run" in told and f"{answer['depth']} blocks" in told and "held_back" in told


def test_the_python_example_runs(project, monkeypatch, capsys):
    monkeypatch.chdir(project)
    (example,) = [block for kind, block in BLOCKS if kind == "python"]
    exec(example, {})
    assert capsys.readouterr().out.startswith("[1] [[")


@pytest.mark.parametrize("command", sorted(set(MINE)))
def test_each_command_is_one_that_exists(command):
    words = shlex.split(command)
    called = words[[word.endswith("skipserve") for word in words].index(True) + 1 :]
    names = [word for word in called if re.fullmatch(r"[a-z]+", word)]
    # A group has commands of its own: as many names as the help knows.
    shown = CliRunner().invoke(app, [names[0], "--help"])
    assert shown.exit_code == 0, shown.output
    for option in (word.split("=")[0] for word in called if word.startswith("--")):
        assert option in shown.output, f"{names[0]} has no {option}"


def test_each_make_target_and_path_exists():
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    asked = {c.split()[1] for c in COMMANDS if c.startswith("make ")}
    asked |= set(re.findall(r"`make (\w+)", TEXT))
    assert asked <= targets
    for path in re.findall(r"\]\(([^)#]+)\)", TEXT):
        assert path.startswith("http") or (ROOT / path).exists(), path
    for script in re.findall(r"python ((?:benchmarks|deploy)/[\w/]+\.py)", TEXT):
        assert (ROOT / script).exists(), script
