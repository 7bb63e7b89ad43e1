"""Pictures in files of every form: read as the folders of pictures are."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from picture_folders import LABELS, write_classes
from PIL import Image

from skipserve.errors import ConfigError
from skipserve.preprocessing.pictures import Pictures
from skipserve.signature import Signature, TensorSpec
from skipserve.sources.columns import read_columns
from skipserve.sources.matching import match
from skipserve.sources.values import Values

pytestmark = pytest.mark.slow


def columns(folder: Path, form: str) -> Path:
    """Pictures and labels in a file of a form."""
    files = write_classes(folder / "pictures", 9)
    labels = [one.parent.name for one in files]
    paths = [str(one.relative_to(folder)) for one in files]
    data = [one.read_bytes() for one in files]
    texts = [base64.b64encode(one).decode() for one in data]
    if form in ("paths", "base64", "csv"):
        lines = [
            {"file": one, "about": "a picture", "mood": label}
            for one, label in zip(texts if form == "base64" else paths, labels, strict=True)
        ]
        if form == "csv":
            rows = [",".join(line.values()) for line in lines]
            (folder / "rows.csv").write_text("\n".join(["file,about,mood", *rows]))
            return folder / "rows.csv"
        (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, lines)))
        return folder / "rows.jsonl"
    if form == "arrays":
        pixels = [np.asarray(Image.open(one).convert("RGB").resize((32, 32), 3)) for one in files]
        np.savez(folder / "rows.npz", picture=np.stack(pixels), mood=np.arange(9) % 3)
        return folder / "rows.npz"
    column: list[Any] = data
    if form == "datasets":
        column = [{"bytes": one, "path": "elsewhere.png"} for one in data]
    if form == "datasets of paths":
        column = [{"bytes": None, "path": one} for one in paths]
    pyarrow.parquet.write_table(
        pyarrow.table({"file": column, "mood": labels}), folder / "rows.parquet"
    )
    return folder / "rows.parquet"


SPEC = TensorSpec(name="pixel_values", dtype="float32", shape=("batch", 3, 32, 32))
SIGNATURE = Signature(inputs=(SPEC,), outputs=(SPEC,))
FORMS = ("paths", "base64", "csv", "bytes", "datasets", "datasets of paths", "arrays")


def values(*named: str) -> Values:
    from skipserve.preprocessing.picture_config import PictureInput

    config = PictureInput(resize=(32, 32), resample=3, scale=1 / 255)
    return Values.of(Pictures(config), named, LABELS)


@pytest.mark.parametrize("form", FORMS)
def test_pictures_in_files(form: str, tmp_path: Path) -> None:
    file = columns(tmp_path, form)
    # A column of words beside the pictures is taken for none where those are files.
    named = ("file",) if form == "base64" else ()
    found = match(read_columns(file), SIGNATURE, {}, "mood", file.name, values(*named))
    whole = match(read_columns(tmp_path / "pictures"), SIGNATURE, {}, "label", "pictures", values())
    assert found.labels is not None and found.labels.tolist() == [0, 1, 2] * 3
    order = np.argsort(found.labels, kind="stable")
    ours = found.rows.tensors["pixel_values"][order]
    theirs = whole.rows.tensors["pixel_values"]
    # A folder's classes come in the order of the alphabet.
    by_label = np.argsort(np.asarray(whole.labels), kind="stable")
    np.testing.assert_array_equal(ours, theirs[by_label])


def test_pictures_that_are_not_there(tmp_path: Path) -> None:
    file = columns(tmp_path, "paths")
    next((tmp_path / "pictures" / "plain").glob("0004*")).unlink()
    with pytest.raises(ConfigError, match=r"row 4: .*0004.png cannot be read: No such file"):
        match(read_columns(file), SIGNATURE, {}, "mood", file.name, values())
    damaged = next((tmp_path / "pictures" / "dark").glob("0006*"))
    damaged.write_bytes(damaged.read_bytes()[:-200])
    with pytest.raises(ConfigError, match=r"row \d: the picture cannot be decoded: .*truncated"):
        match(read_columns(tmp_path / "pictures"), SIGNATURE, {}, None, "pictures", values())
    with pytest.raises(ConfigError, match="has no column 'body' of pictures"):
        match(read_columns(file), SIGNATURE, {}, None, file.name, values("body"))
    (tmp_path / "nothing").mkdir()
    with pytest.raises(ConfigError, match="holds no folder of pictures"):
        read_columns(tmp_path / "nothing")
