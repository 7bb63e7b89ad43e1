"""Certificates of each class by itself, and what is said where one is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest

from skipserve.artifacts.artifact import open_artifact
from skipserve.building import worth
from skipserve.building.worth import measure_worth
from skipserve.certification.certify import Goal, Outcome, Verdict, p_value_of, shortest_fixed
from skipserve.certification.certifying import certify_artifact
from skipserve.reporting import report
from skipserve.reporting.model import find_model
from skipserve.reporting.sample import take_sample
from skipserve.runtime.engine import Engine
from skipserve.runtime.rows import Rows
from skipserve.sources.splits import Labelled, Splits
from skipserve.training.recipes import open_recipe

pytestmark = pytest.mark.slow

# ln(0.05 / 2) / ln(0.99) = 367.04: each of two classes is tested at half of δ.
NEEDED = 368


@pytest.fixture
def by_class(copied):
    """A copy that certifies each class by itself."""
    file = copied / "manifest.json"
    values = json.loads(file.read_text())
    values["router"]["per_class"] = True
    file.write_text(json.dumps(values))
    return copied


@pytest.fixture(scope="module")
def many():
    return open_recipe("two_moons").draw("certify").inputs.numpy()


def of_each_class(directory, rows, count):
    """So many rows of each class of the full-depth answer."""
    labels = Engine(open_artifact(directory), provider="cpu").predict(rows).labels
    return np.concatenate([rows[labels == one][:count] for one in (0, 1)])


def test_a_refusal_counts_what_each_class_needs(by_class, many):
    # 330 would do for one class alone: ln(0.05) / ln(0.99) = 298.1.
    rows = of_each_class(by_class, many, 330)
    made = certify_artifact(by_class, rows, [0.01], 0.95, provider="cpu")
    (refused,) = (one for one in made.refusals if one.risk == 0.01)
    assert refused.reason == (
        "every class is certified by itself, and one has 330 of 660 rows; it takes at least "
        f"{NEEDED} of each to certify 0.01 at confidence 0.95"
    )


def test_a_class_with_too_many_is_told_apart(by_class, many, monkeypatch):
    rows = of_each_class(by_class, many, 500)
    counts = Outcome(7, 0.5, 0.0, by_class=((7, 500), (0, 500)))
    monkeypatch.setattr(
        "skipserve.certification.certifying._certified",
        lambda trial, reporting, candidates, goals, confidence: (
            [Verdict(goal, None, 1.0) for goal in goals],
            [counts],
        ),
    )
    made = certify_artifact(by_class, rows, [0.01], 0.95, provider="cpu")
    (refused,) = (one for one in made.refusals if one.risk == 0.01)
    assert "disagrees on 7 of the 500 of one class, of 1000 rows, too many" in refused.reason


def test_what_it_is_not_worth_yet_counts_each_class(by_class, many):
    part = Labelled(Rows({"inputs": of_each_class(by_class, many, 360)}))
    said = measure_worth(by_class, Splits(part, part, part, part), 0.01)
    assert isinstance(said, str)
    assert f"720 rows cannot certify a risk of 1%, it takes at least {NEEDED} of each class" in said


def test_a_fixed_depth_has_to_pass_the_test_of_every_class():
    blocks, agrees = np.array([1, 2, 3]), np.ones((2_000, 3), bool)
    rare = np.arange(2_000) < 400
    agrees[:5, 0] = False  # 5 of 400 are too many for 1 %, 5 of 2,000 are not
    classes = [rare, ~rare]
    assert shortest_fixed(blocks, agrees, 0.01, 0.95) == 1
    assert shortest_fixed(blocks, agrees, 0.01, 0.95, classes) == 2
    rare = np.arange(2_000) < NEEDED - 1
    assert shortest_fixed(blocks, agrees, 0.01, 0.95, [rare, ~rare]) == 3
    counted = Outcome(5, 0.5, 0.0, by_class=((5, 400), (0, 1_600)))
    assert p_value_of(counted, 2_000, Goal(0.01), 0.95) > 0.05


def test_the_report_holds_fixed_depths_to_it_too(by_class, monkeypatch):
    asked = []

    def asking(blocks, agrees, risk, confidence, by_class=()):
        asked.append([int(one.sum()) for one in by_class])
        return shortest_fixed(blocks, agrees, risk, confidence, by_class)

    monkeypatch.setattr(report, "shortest_fixed", asking)
    rows = open_recipe("two_moons").draw("certify").inputs.numpy()
    made = certify_artifact(by_class, rows, [0.05], provider="cpu")
    assert [one.risk for one in made.certificates if one.by_class] == [0.05]
    model = find_model("small", by_class.parent.parent)
    engine = Engine.for_many(open_artifact(by_class), provider="cpu")
    quiet = {"say": lambda line: None, "notes": []}
    report._certified(model, engine, take_sample(model), 64, 0.05, **quiet)
    assert asked and all(len(one) == 2 and sum(one) == len(rows) for one in asked)


@pytest.mark.parametrize("per_class", [False, True])
def test_a_fixed_depth_is_found_in_parts_as_on_the_whole(
    copied, by_class, moons, monkeypatch, per_class
):
    engine = Engine.for_many(open_artifact(by_class), provider="cpu")
    if not per_class:
        spec = engine.manifest.router.model_copy(update={"per_class": False})
        engine.manifest = engine.manifest.model_copy(update={"router": spec})
    certificate = open_artifact(copied).certificates.certificates[0]
    data = Labelled(Rows({"inputs": moons}))
    read = engine.read(data.rows)
    blocks = np.array([*engine.manifest.router.decisions, engine.manifest.depth])
    labels = read.answers.argmax(axis=2)
    agrees = labels == labels[:, -1:]
    classes = [labels[:, -1] == one for one in (0, 1)] if per_class else []
    asked = certificate.risk, certificate.confidence
    expected = shortest_fixed(blocks, agrees, *asked, classes)
    sizes = []
    monkeypatch.setattr(worth, "READ_TOGETHER", 300)
    whole = Engine.read

    def reading(self, rows, *more):
        sizes.append(len(rows))
        return whole(self, rows, *more)

    monkeypatch.setattr(Engine, "read", reading)
    assert worth._shortest_fixed(engine, data, certificate) == expected
    assert max(sizes) == 300 and sum(sizes) == len(moons)
