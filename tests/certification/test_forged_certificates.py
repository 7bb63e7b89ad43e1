"""Certificates that somebody changed: found by hash, by signature, or by their own numbers."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from typing import Any

import pytest
from certificate_values import faults, get, leaves, put, sealed
from examples import examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from skipserve.certification.findings import Fault
from skipserve.intervals import p_value

pytestmark = pytest.mark.slow


def others(value: Any) -> st.SearchStrategy[Any]:
    """Other values in its place, of its type and of other types."""
    odd = st.sampled_from([None, True, "", "x", -1, 0, 1, 1e300, [], {}])
    if isinstance(value, bool) or value is None:
        return odd
    if isinstance(value, int):
        near = st.integers(value - 3, value + 3)
        return near | st.integers(0, 10**9) | odd
    if isinstance(value, float):
        return st.floats(allow_nan=False, allow_infinity=False) | st.just(value * 1.001) | odd
    swapped = value.translate(str.maketrans("0aAeE", "1bBfF"))
    return st.text(max_size=8) | st.just(swapped) | st.just(value + "0") | odd


def same(one: Any, other: Any) -> bool:
    return json.dumps(one) == json.dumps(other)


NO_CHECK = [HealthCheck.function_scoped_fixture]


@settings(max_examples=examples(150), suppress_health_check=NO_CHECK)
@given(data=st.data())
def test_every_single_value_that_is_changed_is_found(data, values, attested, keys, tmp_path):
    path = data.draw(st.sampled_from(leaves(values)))
    before = get(values, path)
    value = data.draw(others(before).filter(lambda one: not same(one, before)))
    changed = put(values, path, value)
    assert faults(changed, attested, tmp_path, keys / "mine.pub")
    if path[0] != "signature":
        assert faults(changed, attested, tmp_path)


@settings(max_examples=examples(100), suppress_health_check=NO_CHECK)
@given(data=st.data())
def test_whoever_makes_the_hash_anew_is_betrayed_by_the_signature(
    data, values, attested, keys, tmp_path
):
    path = data.draw(st.sampled_from(leaves(values)))
    before = get(values, path)
    value = data.draw(others(before).filter(lambda one: not same(one, before)))
    forged = sealed(put(values, path, value))
    if path == ("sha256",):
        assert forged == values
        return
    assert faults(forged, attested, tmp_path, keys / "mine.pub")


# Numbers that follow from others, or that others follow from: found without hash and signature.
FOLLOWS = {"disagreements", "p_value", "samples", "risk", "confidence", "rows", "log_wealth"}
FOLLOWS |= {"level", "share", "number", "guard_limit"}


def follows(values: dict[str, Any], path: tuple[str | int, ...]) -> bool:
    if path[0] != "bounds" or path[-1] not in FOLLOWS:
        return False
    bound = values["bounds"][path[1]]
    if bound["kind"] == "offline":
        # A lower confidence is a weaker claim, and as true.
        return bound["measure"] == "disagreement" and path[-1] != "confidence"
    # How long the other epochs were, nothing follows from.
    return not (path[2] == "epochs" and path[-1] == "rows")


def test_numbers_that_do_not_follow_are_found_without_hash(values, attested, tmp_path):
    for path in leaves(values):
        if not follows(values, path):
            continue
        before = get(values, path)
        if isinstance(before, int):
            wrong = [before - 1, before + 1, before + 1_000]
        else:
            wrong = [before * 0.999, before * 1.001, before * 0.5]
        for value in wrong:
            forged = sealed(put(values, path, value))
            found = faults(forged, attested, tmp_path)
            assert found & {Fault.NUMBER, Fault.ORDER, Fault.SCHEMA}, (path, before, value)


def without_last(values: dict[str, Any], key: str) -> dict[str, Any]:
    changed = copy.deepcopy(values)
    changed["bounds"][0][key].pop()
    return changed


def swapped(values: dict[str, Any], bound: int) -> dict[str, Any]:
    changed = copy.deepcopy(values)
    candidates = changed["bounds"][bound]["candidates"]
    candidates[0], candidates[1] = candidates[1], candidates[0]
    return changed


def test_a_broken_order_is_found(values, attested, tmp_path):
    for changed in (swapped(values, 0), swapped(values, -1), without_last(values, "tried")):
        assert Fault.ORDER in faults(sealed(changed), attested, tmp_path)
    repeated = put(values, ("bounds", -1, "candidates", 1), values["bounds"][-1]["candidates"][0])
    assert Fault.ORDER in faults(sealed(repeated), attested, tmp_path)


@pytest.mark.parametrize("bound", [0, -1], ids=["offline", "earned"])
def test_thresholds_and_guards_that_are_not_the_artifacts_are_found(
    values, attested, tmp_path, bound
):
    """A calibration anew proposes others for the same files."""
    certificates = attested.certificates
    others = tuple(
        tuple(None if one is None else one * 0.99 for one in row) for row in certificates.candidates
    )
    anew = replace(attested, certificates=certificates.model_copy(update={"candidates": others}))
    alone = sealed({**values, "bounds": [values["bounds"][bound]]})
    assert faults(alone, attested, tmp_path) == set()
    assert faults(alone, anew, tmp_path) == {Fault.ORDER}
    guarded = put(alone, ("bounds", 0, "guard_limit"), 0.123)
    assert faults(sealed(guarded), attested, tmp_path) == {Fault.NUMBER}


HUGE = 10**400
COUNTED = (
    ("bounds", 0, "samples"),
    ("bounds", 0, "batch_size"),
    ("bounds", 0, "tried", 0, "disagreements"),
    ("bounds", -1, "crossings", 0, "rows"),
    ("bounds", -1, "epochs", 0, "number"),
    ("bounds", -1, "epochs", 0, "rows"),
    ("bounds", -1, "epoch"),
)


@pytest.mark.parametrize("path", COUNTED)
def test_counts_that_nobody_can_have_counted_are_not_computed_with(
    values, attested, tmp_path, path
):
    for huge in (HUGE, 2**53 + 1):
        assert faults(sealed(put(values, path, huge)), attested, tmp_path) == {Fault.SCHEMA}


def test_a_certificate_of_very_many_rows_is_checked_at_once(values, attested, tmp_path):
    """Its p-value is a sum of twenty million terms."""
    changed = copy.deepcopy(values)
    bound = {**changed["bounds"][0], "samples": 30_000_000, "risk": 0.67, "confidence": 0.5}
    wrong = 20_000_000
    p = p_value(wrong, bound["samples"], bound["risk"])
    bound["tried"] = [{**one, "disagreements": wrong, "p_value": p} for one in bound["tried"]]
    assert p < 0.5
    assert faults(sealed({**changed, "bounds": [bound]}), attested, tmp_path) == set()
