"""The study: its judges against the real routed network, and a run on tiny networks."""

from __future__ import annotations

import importlib
import json
import math
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from skipserve.errors import ConfigError
from skipserve.networks import build_network, parse_network
from skipserve.training.checkpoint import load_checkpoint
from skipserve.training.recipes import Digits

STUDY = Path(__file__).parents[2] / "benchmarks" / "study.py"
sys.path.insert(0, str(STUDY.parent))

from laboratory import judging, readers  # noqa: E402
from laboratory.routers import RoutedNetwork, fit_router  # noqa: E402

pytestmark = pytest.mark.slow

MARK = "<!-- Below is written by benchmarks/study.py; above is written by hand. -->"


@pytest.fixture(scope="module")
def judged(checkpoint, recipe):
    """Network, router, guard limit, and the reading of the test rows."""
    network = load_checkpoint(checkpoint).network
    samples = recipe.draw("test")
    training = recipe.draw("train").inputs
    router, limit = fit_router(network, "confidence", training, samples.inputs, guard=0.9)
    return (
        network,
        router,
        limit,
        judging.read(network, router.guard, samples.inputs, samples.labels),
    )


@pytest.mark.parametrize("level", [0.6, 0.9, math.inf])
def test_judging_from_one_pass_is_what_the_routed_network_does(judged, recipe, level):
    network, router, limit, reading = judged
    inputs, labels = recipe.draw("test").inputs, reading.labels
    thresholds = np.full(network.config.depth - 1, level, dtype=np.float32)
    held = reading.distance > limit
    depth = judging.depth_run(thresholds, reading.signal(router.signals), held)
    point = judging.judge(reading, depth, held)

    with torch.no_grad():
        probabilities, ran, kept, _ = RoutedNetwork(network, router)(
            inputs,
            torch.from_numpy(thresholds).expand(len(inputs), -1),
            torch.full([len(inputs)], limit),
        )
    answers = probabilities.argmax(dim=1).numpy()
    assert np.array_equal(ran.numpy(), depth)
    assert np.array_equal(kept.numpy(), held)
    assert point.accuracy == pytest.approx((answers == labels).mean())
    assert point.disagreement == pytest.approx((answers != reading.answers[:, -1]).mean())
    assert 0 < point.held_back < 0.5


def test_the_oracle_is_the_least_any_choice_of_depths_can_run():
    rng = np.random.default_rng(0)
    answers = rng.integers(0, 2, (7, 3))
    reading = judging.Reading(
        torch.zeros(7, 3, 1), answers, np.zeros(7, np.float32), answers[:, -1]
    )
    choices = np.stack(np.meshgrid(*[[1, 2, 3]] * 7), axis=-1).reshape(-1, 7)
    points = [judging.judge(reading, choice) for choice in choices]
    for wrong in range(3):
        allowed = (wrong + 0.5) / 7
        least = min(point.run_rate for point in points if point.disagreement <= allowed)
        oracle = judging.oracle(reading, allowed)
        assert oracle.run_rate == pytest.approx(least)
        assert oracle.disagreement <= allowed


def test_random_exits_are_the_expectation_of_tossing(judged):
    *_, reading = judged
    rng = np.random.default_rng(0)
    depth = np.minimum(rng.geometric(0.3, (2_000, len(reading.labels))), reading.answers.shape[1])
    tossed = [judging.judge(reading, row) for row in depth]
    expected = judging.at_random(reading, 0.3)
    for name in ("run_rate", "disagreement", "accuracy"):
        mean = np.mean([getattr(point, name) for point in tossed])
        assert getattr(expected, name) == pytest.approx(mean, abs=2e-3), name


def test_skipping_nothing_changes_nothing(judged, recipe):
    network, router, _, reading = judged
    everything = np.full(network.config.depth - 1, np.inf, dtype=np.float32)
    routed = RoutedNetwork(network, router)
    point = judging.judge_routed(routed, recipe.draw("test").inputs, reading, everything)
    assert (point.run_rate, point.disagreement) == (1.0, 0.0)


def test_a_perfect_signal_ranks_perfectly_and_a_constant_one_by_chance():
    answers = np.array([[0, 1]] * 20 + [[1, 1]] * 20)
    reading = judging.Reading(
        torch.zeros(40, 2, 1), answers, np.zeros(40, np.float32), answers[:, 1]
    )
    settled = reading.agrees[:, :1].astype(np.float32)
    assert judging.ranking(reading, settled) == 1.0
    assert judging.ranking(reading, np.zeros((40, 1), np.float32)) == 0.5
    few = judging.Reading(reading.pooled[:25], answers[:25], reading.distance[:25], answers[:25, 1])
    assert math.isnan(judging.ranking(few, settled[:25]))


def test_a_probe_finds_what_is_linear():
    generator = torch.Generator().manual_seed(0)
    pooled = torch.randn(500, 2, 5, generator=generator)
    agrees = np.ones((500, 2), dtype=bool)
    agrees[:, 0] = (3 * pooled[:, 0, 1] - pooled[:, 0, 4] > 0.5).numpy()
    (probe,) = readers.fit_probes(pooled, agrees)
    assert ((probe(pooled[:, 0]) > 0).numpy() == agrees[:, 0]).mean() > 0.97


@pytest.mark.parametrize("family", ["mlp", "convnet"])
def test_the_carry_is_one_minus_the_opening_of_the_gate(family):
    inputs = [2] if family == "mlp" else [8]
    shape = {"family": family, "inputs": inputs, "classes": 2, "depth": 3, "width": 4}
    block = build_network(parse_network(shape | {"connection": "gated"})).blocks[1]
    pooled = torch.randn(6, 4)
    stream = pooled if family == "mlp" else pooled.unsqueeze(-1)
    with torch.no_grad():
        opening = block.gate(stream).sigmoid().flatten(1).mean(dim=1)
        assert torch.allclose(readers.Carry(block)(pooled), 1 - opening)


def test_no_gate_no_signal(judged):
    with pytest.raises(ConfigError, match="connection = 'gated'"):
        readers.Carry(judged[0].blocks[0])


def test_digits_are_split_in_four_without_overlap():
    splits = {name: Digits().draw(name) for name in ("train", "propose", "certify", "test")}
    assert {name: len(split) for name, split in splits.items()} == dict(Digits.sizes)
    pixels = torch.cat([split.inputs for split in splits.values()])
    assert pixels.unique(dim=0).shape[0] == len(pixels) == 1_797
    for split in splits.values():
        assert len(split.labels.unique()) == 10


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """What `--quick` left behind for two networks: folder, cells, JSON line, and how to ask."""
    folder = tmp_path_factory.mktemp("study")
    flags = ["--quick", "--seeds", "2", "--only", "exit-none", "--processes", "2"]
    flags += ["--cells", str(folder / "cells"), "--out", str(folder)]
    command = [sys.executable, str(STUDY), *flags]
    run = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stderr
    cells = [json.loads(file.read_text()) for file in folder.rglob("*.json") if file.stem.isdigit()]
    return folder, cells, json.loads(run.stdout.splitlines()[-1]), flags


@pytest.fixture
def ask(monkeypatch):
    """Calls the study in this process, as the command line would."""
    monkeypatch.syspath_prepend(STUDY.parent)
    module = importlib.import_module("study")

    def call(*flags):
        monkeypatch.setattr(sys, "argv", ["study.py", *flags])
        module.main()

    return call


def test_the_study_runs(quick):
    folder, cells, line, _ = quick
    assert len(cells) == line["cells"] == 8
    assert {cell["variant"] for cell in cells} == {
        "residual-exit-none-0.71",
        "gated-exit-none-0.71",
    }
    page = (folder / "study.md").read_text()
    figures = {
        f"study-{name}.png" for name in ("residual", "gated", "accuracy", "shifted", "depth")
    }
    for figure in figures:
        assert f"({figure})" in page
        assert (folder / figure).read_bytes().startswith(b"\x89PNG")
    assert line["run_rates"]["digits/residual-exit-none-0.71"]["fixed depth"] <= 1


def test_every_row_is_what_it_claims(quick):
    for cell in quick[1]:
        depth = cell["network"]["depth"]
        fixed = [row for row in cell["sweep"] if row["what"] == "fixed depth"]
        assert [row["run_rate"] for row in fixed] == [d / depth for d in range(depth, 0, -1)]
        assert fixed[0]["disagreement"] == 0
        agreement = [1 - row["disagreement"] for row in reversed(fixed)]
        assert agreement == pytest.approx(cell["agreement_by_depth"])
        chance = [
            row for row in cell["sweep"] if (row["what"], row["policy"]) == ("random", "exit")
        ]
        for careful, bold in pairwise(chance):
            assert careful["run_rate"] > bold["run_rate"]
        assert chance[0]["disagreement"] < 0.005
        assert chance[0]["disagreement"] < chance[-1]["disagreement"]
        for row in cell["certified"]:
            assert 1 / depth <= row["run_rate"] <= 1
            if row["certified"] is False and "oracle" not in row["what"]:
                assert (row["run_rate"], row["disagreement"]) == (1, 0)


def test_nothing_that_exits_beats_the_oracle(quick):
    for cell in quick[1]:
        rows = [row for row in cell["certified"] if row["policy"] == "exit"]
        oracles = {
            (row["what"], row["risk"], row["condition"]): row["run_rate"]
            for row in rows
            if "oracle" in row["what"]
        }
        assert {what for what, *_ in oracles} == {"oracle", "oracle, own heads"}
        for row in rows:
            heads = ", own heads" if row["what"].endswith(", own heads") else ""
            if row["disagreement"] <= row["risk"]:
                least = oracles["oracle" + heads, row["risk"], row["condition"]]
                assert row["run_rate"] >= least - 1e-9, row


def test_a_finished_study_is_not_run_again_and_prose_is_kept(quick, ask, capsys):
    folder, _, line, flags = quick
    page, stamps = folder / "study.md", stamps_of(folder)
    page.write_text(page.read_text().replace("# The study", "# Ours\n\nBecause."))
    ask(*flags)
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == line
    assert stamps_of(folder) == stamps
    by_hand, mark, measured = page.read_text().partition(MARK)
    assert by_hand.startswith("# Ours\n\nBecause.")
    assert mark
    assert measured


def stamps_of(folder: Path) -> dict[Path, int]:
    return {file: file.stat().st_mtime_ns for file in folder.rglob("*.json")}


@pytest.mark.parametrize(
    ("flags", "hint"),
    [
        (["--seeds", "1"], "2 or more"),
        (["--only", "moon/"], "no such cell"),
        (["--page-only"], "leave --page-only out"),
    ],
)
def test_bad_flags(tmp_path, ask, capsys, flags, hint):
    with pytest.raises(SystemExit):
        ask("--cells", str(tmp_path), "--out", str(tmp_path), *flags)
    assert hint in capsys.readouterr().err
