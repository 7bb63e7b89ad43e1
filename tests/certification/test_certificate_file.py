"""A certificate as a file: exported, checked by others, signed; what was changed is found."""

from __future__ import annotations

import copy
import json
import math
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519
from examples import examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from running import ROOT, cli
from typer.testing import CliRunner, Result

from skipserve.artifacts.artifact import open_artifact
from skipserve.artifacts.certificates import WrittenThresholds
from skipserve.artifacts.certificates_file import CERTIFICATES
from skipserve.certification.attesting import artifact_file, certificate_file
from skipserve.certification.certificate_file import (
    Crossing,
    Earned,
    Epoch,
    Offline,
    json_schema,
    seal,
    write_certificate,
)
from skipserve.certification.certificate_reading import read_certificate
from skipserve.certification.findings import Fault, NotCertified
from skipserve.certification.from_traffic import earned_bound
from skipserve.certification.signing import check_signature, signed
from skipserve.certification.verification import check_certificate
from skipserve.cli import app
from skipserve.commands.attest import served_file
from skipserve.earning.counts import Counts
from skipserve.earning.epochs import decide, in_force
from skipserve.earning.events import Begun, Crossed, Proposed, Withdrawn
from skipserve.earning.ladder import Place, name_of
from skipserve.earning.ledger import Ledger
from skipserve.earning.rules import Rules
from skipserve.earning.state import State, applied
from skipserve.earning.wealth import level_of, log_wealth
from skipserve.errors import ArtifactError, ConfigError
from skipserve.intervals import p_value
from skipserve.runtime.engine import Engine
from skipserve.safety.earned import EarnedRecord
from skipserve.safety.kind import Kind, binding_for
from skipserve.schema import parse
from skipserve.slices import Slices
from skipserve.tasks import Score
from skipserve.training.recipes import open_recipe

pytestmark = pytest.mark.slow

EPSILON, SHARE = 0.05, 0.5
COUNTS = ((400, 2), (700, 15), (900, 22))


@pytest.fixture(scope="module")
def artifact(routed_project):
    return open_artifact(routed_project[0] / "artifacts" / "small")


@pytest.fixture(scope="module")
def made(artifact):
    """Everything that is certified of the artifact, and a bound as traffic would have earned it."""
    levels = [level_of(number, 0.05 * SHARE) for number in (1, 2, 3)]
    crossings = [
        Crossing(rows=n, disagreements=d, log_wealth=float(log_wealth(n, d, EPSILON)))
        for n, d in COUNTS
    ]
    earned = Earned(
        risk=EPSILON,
        confidence=0.95,
        share=SHARE,
        guard_limit=artifact.manifest.router.guard_limit,
        candidates=artifact.certificates.candidates[: len(COUNTS)],
        epoch=2,
        crossings=tuple(crossings),
        epochs=(
            Epoch(number=1, because="start", level=levels[0], rows=3_000),
            Epoch(number=2, because="alarm", level=levels[1], rows=5_000),
            Epoch(number=3, because="rows", level=levels[2], rows=17),
        ),
    )
    kind = {"precision": "fp32", "provider": "cpu"}
    return certificate_file(artifact, [earned], files=artifact.hashes("onnx", "fp32"), **kind)


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """A private key and its public one, and the public key of somebody else."""
    folder = tmp_path_factory.mktemp("keys")
    for name in ("mine", "other"):
        private = ed25519.Ed25519PrivateKey.generate()
        plain = serialization.NoEncryption()
        pem, kind = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        (folder / f"{name}.pem").write_bytes(private.private_bytes(pem, kind, plain))
        public = private.public_key().public_bytes(
            pem, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        (folder / f"{name}.pub").write_bytes(public)
    return folder


@pytest.fixture(scope="module")
def values(made, keys):
    """The signed certificate as JSON has it."""
    return signed(made.model_dump(mode="json"), keys / "mine.pem")


def faults(values: dict[str, Any], artifact, folder: Path, key: Path | None = None) -> set[Fault]:
    """What is wrong with these values."""
    file = folder / "certificate.json"
    file.write_text(json.dumps(values))
    try:
        read, raw = read_certificate(file)
    except NotCertified as error:
        return {error.fault}
    found = list(check_certificate(read, raw, artifact))
    if key is not None and (wrong := check_signature(read, raw, key)) is not None:
        found.append(wrong)
    return {one.fault for one in found}


def leaves(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Paths to every single value in JSON."""
    if isinstance(value, dict):
        return [leaf for key, one in value.items() for leaf in leaves(one, (*path, key))]
    if isinstance(value, list):
        return [leaf for place, one in enumerate(value) for leaf in leaves(one, (*path, place))]
    return [path]


def put(values: dict[str, Any], path: tuple[str | int, ...], value: Any) -> dict[str, Any]:
    """A copy with one value changed."""
    changed = copy.deepcopy(values)
    at: Any = changed
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    return changed


def get(values: Any, path: tuple[str | int, ...]) -> Any:
    for key in path:
        values = values[key]
    return values


def sealed(values: dict[str, Any]) -> dict[str, Any]:
    """What a forger would write who knows how the hash is made."""
    return {**values, "sha256": seal(values)}


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


def test_what_was_written_holds(values, artifact, keys, tmp_path):
    assert faults(values, artifact, tmp_path, keys / "mine.pub") == set()
    kinds = [(one["kind"], one["measure"], one["risk"]) for one in values["bounds"]]
    assert ("offline", "disagreement", 0.02) in kinds
    assert ("offline", "accuracy_lost", 0.02) in kinds
    assert kinds[-1] == ("earned", "disagreement", 0.05)
    offline = values["bounds"][0]
    assert len(offline["tried"]) == len(offline["candidates"])
    # Each was passed, or it would not have come so far.
    assert all(one["p_value"] <= 0.05 for one in offline["tried"])


@settings(max_examples=examples(150), suppress_health_check=NO_CHECK)
@given(data=st.data())
def test_every_single_value_that_is_changed_is_found(data, values, artifact, keys, tmp_path):
    path = data.draw(st.sampled_from(leaves(values)))
    before = get(values, path)
    value = data.draw(others(before).filter(lambda one: not same(one, before)))
    changed = put(values, path, value)
    assert faults(changed, artifact, tmp_path, keys / "mine.pub")
    if path[0] != "signature":
        assert faults(changed, artifact, tmp_path)


@settings(max_examples=examples(100), suppress_health_check=NO_CHECK)
@given(data=st.data())
def test_whoever_makes_the_hash_anew_is_betrayed_by_the_signature(
    data, values, artifact, keys, tmp_path
):
    path = data.draw(st.sampled_from(leaves(values)))
    before = get(values, path)
    value = data.draw(others(before).filter(lambda one: not same(one, before)))
    forged = sealed(put(values, path, value))
    if path == ("sha256",):
        assert forged == values
        return
    assert faults(forged, artifact, tmp_path, keys / "mine.pub")


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


def test_numbers_that_do_not_follow_are_found_without_hash(values, artifact, tmp_path):
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
            found = faults(forged, artifact, tmp_path)
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


def test_a_broken_order_is_found(values, artifact, tmp_path):
    for changed in (swapped(values, 0), swapped(values, -1), without_last(values, "tried")):
        assert Fault.ORDER in faults(sealed(changed), artifact, tmp_path)
    repeated = put(values, ("bounds", -1, "candidates", 1), values["bounds"][-1]["candidates"][0])
    assert Fault.ORDER in faults(sealed(repeated), artifact, tmp_path)


@pytest.mark.parametrize("bound", [0, -1], ids=["offline", "earned"])
def test_thresholds_and_guards_that_are_not_the_artifacts_are_found(
    values, artifact, tmp_path, bound
):
    """A calibration anew proposes others for the same files."""
    certificates = artifact.certificates
    others = tuple(
        tuple(None if one is None else one * 0.99 for one in row) for row in certificates.candidates
    )
    anew = replace(artifact, certificates=certificates.model_copy(update={"candidates": others}))
    alone = sealed({**values, "bounds": [values["bounds"][bound]]})
    assert faults(alone, artifact, tmp_path) == set()
    assert faults(alone, anew, tmp_path) == {Fault.ORDER}
    guarded = put(alone, ("bounds", 0, "guard_limit"), 0.123)
    assert faults(sealed(guarded), artifact, tmp_path) == {Fault.NUMBER}


def test_what_was_never_tested_is_not_attested(artifact):
    """Other candidates than the certified ones, in the same places of the same file."""
    certificates = artifact.certificates
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
        spec = artifact.manifest.router.model_copy(update=router)
        manifest = artifact.manifest.model_copy(update={"router": spec})
        other = replace(artifact, certificates=changed, manifest=manifest)
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


def test_who_asks_for_every_class_by_itself_gets_no_less(values, artifact, tmp_path):
    router = artifact.manifest.router.model_copy(update={"per_class": True})
    manifest = artifact.manifest.model_copy(update={"router": router})
    asks = replace(artifact, manifest=manifest)
    samples = values["bounds"][0]["samples"]
    together = sealed({**values, "bounds": [values["bounds"][0]]})
    assert faults(together, artifact, tmp_path) == set()
    assert faults(together, asks, tmp_path) == {Fault.NUMBER}
    for of in (artifact, asks):
        assert faults(by_class(values, [samples - 4_000, 4_000]), of, tmp_path) == set()
        assert faults(by_class(values, [samples]), of, tmp_path) == {Fault.NUMBER}


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
    values, artifact, tmp_path, path
):
    for huge in (HUGE, 2**53 + 1):
        assert faults(sealed(put(values, path, huge)), artifact, tmp_path) == {Fault.SCHEMA}


def test_a_certificate_of_very_many_rows_is_checked_at_once(values, artifact, tmp_path):
    """Its p-value is a sum of twenty million terms."""
    changed = copy.deepcopy(values)
    bound = {**changed["bounds"][0], "samples": 30_000_000, "risk": 0.67, "confidence": 0.5}
    wrong = 20_000_000
    p = p_value(wrong, bound["samples"], bound["risk"])
    bound["tried"] = [{**one, "disagreements": wrong, "p_value": p} for one in bound["tried"]]
    assert p < 0.5
    assert faults(sealed({**changed, "bounds": [bound]}), artifact, tmp_path) == set()


def test_another_task_or_preprocessing_is_found(values, artifact, tmp_path):
    assert values["task"]["kind"] == "classify" and values["preprocessing"] is None
    for changed in (
        put(values, ("task", "kind"), "multilabel"),
        {**values, "preprocessing": {"kind": "picture", "resize": [8, 8]}},
    ):
        assert faults(sealed(changed), artifact, tmp_path) == {Fault.FILES}


def without_start(values: dict[str, Any], because: str) -> dict[str, Any]:
    """The earned bound, where the first epoch that is told of is the second."""
    changed = copy.deepcopy(values)
    epochs = changed["bounds"][-1]["epochs"]
    del epochs[0]
    epochs[0]["because"] = because
    return sealed(changed)


def test_a_ledger_begins_with_the_start_or_with_a_reset(values, artifact, tmp_path):
    assert faults(without_start(values, "reset"), artifact, tmp_path) == set()
    for because in ("alarm", "rows", "start"):
        assert faults(without_start(values, because), artifact, tmp_path) == {Fault.ORDER}
    again = sealed(put(values, ("bounds", -1, "epochs", 1, "because"), "start"))
    assert faults(again, artifact, tmp_path) == {Fault.ORDER}


def earns_in_an_epoch(ledger: Ledger, risk: float) -> None:
    """The most careful candidate is earned, and the next epoch has begun."""
    number, now_s = ledger.read().epoch, time.time()
    ledger.turn(
        lambda state: [
            Crossed(number, risk, 0, 8_000, 0, now_s),
            Begun(number + 1, "rows", 9_000, 9_000, now_s),
        ]
    )


def test_what_was_earned_after_a_reset_verifies(artifact, tmp_path):
    kind = Kind("onnxruntime", "cpu", "fp32")
    earned = EarnedRecord(artifact, tmp_path, kind)
    ledger = Ledger(tmp_path, binding_for(artifact, kind), earned.rules)
    ledger.turn(lambda state: [Begun(1, "start", 0, 9_000, 1.0)])
    earned.reset()
    risk = earned.rules.risks[0]
    earns_in_an_epoch(ledger, risk)
    made = json.loads(served_file([earned]).model_dump_json())
    assert [one["kind"] for one in made["bounds"]].count("earned") == 1
    assert {one["kind"] for one in made["bounds"]} == {"offline", "earned"}
    assert faults(made, artifact, tmp_path) == set()


def proposes(
    earned: EarnedRecord, folder: Path, candidates: Sequence[WrittenThresholds], guard_limit: float
) -> Proposed:
    """What epoch 1 has proposed, of which the first candidate is earned."""
    binding, now_s = binding_for(earned.artifact, earned.kind), time.time()
    ledger = Ledger(folder, binding, earned.rules)
    risk, blocks = earned.rules.risks[-1], {"": (1.0,)}
    name = name_of(candidates, guard_limit)
    made = Proposed(1, 100, name, guard_limit, tuple(candidates), blocks, now_s)
    begun, crossed = Begun(1, "start", 0, 9_000, now_s, 100), Crossed(1, risk, 0, 900, 0, now_s)
    over = Begun(2, "rows", 900, 9_000, now_s, 100)
    ledger.turn(lambda state: [begun, made, crossed, over])
    return made


def test_what_was_proposed_on_traffic_is_named_and_checked(artifact, tmp_path):
    earned = EarnedRecord(artifact, tmp_path, Kind("onnxruntime", "cpu", "fp32"))
    bold, *_, careful = artifact.certificates.candidates[::-1]
    proposed = proposes(earned, tmp_path, (careful, bold), 2.5)
    made = json.loads(served_file([earned]).model_dump_json())
    assert faults(made, artifact, tmp_path) == set()
    place = ("bounds", len(made["bounds"]) - 1)
    bound = made["bounds"][-1]
    assert (bound["guard_limit"], bound["candidates"]) == (2.5, [list(careful)])
    assert bound["proposal"]["name"] == proposed.proposal
    assert (bound["proposal"]["rows"], len(bound["proposal"]["candidates"])) == (100, 2)
    # Without it they would have to be the artifact's own.
    without = sealed(put(made, (*place, "proposal"), None))
    assert faults(without, artifact, tmp_path) == {Fault.NUMBER}
    for path, value, fault in (
        (("guard_limit",), 3.0, Fault.NUMBER),
        (("proposal", "candidates", 1), list(careful), Fault.NUMBER),
        (("proposal", "name"), "0" * 32, Fault.NUMBER),
        (("candidates", 0), list(bold), Fault.ORDER),
    ):
        forged = sealed(put(made, (*place, *path), value))
        assert fault in faults(forged, artifact, tmp_path)
    # A limit that is named rightly, but lets in less than calibration did.
    lower = put(made, (*place, "guard_limit"), 0.5)
    name = name_of(proposed.candidates, 0.5)
    lower = sealed(put(lower, (*place, "proposal", "name"), name))
    assert faults(lower, artifact, tmp_path) == {Fault.NUMBER}


def test_certificates_that_the_alarm_withdrew_are_not_attested(artifact, tmp_path):
    kind = Kind("onnxruntime", "cpu", "fp32")
    earned = EarnedRecord(artifact, tmp_path, kind)
    risk, now_s = earned.rules.risks[0], time.time()
    ledger = Ledger(tmp_path, binding_for(artifact, kind), earned.rules)
    alarm = [Withdrawn(1, 100, 60, now_s), Begun(2, "alarm", 100, 9_000, now_s)]
    ledger.turn(lambda state: [Begun(1, "start", 0, 9_000, now_s), *alarm])
    with pytest.raises(ConfigError, match="nothing of the kind is certified of small"):
        served_file([earned])
    earns_in_an_epoch(ledger, risk)
    made = json.loads(served_file([earned]).model_dump_json())
    assert [(one["kind"], one["risk"]) for one in made["bounds"]] == [("earned", risk)]
    assert faults(made, artifact, tmp_path) == set()


def test_a_score_that_was_certified_before_top_existed_is_the_same_task(values, artifact, tmp_path):
    older = sealed({**values, "task": {"kind": "score", "tolerance": 0.5}})
    for top, found in ((None, set()), (3, {Fault.FILES})):
        task = Score(tolerance=0.5, top=top)
        scores = artifact.manifest.model_copy(update={"task": task})
        assert faults(older, replace(artifact, manifest=scores), tmp_path) == found


def test_counts_short_of_the_level_prove_nothing(values, artifact, tmp_path):
    rows, differ = 300, 5
    crossing = {
        "rows": rows,
        "disagreements": differ,
        "log_wealth": float(log_wealth(rows, differ, EPSILON)),
    }
    assert crossing["log_wealth"] < math.log(1 / level_of(2, 0.025))
    forged = sealed(put(values, ("bounds", -1, "crossings", 0), crossing))
    assert faults(forged, artifact, tmp_path) == {Fault.NUMBER}


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
def test_a_slice_is_that_of_the_artifact(values, artifact, tmp_path, said, serves, found):
    of = None if said is None else TENANTS.named(said).model_dump(mode="json")
    router = artifact.manifest.router.model_copy(update={"slices": serves})
    manifest = artifact.manifest.model_copy(update={"router": router})
    sliced = replace(artifact, manifest=manifest)
    assert faults(sealed(put(values, ("bounds", -1, "slice"), of)), sliced, tmp_path) == found


@pytest.mark.parametrize(
    ("said", "serves", "says"),
    [
        ("acme", Slices(), f"{SLICED}, and the artifact's is one whole"),
        (None, TENANTS, f"one whole, and the artifact's is {SLICED}"),
    ],
)
def test_the_slices_of_both_are_named(values, artifact, tmp_path, said, serves, says):
    of = None if said is None else TENANTS.named(said).model_dump(mode="json")
    router = artifact.manifest.router.model_copy(update={"slices": serves})
    manifest = artifact.manifest.model_copy(update={"router": router})
    file = tmp_path / "certificate.json"
    file.write_text(json.dumps(sealed(put(values, ("bounds", -1, "slice"), of))))
    (found,) = check_certificate(*read_certificate(file), replace(artifact, manifest=manifest))
    assert found.sentence.endswith(f"traffic that is {says}")


def test_a_bound_of_all_traffic_as_it_was_written_before_slices(values, artifact, tmp_path):
    older = sealed(put(values, ("bounds", -1, "slice"), ""))
    assert faults(older, artifact, tmp_path) == set()
    read, raw = read_certificate(tmp_path / "certificate.json")
    assert read.bounds[-1].slice is None
    assert seal(raw) == read.sha256


def test_a_slice_is_of_its_own_values(values, artifact, tmp_path):
    of = {"parameter": "tenant", "value": "initech", "values": ["acme"]}
    forged = sealed(put(values, ("bounds", -1, "slice"), of))
    assert faults(forged, artifact, tmp_path) == {Fault.SCHEMA}


def test_one_kind_of_fault_each(values, artifact, tmp_path):
    file = tmp_path / "certificate.json"
    for text, fault in (
        ("not json", Fault.SCHEMA),
        ("[1]", Fault.SCHEMA),
        ("{}", Fault.SCHEMA),
        ('{"certificate_version": 1, "certificate_version": 1}', Fault.SCHEMA),
        ('{"certificate_version": NaN}', Fault.SCHEMA),
        ('{"certificate_version": 2}', Fault.VERSION),
        (json.dumps({**values, "extra": 1}), Fault.SCHEMA),
    ):
        file.write_text(text)
        with pytest.raises(NotCertified) as caught:
            read_certificate(file)
        assert caught.value.fault == fault, text
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(NotCertified, match="not text"):
        read_certificate(file)
    name = next(iter(values["files"]))
    forged = put(values, ("files", name), "0" * 64)
    assert faults(sealed(forged), artifact, tmp_path) == {Fault.FILES}
    more = {**values, "files": {**values["files"], "more.onnx": "0" * 64}}
    assert faults(sealed(more), artifact, tmp_path) == {Fault.FILES}
    fewer = {one: value for one, value in values["files"].items() if one != name}
    assert faults(sealed({**values, "files": fewer}), artifact, tmp_path) == {Fault.FILES}
    assert faults(put(values, ("versions", "numpy"), "0"), artifact, tmp_path) == {Fault.SEAL}


def test_the_published_schema_is_that_of_the_records(values):
    published = ROOT / "docs" / "schemas" / "certificate.schema.json"
    assert published.read_text() == json_schema(), "skipserve verify --schema > docs/schemas/…"
    schema = json.loads(published.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(values, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**values, "extra": 1}, schema)


def test_signatures_of_others_do_not_count(values, artifact, keys, tmp_path):
    other = signed(values, keys / "other.pem")
    assert faults(other, artifact, tmp_path, keys / "mine.pub") == {Fault.SIGNATURE}
    unsigned = {**values, "signature": None}
    assert faults(unsigned, artifact, tmp_path, keys / "mine.pub") == {Fault.SIGNATURE}
    for key in (keys / "mine.pub", keys / "none"):
        with pytest.raises(ConfigError):
            signed(values, key)
    with pytest.raises(ConfigError, match="no public key"):
        faults(values, artifact, tmp_path, keys / "mine.pem")


@pytest.mark.parametrize("value", ["", "x", "\x80", "ä" * 88])
def test_what_is_no_base64_is_no_signature(values, artifact, keys, tmp_path, value):
    changed = put(values, ("signature", "value"), value)
    assert faults(changed, artifact, tmp_path, keys / "mine.pub") == {Fault.SIGNATURE}


def test_certificates_without_the_counts_before_are_not_exported(artifact, tmp_path):
    older = shutil.copytree(artifact.directory, tmp_path / "small")
    written = json.loads((older / CERTIFICATES).read_text())
    for one in written["certificates"]:
        del one["tried"]
    (older / CERTIFICATES).write_text(json.dumps(written))
    with pytest.raises(ArtifactError, match="run `skipserve certify` again"):
        artifact_file(open_artifact(older))
    (older / CERTIFICATES).unlink()
    with pytest.raises(ConfigError, match="nothing of the kind is certified of small"):
        artifact_file(open_artifact(older))


def called(*arguments: object) -> Result:
    """A command in this process."""
    return CliRunner().invoke(app, [*map(str, arguments)])


def verified(*arguments: object) -> Result:
    return called("verify", *arguments)


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(cli(*map(str, arguments)), capture_output=True, text=True)


def test_from_attested_to_verified(routed_project, keys, tmp_path):
    root = routed_project[0]
    file, artifact = tmp_path / "certificate.json", root / "artifacts" / "small"
    assert called("attest", artifact, "--out", file).exit_code == 0
    assert called("sign", file, "--key", keys / "mine.pem").exit_code == 0
    samples = open_recipe("two_moons").draw("certify")
    np.save(tmp_path / "rows.npy", samples.inputs.numpy())
    np.save(tmp_path / "labels.npy", samples.labels.numpy())
    rows = ("--data", tmp_path / "rows.npy", "--labels", tmp_path / "labels.npy")
    done = run("verify", file, artifact, "--key", keys / "mine.pub", *rows)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("counted anew") == 4
    assert "nobody but the holder of the key wrote it" in done.stdout


def test_a_file_of_an_older_skipserve_is_signed_as_it_stands(values, artifact, keys, tmp_path):
    # An older one wrote neither of these, and its hash is of what it wrote.
    older = {**copy.deepcopy(values), "signature": None}
    for bound in older["bounds"]:
        bound.pop("too_short", None)
        bound.pop("slice", None)
    older = sealed(older)
    file = tmp_path / "certificate.json"
    file.write_text(json.dumps(older))
    assert called("sign", file, "--key", keys / "mine.pem").exit_code == 0
    written = json.loads(file.read_text())
    assert written.pop("signature") and older.pop("signature") is None
    assert written == older
    done = verified(file, artifact.directory, "--key", keys / "mine.pub")
    assert done.exit_code == 0, done.output


def test_queries_that_are_too_short_are_written_only_where_there_are_any(values):
    offline = values["bounds"][0]
    assert "too_short" not in offline
    some = parse(Offline, {**offline, "too_short": 7}, "certificate")
    assert some.model_dump(mode="json") == {**offline, "too_short": 7}


def test_a_liar_who_knows_the_mathematics_is_found_by_counting(
    routed_project, values, keys, tmp_path
):
    lie = {**values, "bounds": [copy.deepcopy(values["bounds"][0])]}
    (kept,) = lie["bounds"]
    for one in kept["tried"]:
        one["disagreements"], one["p_value"] = 0, (1 - kept["risk"]) ** kept["samples"]
    file = tmp_path / "certificate.json"
    file.write_text(json.dumps(sealed(lie)))
    archive = routed_project[0] / "model_store" / "small.mar"
    believed = verified(file, archive)
    assert believed.exit_code == 0, believed.stderr
    assert "this detects accidents, and no forgery" in believed.stdout
    assert "counts attested" in believed.stdout
    np.save(tmp_path / "rows.npy", open_recipe("two_moons").draw("certify").inputs.numpy())
    caught = verified(file, archive, "--data", tmp_path / "rows.npy")
    assert caught.exit_code == Fault.COUNTS
    np.save(tmp_path / "rows.npy", open_recipe("two_moons").draw("test").inputs.numpy())
    others = verified(file, archive, "--data", tmp_path / "rows.npy")
    assert others.exit_code == Fault.COUNTS
    forged = verified(file, archive, "--key", keys / "mine.pub")
    assert forged.exit_code == Fault.SIGNATURE


def test_what_cannot_be_checked_is_one_line(made, artifact, tmp_path):
    file = tmp_path / "certificate.json"
    missing = run("verify", file, artifact.directory)
    assert (missing.returncode, missing.stderr.count("\n")) == (2, 1)
    file.write_text("{}")
    assert verified(file, artifact.directory).exit_code == Fault.SCHEMA
    write_certificate(file, made.model_dump(mode="json"))
    other = shutil.copytree(artifact.directory, tmp_path / "small")
    (other / "plain.fp32.onnx").write_bytes(b"other")
    changed = verified(file, other)
    assert isinstance(changed.exception, ArtifactError)
    assert "plain.fp32.onnx" in str(changed.exception)


def test_what_the_epochs_decided_is_a_proof(artifact, tmp_path):
    candidates = artifact.certificates.candidates
    rules = Rules(
        risks=(0.05,),
        candidates=len(candidates),
        level=0.025,
        epoch_rows=2_000,
        greatest_age_rows=2_000,
    )
    rng, rates = np.random.default_rng(0), np.linspace(0.002, 0.06, len(candidates))
    state, counts, events = State(), Counts.none(len(candidates)), []
    for _ in range(60):
        fresh = decide(rules, state, counts, 0.0)
        state = applied(state, fresh)
        events += fresh
        if any(isinstance(one, Begun) for one in fresh):
            counts = Counts.none(len(candidates))
        counts += Counts(50, rng.binomial(50, rates).astype(np.int64), counts.blocks)
    (place,) = in_force(rules, state, counts.rows, 0.0)
    assert place is not None and state.epoch == 2
    about = {
        "candidates": candidates,
        "guard_limit": artifact.manifest.router.guard_limit,
        "confidence": 0.95,
    }
    bound = earned_bound(rules, events, 0.05, place, counts.rows, **about)
    assert (bound.share, len(bound.candidates)) == (pytest.approx(0.5), place.candidate + 1)
    kind = {"precision": "fp32", "provider": "cpu", "files": artifact.hashes("onnx", "fp32")}
    values = json.loads(certificate_file(artifact, [bound], **kind).model_dump_json())
    assert faults(values, artifact, tmp_path) == set()
    with pytest.raises(ConfigError, match="was not earned"):
        earned_bound(rules, events, 0.05, Place(len(candidates) - 1), counts.rows, **about)
