"""Pictures that are refused: errors are one line, and nothing too large is decoded."""

from __future__ import annotations

import numpy as np
import pytest
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import bomb, drawn, saved
from PIL import Image

from skipserve.errors import ConfigError, InputError
from skipserve.preprocessing.decoding import LARGEST_PICTURE
from skipserve.preprocessing.picture_config import PictureInput
from skipserve.preprocessing.pictures import Pictures
from skipserve.sources.hugging_face.processor import picture_input

pytestmark = pytest.mark.slow


SQUARE = PictureInput(resize=(8, 8), scale=1 / 255)
JPEG = saved(Image.fromarray(drawn(200, 200, 3, 8)), "JPEG")
PNG = saved(Image.fromarray(drawn(200, 200, 3, 8)))
BAD = {
    "a truncated JPEG": (JPEG[: len(JPEG) // 2], "invalid_picture", "truncated"),
    "a truncated PNG": (PNG[: len(PNG) // 2], "invalid_picture", "truncated"),
    "only a header": (PNG[:20], "invalid_picture", "read"),
    "nothing": (b"", "invalid_picture", "no picture"),
    "words": (b"great film", "invalid_picture", "no picture"),
    "not base64": ("great film!", "invalid_picture", "not base64"),
    "not ASCII": ("großartig", "invalid_picture", "not base64"),
    "no base64 in a URL": ("data:image/png,abc", "invalid_picture", "data:image"),
    "an address": ("http://127.0.0.1/a.png", "invalid_picture", "not fetched"),
    "a path": ("/etc/passwd", "invalid_picture", "JPEG"),
    "PostScript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "invalid_picture", "no"),
    "a number": (3.0, "wrong_type", "float is no picture"),
    "no value": (None, "wrong_type", "no picture"),
    "a list of numbers": ([1, 2, 3], "wrong_shape", "height"),
    "two channels": (np.zeros((5, 5, 2), int), "wrong_shape", "1, 3 or 4"),
    "ragged": ([[1, 2], [3]], "ragged", "rectangle"),
    "scaled": ([[0.5, 0.25]], "wrong_type", "0 to 255"),
    "beyond": ([[0, 256]], "wrong_type", "0 to 255"),
    "no pixel": (np.zeros((0, 4, 3), int), "empty", "no pixel"),
}


@pytest.mark.parametrize("what", BAD)
def test_what_is_refused(what):
    value, code, said = BAD[what]
    with pytest.raises(InputError) as error:
        Pictures(SQUARE)([JPEG, value, PNG])
    assert (error.value.code, error.value.row) == (code, 1)
    assert said in error.value.message and "\n" not in error.value.message


@pytest.mark.parametrize("side", [7_100, 30_000, 2**31 - 1])
def test_bombs_are_refused_before_decoding(side):
    # The data in them is too short for that many pixels: decoded, they would be called truncated.
    with pytest.raises(InputError, match="million pixels") as error:
        Pictures(SQUARE)([PNG, bomb(side, side)])
    assert (error.value.code, error.value.row) == ("picture_too_large", 1)


def test_a_request_of_large_pictures():
    many = [bomb(7_000, 7_000)] * 5
    with pytest.raises(InputError, match="together"):
        Pictures(SQUARE)(many)
    assert LARGEST_PICTURE > 7_000 * 7_000


def test_pictures_beyond_a_requests_bound_are_not_even_opened():
    with pytest.raises(InputError, match="together"):
        Pictures(SQUARE)([*[bomb(7_000, 7_000)] * 5, b"no picture"])


def test_thin_pictures_do_not_grow_without_limit():
    thin = saved(Image.new("RGB", (30_000, 1)))
    config = PictureInput(shortest=256, crop=(224, 224))
    with pytest.raises(InputError, match="resized"):
        Pictures(config)([thin])


def test_pillow_may_be_missing(monkeypatch):
    from skipserve import extras
    from skipserve.errors import LaunchError

    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    with pytest.raises(LaunchError, match=r"pip install 'skipserve\[image\]'"):
        Pictures(SQUARE)


REFUSED = {
    "unknown": ({"image_processor_type": "DetrImageProcessor"}, "not known"),
    "nameless": ({"size": 3}, "which processor"),
    "remote code": (
        {"image_processor_type": "ViTImageProcessor", "auto_map": {"AutoImageProcessor": "a.B"}},
        "not run",
    ),
    "several sizes": (
        {"image_processor_type": "ViTImageProcessor", "size": {"shortest_edge": 9}},
        "several sizes",
    ),
    "padding": ({"image_processor_type": "ViTImageProcessor", "do_pad": True}, "do_pad"),
    "longest": (
        {"image_processor_type": "ViTImageProcessor", "size": {"longest_edge": 9}},
        "shortest_edge",
    ),
    "four means": ({"image_processor_type": "ViTImageProcessor", "image_mean": [0, 0.1]}, "mean"),
    "no deviation": (
        {"image_processor_type": "ViTImageProcessor", "image_std": [0, 1, 1]},
        "deviation",
    ),
    "a huge size": ({"image_processor_type": "ViTImageProcessor", "size": 10**6}, "8192"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_processors_that_are_refused(what):
    values, said = REFUSED[what]
    with pytest.raises(ConfigError, match=said):
        picture_input(values, "preprocessor_config.json")


@settings(max_examples=examples(40), deadline=None)
@given(st.binary(max_size=300), st.integers(0, 3))
def test_any_bytes_are_a_picture_or_refused(noise, kind):
    begin = (b"", JPEG[:200], PNG[:60], b"GIF89a")[kind]
    try:
        made = Pictures(SQUARE)([begin + noise])["pixel_values"]
    except InputError as error:
        assert error.row == 0 and "\n" not in error.message
    else:
        assert np.isfinite(made).all()
