"""A tokenizer that was damaged or made to do harm: refused, or harming its own texts alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import texts
from examples import examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from json_places import places
from tokenizing import taking_texts, text_input

from skipserve.artifacts.artifact import Artifact, open_artifact
from skipserve.artifacts.serving import ServingConfig
from skipserve.errors import ArtifactError, InputError
from skipserve.files import sha256_of
from skipserve.preprocessing.text import Texts
from skipserve.protocols.messages import JSON, RawRequest
from skipserve.runtime.engine import Engine
from skipserve.service.service import Service

# What stands where something else was expected.
ODD = [None, True, -1, 2**31, 2**64, 1.5, "", "x", "é" * 1000, [], {}, [[]], {"a": 1}, [1, 2]]
thorough = settings(
    max_examples=examples(150), suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def taking(texts_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    artifact = open_artifact(texts.build(texts_root, "masked"))
    return taking_texts(artifact, tmp_path_factory.mktemp("damaged"))


@pytest.fixture
def folder(taking: Artifact, tmp_path: Path) -> Path:
    """A copy of the artifact."""
    for entry in taking.directory.iterdir():
        (tmp_path / entry.name).write_bytes(entry.read_bytes())
    return tmp_path


@thorough
@given(st.data())
def test_every_byte_of_a_tokenizer_counts(folder: Path, taking: Artifact, data: Any) -> None:
    """Flipped or cut off anywhere: its hash is that of another file."""
    good = (taking.directory / "tokenizer.json").read_bytes()
    place = data.draw(st.integers(0, len(good) - 1))
    bent = bytearray(good)
    if data.draw(st.booleans()):
        bent[place] ^= data.draw(st.integers(1, 255))
    else:
        del bent[place:]
    (folder / "tokenizer.json").write_bytes(bent)
    with pytest.raises(ArtifactError, match=r"tokenizer\.json") as told:
        open_artifact(folder)
    assert "\n" not in str(told.value)


@thorough
@given(st.data())
def test_one_that_was_made_to_do_harm_is_refused_or_harms_its_texts_alone(
    tmp_path: Path, data: Any
) -> None:
    """By whoever made it on purpose: nothing compares its hash here."""
    config = text_input(tmp_path)
    file = tmp_path / "tokenizer.json"
    value = json.loads(file.read_text())
    holder, key = data.draw(st.sampled_from(list(places(value))))
    if data.draw(st.booleans()):
        del holder[key]
    else:
        holder[key] = data.draw(st.sampled_from(ODD))
    file.write_text(json.dumps(value))
    try:
        prepare = Texts(config, tmp_path)
    except ArtifactError as error:
        assert str(file) in str(error)
        assert "\n" not in str(error)
        return
    for values in (["a great film"], [("great", "film")], ["x" * 500, "dull"]):
        try:
            prepare(values)
        except InputError:
            pass
        except Exception as error:  # costs the row: what is no Exception would cost the worker
            assert str(error)


def test_a_template_of_tokens_that_are_not_there_is_refused(tmp_path: Path) -> None:
    """The library panics at the first text, in a way that no `except Exception` catches."""
    config = text_input(tmp_path)
    file = tmp_path / "tokenizer.json"
    value = json.loads(file.read_text())
    value["post_processor"]["special_tokens"] = {}
    file.write_text(json.dumps(value))
    with pytest.raises(ArtifactError, match=r"tokenizer\.json cannot"):
        Texts(config, tmp_path)


def test_one_for_pairs_costs_the_pair_and_no_neighbour(folder: Path) -> None:
    """Whose template for pairs alone names what is not there."""
    file = folder / "tokenizer.json"
    value = json.loads(file.read_text())
    value["post_processor"]["pair"][-1]["SpecialToken"]["id"] = "[GONE]"
    file.write_text(json.dumps(value))
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["preprocessing"]["tokenizer"].update(
        sha256=sha256_of(file), size_bytes=file.stat().st_size
    )
    (folder / "manifest.json").write_text(json.dumps(manifest))
    service = Service(Engine(open_artifact(folder), provider="cpu"), ServingConfig())
    asked = [
        RawRequest(json.dumps({"inputs": [value]}).encode(), {"content-type": JSON})
        for value in ("great", ["great", "film"], "dull")
    ]
    assert [reply.status for reply in service.answer(asked)] in ([200, 500, 200], [200, 400, 200])
