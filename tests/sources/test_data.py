"""Data files: every format, columns matched by name, errors in one sentence."""

from __future__ import annotations

import pickle

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from skipserve.errors import ConfigError
from skipserve.signature import Signature, TensorSpec
from skipserve.sources.columns import read_columns
from skipserve.sources.matching import match


def spec(name, *row, dtype="float32"):
    return TensorSpec(name=name, dtype=dtype, shape=("batch", *row))


def signature(*inputs):
    return Signature(inputs=inputs, outputs=(spec("out", 2),))


ONE = signature(spec("x", 3))
TEXTS = signature(spec("ids", "length", dtype="int64"), spec("mask", "length", dtype="int64"))
ROWS = np.float32([[1, 2, 3], [4, 5, 6]])
LABELS = np.array([0, 1])


def write(file, columns):
    kind = file.suffix
    if kind == ".npz":
        np.savez(file, **columns)
    elif kind == ".npy":
        np.save(file, columns["x"])
    elif kind == ".jsonl":
        names = list(columns)
        lines = [
            "{" + ", ".join(f'"{name}": {columns[name][i].tolist()}' for name in names) + "}"
            for i in range(len(columns[names[0]]))
        ]
        file.write_text("\n".join(lines))
    else:
        table = pa.table({name: column.tolist() for name, column in columns.items()})
        {".parquet": pa.parquet.write_table, ".csv": pa.csv.write_csv}[kind](table, str(file))
    return file


@pytest.mark.parametrize("kind", [".npz", ".npy", ".parquet", ".jsonl"])
def test_rows_come_as_they_are_in_the_file(tmp_path, kind):
    columns = {"x": ROWS, "label": LABELS}
    read = read_columns(write(tmp_path / f"rows{kind}", columns))
    labels = None if kind == ".npy" else "label"
    got = match(read, ONE, {}, labels, "rows")
    np.testing.assert_array_equal(got.rows.tensors["x"], ROWS)
    assert got.rows.tensors["x"].dtype == np.float32
    if labels:
        np.testing.assert_array_equal(got.labels, LABELS)
        assert got.labels.dtype == np.int64


def test_a_table_of_numbers_is_the_rows_of_one_input(tmp_path):
    columns = {f"x{i}": ROWS[:, i] for i in range(3)} | {"label": LABELS}
    got = match(read_columns(write(tmp_path / "rows.csv", columns)), ONE, {}, "label", "rows.csv")
    np.testing.assert_array_equal(got.rows.tensors["x"], ROWS)
    np.testing.assert_array_equal(got.labels, LABELS)


@pytest.mark.parametrize("kind", [".npz", ".parquet", ".jsonl"])
def test_several_inputs_are_matched_by_name_or_as_the_file_calls_them(tmp_path, kind):
    columns = {"mask": np.ones((2, 4), np.int64), "tokens": np.arange(8).reshape(2, 4)}
    read = read_columns(write(tmp_path / f"rows{kind}", columns))
    got = match(read, TEXTS, {"ids": "tokens"}, None, "rows")
    np.testing.assert_array_equal(got.rows.tensors["ids"], columns["tokens"])
    assert list(got.rows.tensors) == ["ids", "mask"]
    assert got.labels is None


def test_a_lone_column_is_the_lone_input_whatever_it_is_called(tmp_path):
    read = read_columns(write(tmp_path / "rows.npz", {"pictures": ROWS, "label": LABELS}))
    got = match(read, ONE, {}, "label", "rows")
    np.testing.assert_array_equal(got.rows.tensors["x"], ROWS)


X = {"x": ROWS, "label": LABELS}
WRONG = [
    (X, ONE, {}, "lable", r"rows has no column 'lable' of labels; did you mean 'label'\?"),
    (X, ONE, {"y": "x"}, None, "data.columns names 'y', which is no input.*it has 'x'"),
    ({"idz": LABELS, "mask": LABELS}, TEXTS, {}, None, "no column 'ids' .*did you mean 'idz'"),
    ({"x": ROWS[:, :2]}, ONE, {}, None, r"rows: a row of the network has shape \[3\], got .*\[2\]"),
    ({"x": ROWS * np.nan}, ONE, {}, None, "rows: row 0 holds NaN"),
    ({"x": np.array([["a"] * 3] * 2)}, ONE, {}, None, "rows: x must be numbers"),
    ({**X, "label": ROWS[:, 0]}, ONE, {}, "label", "labels in 'label' must be whole numbers"),
    ({**X, "label": np.array(["a", "b"])}, ONE, {}, "label", "must be whole numbers"),
]


@pytest.mark.parametrize(("columns", "takes", "names", "labels", "says"), WRONG)
def test_columns_that_do_not_fit_are_told_what_was_expected(columns, takes, names, labels, says):
    with pytest.raises(ConfigError, match=says) as refused:
        match(columns, takes, names, labels, "rows")
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize("kind", [".npz", ".npy", ".parquet", ".csv", ".jsonl"])
@pytest.mark.parametrize("content", [b"", b"junk\0\xff", b"PK\x03\x04 cut"])
def test_what_cannot_be_read_is_named(tmp_path, kind, content):
    file = tmp_path / f"rows{kind}"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=f"rows{kind}") as refused:
        match(read_columns(file), ONE, {}, None, str(file))
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize("kind", [".npz", ".npy"])
def test_no_pickle_is_opened(tmp_path, kind):
    opened = tmp_path / "opened"

    class Trap:
        def __reduce__(self):
            return (open, (str(opened), "w"))

    trap = np.array([Trap()], dtype=object)
    file = tmp_path / f"rows{kind}"
    if kind == ".npy":
        np.save(file, trap, allow_pickle=True)
    else:
        np.savez(file, x=trap)
    with pytest.raises(ConfigError, match="holds Python objects, which are not opened"):
        read_columns(file)
    file.write_bytes(pickle.dumps(Trap()))
    with pytest.raises(ConfigError, match=rf"is no {kind} file; expected what numpy.savez? writes"):
        read_columns(file)
    assert not opened.exists()


def test_missing_unknown_and_empty_files_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere.npz is not there; name a file of rows"):
        read_columns(tmp_path / "nowhere.npz")
    (tmp_path / "rows.xlsx").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"rows are read from .npz, .npy, .*, not .xlsx"):
        read_columns(tmp_path / "rows.xlsx")
    np.save(tmp_path / "none.npy", ROWS[:0])
    with pytest.raises(ConfigError, match=r"none\.npy holds no row"):
        read_columns(tmp_path / "none.npy")
    np.save(tmp_path / "number.npy", np.float32(1))
    with pytest.raises(ConfigError, match="every column must hold one entry a row"):
        read_columns(tmp_path / "number.npy")
    np.savez(tmp_path / "uneven.npz", x=ROWS, label=LABELS[:1])
    with pytest.raises(ConfigError, match=r"one entry a row, found x \(2, 3\), label \(1,\)"):
        read_columns(tmp_path / "uneven.npz")


def test_lists_of_different_length_and_empty_cells_are_refused(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"x": [1, 2]}\n{"x": [1]}\n')
    with pytest.raises(ConfigError, match="'x' are of different length"):
        read_columns(tmp_path / "rows.jsonl")
    (tmp_path / "rows.jsonl").write_text('{"x": 1}\n{"x": null}\n')
    with pytest.raises(ConfigError, match="row 1 of column 'x' is empty"):
        read_columns(tmp_path / "rows.jsonl")
    (tmp_path / "rows.csv").write_text("a,b\n1,2\n,4\n")
    with pytest.raises(ConfigError, match="row 1 of column 'a' is empty"):
        read_columns(tmp_path / "rows.csv")
