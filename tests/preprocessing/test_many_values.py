"""Any number of pictures in Python: what bounds a request does not bound them."""

from __future__ import annotations

import base64
from pathlib import Path

import numpy as np
import picturing
import pytest
from pictures import saved
from PIL import Image

from skipserve import pipelines
from skipserve.errors import InputError
from skipserve.pipelines import ImageClassification
from skipserve.preprocessing import pictures
from skipserve.runtime.engine import Engine

pytestmark = pytest.mark.slow
FILES = picturing.files(5, seed=3)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    root, folder = tmp_path_factory.mktemp("root"), tmp_path_factory.mktemp("seeing")
    return Engine(picturing.build(root, folder), provider="cpu")


@pytest.fixture
def bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request may have as many pixels as the largest of the files, and four rows run at once."""
    largest = max(one.width * one.height for one in map(_opened, FILES))
    monkeypatch.setattr(pictures, "LARGEST_REQUEST", largest)
    monkeypatch.setattr(pipelines, "TOGETHER", 4)


def _opened(file: bytes) -> Image.Image:
    import io

    return Image.open(io.BytesIO(file))


def test_pictures_beyond_a_requests_bound_are_answered(engine: Engine, bound: None) -> None:
    with pytest.raises(InputError, match="together"):
        engine.inputs.prepare(FILES)
    answers = engine.predict(FILES).answers
    assert len(answers) == len(FILES)
    for file, row in zip(FILES, answers, strict=True):
        np.testing.assert_allclose(engine.predict([file]).answers[0], row, atol=1e-5)
    told = ImageClassification(engine, None)(FILES, top_k=1)
    for (one,), row in zip(told, answers, strict=True):
        assert one["score"] == pytest.approx(row.max(), abs=1e-5)


def test_a_wrong_picture_behind_many_is_named_by_its_place(engine: Engine, bound: None) -> None:
    for ask in (engine.predict, ImageClassification(engine, None)):
        with pytest.raises(InputError, match="row 5: ") as caught:
            ask([*FILES, b"no picture"])
        assert caught.value.row == 5


def test_base64_may_be_too_long_for_the_name_of_a_file(engine: Engine) -> None:
    file = saved(Image.new("RGB", (20, 20), (65, 66, 67)), "BMP")
    text = base64.b64encode(file).decode()
    with pytest.raises(OSError, match="name too long"):
        Path(text).is_file()
    classify = ImageClassification(engine, None)
    (told, again) = classify([text, file])
    assert told == again
