"""What a certificate is bound to: candidates, guard, task, classes and slices of its artifact."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from certificate_values import faults, put, sealed

from skipserve.certification.attesting import artifact_file
from skipserve.certification.certificate_file import (
    seal,
)
from skipserve.certification.certificate_reading import read_certificate
from skipserve.certification.findings import Fault
from skipserve.certification.verification import check_certificate
from skipserve.errors import ConfigError
from skipserve.intervals import p_value
from skipserve.runtime.engine import Engine
from skipserve.slices import Slices
from skipserve.tasks import Score

pytestmark = pytest.mark.slow


def test_what_was_written_holds(values, attested, keys, tmp_path):
    assert faults(values, attested, tmp_path, keys / "mine.pub") == set()
    kinds = [(one["kind"], one["measure"], one["risk"]) for one in values["bounds"]]
    assert ("offline", "disagreement", 0.02) in kinds
    assert ("offline", "accuracy_lost", 0.02) in kinds
    assert kinds[-1] == ("earned", "disagreement", 0.05)
    offline = values["bounds"][0]
    assert len(offline["tried"]) == len(offline["candidates"])
    # Each was passed, or it would not have come so far.
    assert all(one["p_value"] <= 0.05 for one in offline["tried"])


def test_what_was_never_tested_is_not_attested(attested):
    """Other candidates than the certified ones, in the same places of the same file."""
    certificates = attested.certificates
    place = min(one.candidate for one in certificates.certificates)
    lower = tuple(
        tuple(None if one is None else one - 0.2 * (at >= place) for one in row)
        for at, row in enumerate(certificates.candidates)
    )
    changes = [
        (certificates.model_copy(update={"candidates": lower}), {}),
        (certificates, {"guard_limit": 0.5}),
        (certificates, {"per_class": True}),
    ]
    for changed, router in changes:
        spec = attested.manifest.router.model_copy(update=router)
        manifest = attested.manifest.model_copy(update={"router": spec})
        other = replace(attested, certificates=changed, manifest=manifest)
        kept = {one.measure for one in changed.sound(spec)}
        assert kept == ({"accuracy_lost"} if "per_class" in router else set())
        engine = Engine(other, provider="cpu")
        assert not engine.certified() and engine.setting(0.05).risk is None
        if not kept:
            with pytest.raises(ConfigError, match="there is no certificate to write"):
                artifact_file(other)


def by_class(values: dict[str, Any], sizes: Sequence[int]) -> dict[str, Any]:
    """The first bound as if classes of these sizes had been counted, without a disagreement."""
    changed = copy.deepcopy(values)
    bound = changed["bounds"][0]
    for one in bound["tried"]:
        one["by_class"] = [[0, size] for size in sizes]
        one["disagreements"] = 0
        worst = max(p_value(0, size, bound["risk"]) for size in sizes)
        one["p_value"] = min(1.0, len(sizes) * worst)
    return sealed({**changed, "bounds": [bound]})


def test_who_asks_for_every_class_by_itself_gets_no_less(values, attested, tmp_path):
    router = attested.manifest.router.model_copy(update={"per_class": True})
    manifest = attested.manifest.model_copy(update={"router": router})
    asks = replace(attested, manifest=manifest)
    samples = values["bounds"][0]["samples"]
    together = sealed({**values, "bounds": [values["bounds"][0]]})
    assert faults(together, attested, tmp_path) == set()
    assert faults(together, asks, tmp_path) == {Fault.NUMBER}
    for of in (attested, asks):
        assert faults(by_class(values, [samples - 4_000, 4_000]), of, tmp_path) == set()
        assert faults(by_class(values, [samples]), of, tmp_path) == {Fault.NUMBER}


def test_another_task_or_preprocessing_is_found(values, attested, tmp_path):
    assert values["task"]["kind"] == "classify" and values["preprocessing"] is None
    for changed in (
        put(values, ("task", "kind"), "multilabel"),
        {**values, "preprocessing": {"kind": "picture", "resize": [8, 8]}},
    ):
        assert faults(sealed(changed), attested, tmp_path) == {Fault.FILES}


def test_a_score_that_was_certified_before_top_existed_is_the_same_task(values, attested, tmp_path):
    older = sealed({**values, "task": {"kind": "score", "tolerance": 0.5}})
    for top, found in ((None, set()), (3, {Fault.FILES})):
        task = Score(tolerance=0.5, top=top)
        scores = attested.manifest.model_copy(update={"task": task})
        assert faults(older, replace(attested, manifest=scores), tmp_path) == found


TENANTS = Slices(parameter="tenant", values=("acme", "globex"))
SLICED = "sliced by tenant into acme, globex and other"


@pytest.mark.parametrize(
    ("said", "serves", "found"),
    [
        (None, Slices(), set()),
        ("acme", TENANTS, set()),
        ("other", TENANTS, set()),
        ("acme", Slices(), {Fault.FILES}),
        (None, TENANTS, {Fault.FILES}),
        # What a declared value is does not change with the others; what "other" is does.
        ("acme", Slices(parameter="tenant", values=("acme", "initech")), set()),
        ("acme", Slices(parameter="tenant", values=("globex",)), {Fault.FILES}),
        ("other", Slices(parameter="tenant", values=("globex", "acme")), set()),
        ("other", Slices(parameter="tenant", values=("acme",)), {Fault.FILES}),
        ("other", Slices(parameter="tenant", values=("acme", "initech")), {Fault.FILES}),
        ("other", Slices(parameter="language", values=("acme", "globex")), {Fault.FILES}),
        ("acme", Slices(parameter="language", values=("acme", "globex")), {Fault.FILES}),
    ],
)
def test_a_slice_is_that_of_the_artifact(values, attested, tmp_path, said, serves, found):
    of = None if said is None else TENANTS.named(said).model_dump(mode="json")
    router = attested.manifest.router.model_copy(update={"slices": serves})
    manifest = attested.manifest.model_copy(update={"router": router})
    sliced = replace(attested, manifest=manifest)
    assert faults(sealed(put(values, ("bounds", -1, "slice"), of)), sliced, tmp_path) == found


@pytest.mark.parametrize(
    ("said", "serves", "says"),
    [
        ("acme", Slices(), f"{SLICED}, and the artifact's is one whole"),
        (None, TENANTS, f"one whole, and the artifact's is {SLICED}"),
    ],
)
def test_the_slices_of_both_are_named(values, attested, tmp_path, said, serves, says):
    of = None if said is None else TENANTS.named(said).model_dump(mode="json")
    router = attested.manifest.router.model_copy(update={"slices": serves})
    manifest = attested.manifest.model_copy(update={"router": router})
    file = tmp_path / "certificate.json"
    file.write_text(json.dumps(sealed(put(values, ("bounds", -1, "slice"), of))))
    (found,) = check_certificate(*read_certificate(file), replace(attested, manifest=manifest))
    assert found.sentence.endswith(f"traffic that is {says}")


def test_a_bound_of_all_traffic_as_it_was_written_before_slices(values, attested, tmp_path):
    older = sealed(put(values, ("bounds", -1, "slice"), ""))
    assert faults(older, attested, tmp_path) == set()
    read, raw = read_certificate(tmp_path / "certificate.json")
    assert read.bounds[-1].slice is None
    assert seal(raw) == read.sha256


def test_a_slice_is_of_its_own_values(values, attested, tmp_path):
    of = {"parameter": "tenant", "value": "initech", "values": ["acme"]}
    forged = sealed(put(values, ("bounds", -1, "slice"), of))
    assert faults(forged, attested, tmp_path) == {Fault.SCHEMA}
