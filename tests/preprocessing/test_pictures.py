"""Pictures: the pixels of transformers' own processors."""

from __future__ import annotations

import base64
import json
import tracemalloc
from io import BytesIO
from itertools import chain

import numpy as np
import pytest
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import EXIF_ORIENTATION, drawn, odd, ordinary, real, saved
from PIL import Image

from skipserve.preprocessing.picture_config import PictureInput
from skipserve.preprocessing.pictures import Pictures
from skipserve.sources.hugging_face.processor import picture_input

pytestmark = pytest.mark.slow


# Processors as their files say: those of the networks that are read, and corners of each.
FILES = {
    "ViT": {"image_processor_type": "ViTImageProcessor", "size": {"height": 64, "width": 64}},
    "an old ViT": {"feature_extractor_type": "ViTFeatureExtractor", "size": 96, "resample": 3},
    "ResNet": {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 224}},
    "another part kept": {
        "image_processor_type": "ConvNextImageProcessor",
        "size": {"shortest_edge": 61},
        "crop_pct": 0.95,
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
    },
    "ConvNeXt, stretched": {
        "image_processor_type": "ConvNextImageProcessorFast",
        "size": {"shortest_edge": 384},
        "resample": 1,
    },
    "an old ConvNeXt": {"feature_extractor_type": "ConvNextFeatureExtractor", "size": 48},
    "DeiT": {"image_processor_type": "DeiTImageProcessor", "crop_size": 200, "size": 210},
    "DINOv2": {
        "image_processor_type": "BitImageProcessor",
        "size": {"shortest_edge": 40},
        "crop_size": {"height": 33, "width": 52},
    },
    "MobileNet": {"image_processor_type": "MobileNetV1ImageProcessor", "resample": 0},
    "cropped alone": {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": False,
        "do_center_crop": True,
        "crop_size": {"height": 101, "width": 64},
    },
    "not scaled": {
        "image_processor_type": "ViTImageProcessor",
        "size": [32, 20],
        "do_rescale": False,
        "image_mean": [127.5, 120.0, 110.0],
        "image_std": [61.0, 62.0, 63.5],
    },
    "not shifted": {
        "image_processor_type": "PvtImageProcessor",
        "do_normalize": False,
        "rescale_factor": 0.01,
        "size": {"height": 32, "width": 32},
    },
}


def theirs(tmp_path, values):
    from transformers import AutoImageProcessor

    (tmp_path / "preprocessor_config.json").write_text(json.dumps(values))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vit"}))
    return AutoImageProcessor.from_pretrained(str(tmp_path), backend="pil")


def of_transformers(processor, pictures):
    from transformers.image_utils import load_image

    made = []
    for picture in pictures:
        loaded = load_image(base64.b64encode(picture).decode())
        made.append(processor(loaded, return_tensors="np")["pixel_values"][0])
    return np.stack(made)


@pytest.mark.parametrize("name", FILES)
def test_as_transformers(name, tmp_path):
    values = FILES[name]
    config = picture_input(values, "preprocessor_config.json")
    some = list(chain(ordinary(2, seed=len(name)), odd().values()))
    ours = Pictures(config)(some)["pixel_values"]
    expected = of_transformers(theirs(tmp_path, values), some)
    assert ours.dtype == np.float32
    assert ours.shape == (len(some), 3, *config.size) == expected.shape
    np.testing.assert_array_equal(ours, expected)


def test_two_hundred(tmp_path):
    values = FILES["another part kept"]
    some = [*ordinary(150), *real(), *odd().values()]
    assert len(some) >= 200
    ours = Pictures(picture_input(values, "file"))(some)["pixel_values"]
    np.testing.assert_array_equal(ours, of_transformers(theirs(tmp_path, values), some))


@pytest.mark.parametrize(
    ("pixels", "channels"),
    [
        (drawn(30, 40, 3, 1), "last"),
        (drawn(30, 40, 3, 1).transpose(2, 0, 1), "first"),
        # Either could be meant; transformers takes the first dimension if it is not told.
        (drawn(3, 4, 3, 2), "last"),
        (drawn(1, 5, 3, 3), "last"),
        (drawn(4, 8, 3, 4), "last"),
    ],
)
def test_arrays_as_transformers(pixels, channels, tmp_path):
    values = FILES["ResNet"]
    ours = Pictures(picture_input(values, "file"))
    processor = theirs(tmp_path, values)
    order = f"channels_{channels}"
    expected = processor(pixels, return_tensors="np", input_data_format=order)["pixel_values"]
    np.testing.assert_array_equal(ours([pixels])["pixel_values"], expected)
    np.testing.assert_array_equal(ours([pixels.tolist()])["pixel_values"], expected)


SQUARE = PictureInput(resize=(8, 8), scale=1 / 255)


def test_grey_arrays_become_colours():
    grey = drawn(20, 20, 1, 5)
    made = [Pictures(SQUARE)([one])["pixel_values"] for one in (grey, grey[..., 0], grey.tolist())]
    assert (made[0][0, 0] == made[0][0, 2]).all()
    np.testing.assert_array_equal(made[0], made[1])
    np.testing.assert_array_equal(made[0], made[2])


def test_colours_become_grey():
    config = picture_input(
        {"image_processor_type": "ViTImageProcessor", "size": 8}, "file", channels=1
    )
    picture = Image.fromarray(drawn(8, 8, 3, 6))
    made = Pictures(config)([saved(picture)])["pixel_values"]
    expected = (np.asarray(picture.convert("L"), np.float32) / 255 - 0.5) / 0.5
    np.testing.assert_allclose(made[0, 0], expected, atol=1e-6)


def test_base64_in_all_its_forms():
    data = saved(Image.fromarray(drawn(9, 9, 3, 7)))
    text = base64.b64encode(data).decode()
    lines = base64.encodebytes(data).decode()
    values = [data, text, lines, f"data:image/png;base64,{text}", bytearray(data)]
    made = Pictures(SQUARE)(values)["pixel_values"]
    assert (made == made[0]).all()


@pytest.mark.parametrize("rotation", [1, 6])
def test_a_picture_of_pythons_stays_as_it_was(rotation):
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = rotation
    opened = Image.open(BytesIO(saved(Image.fromarray(drawn(20, 30, 3, 1)), exif=exif)))
    before = np.asarray(opened).copy()
    made = Pictures(SQUARE)([opened])["pixel_values"]
    np.testing.assert_array_equal(np.asarray(opened), before)
    assert opened.getexif()[EXIF_ORIENTATION] == rotation
    np.testing.assert_array_equal(made, Pictures(SQUARE)([opened])["pixel_values"])


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_the_clear_colour_becomes_white(mode):
    colours = drawn(8, 8, 3, 1)[..., 0] if mode == "L" else drawn(8, 8, 3, 1)
    clear = colours[2, 3].tolist()
    file = saved(Image.fromarray(colours), transparency=tuple(clear) if mode == "RGB" else clear)
    config = PictureInput(mode=mode, crop=(8, 8), white=True)
    made = Pictures(config)([file])["pixel_values"][0]
    expected = colours.reshape(8, 8, -1).copy()
    expected[(expected == clear).all(axis=-1)] = 255
    np.testing.assert_array_equal(made, expected.transpose(2, 0, 1))


@pytest.mark.parametrize("turned", [False, True])
def test_a_thin_picture_is_cropped_before_it_is_filled_up(turned):
    size = (1, 400_000) if turned else (400_000, 1)
    thin = Image.new("RGB", size)
    thin.paste((7, 8, 9), (size[0] // 2, size[1] // 2, *size))
    prepare, file = Pictures(PictureInput(crop=(200, 224))), saved(thin)
    tracemalloc.start()
    (made,) = prepare([file])["pixel_values"]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # Filled up to the crop's height first, it would take 200 × 400,000 pixels: 240 MB.
    assert peak < 30e6
    lit = np.zeros((3, 200, 224), np.float32)
    place = (slice(100, None), 112) if turned else (100, slice(112, None))
    for channel, value in enumerate((7, 8, 9)):
        lit[channel][place] = value
    np.testing.assert_array_equal(made, lit)


@settings(max_examples=examples(25), deadline=None)
@given(
    st.integers(1, 60), st.integers(1, 60), st.integers(1, 50), st.integers(1, 50), st.booleans()
)
def test_any_size_and_crop(height, width, down, across, stretch):
    """The crop of transformers, on pictures smaller and larger than it."""
    from transformers.image_transforms import center_crop

    config = PictureInput(crop=(down, across), resize=(33, 21) if stretch else None)
    picture = Image.fromarray(drawn(height, width, 3, height))
    made = Pictures(config)([saved(picture)])["pixel_values"][0]
    whole = np.asarray(picture.resize((21, 33), 2) if stretch else picture)
    expected = center_crop(
        whole.transpose(2, 0, 1), (down, across), input_data_format="channels_first"
    )
    np.testing.assert_array_equal(made, expected)
