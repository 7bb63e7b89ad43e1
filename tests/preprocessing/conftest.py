"""What tests of preprocessing share: a model that takes texts, its engine and its service."""

from __future__ import annotations

from pathlib import Path

import pytest
import texts
from tokenizing import taking_texts, text_input

from skipserve.artifacts.artifact import Artifact, open_artifact
from skipserve.artifacts.serving import ServingConfig
from skipserve.preprocessing.text import Texts
from skipserve.runtime.engine import Engine
from skipserve.service.service import Service


@pytest.fixture(scope="module")
def taking(texts_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    artifact = open_artifact(texts.build(texts_root, "masked"))
    return taking_texts(artifact, tmp_path_factory.mktemp("taking"))


@pytest.fixture(scope="module")
def engine(taking: Artifact) -> Engine:
    return Engine(taking, provider="cpu")


@pytest.fixture(scope="module")
def service(engine: Engine) -> Service:
    return Service(engine, ServingConfig(max_rows=8))


@pytest.fixture(scope="module")
def prepare(tmp_path_factory: pytest.TempPathFactory) -> Texts:
    folder = tmp_path_factory.mktemp("tokens")
    return Texts(text_input(folder), folder)
