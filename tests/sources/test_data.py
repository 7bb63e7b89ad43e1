"""Data files: every format, columns matched by name, errors in one sentence."""

from __future__ import annotations

import pickle

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from skipserve.errors import ConfigError
from skipserve.schema import parse
from skipserve.signature import Signature, TensorSpec
from skipserve.sources.columns import read_columns
from skipserve.sources.config import DataConfig
from skipserve.sources.labels import read_labels
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


def damaged_arrays(file, kind):
    np.savez(file, x=ROWS)
    content = bytearray(file.read_bytes())
    central = content.rindex(b"PK\x01\x02")
    if kind == "compression":  # no method that there is, in both headers of the first file
        content[8:10] = content[central + 10 : central + 12] = b"\x63\x00"
    elif kind == "encrypted":
        content[6] |= 1
        content[central + 8] |= 1
    else:  # a header that claims terabytes
        shape = b"{'descr': '<f8', 'fortran_order': False, 'shape': (8000000000000,), }"
        file = file.with_suffix(".npy")
        content = b"\x93NUMPY\x01\x00v\x00" + shape.ljust(117) + b"\n"
    file.write_bytes(bytes(content))
    return file


@pytest.mark.parametrize("kind", ["compression", "encrypted", "terabytes"])
def test_arrays_that_are_damaged_otherwise_are_one_line_too(tmp_path, kind):
    file = damaged_arrays(tmp_path / "rows.npz", kind)
    with pytest.raises(ConfigError, match=f"{file.name} cannot be read: .") as refused:
        read_columns(file)
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize("kind", [".csv", ".jsonl"])
def test_a_text_may_be_some_megabytes_long(tmp_path, kind):
    file, long = tmp_path / f"rows{kind}", "x" * 3_000_000
    lines = [f'{{"text": "{one}"}}' for one in (long, "short")]
    file.write_text("\n".join(lines if kind == ".jsonl" else ["text", long, "short"]))
    assert [len(one) for one in read_columns(file)["text"]] == [3_000_000, 5]
    file.write_text(file.read_text().replace(long, long * 12))
    with pytest.raises(ConfigError, match=r"a row is longer than 16 MiB; bring the rows as .p"):
        read_columns(file)


NUMBERS = [
    (pa.array([1.5, 2.5], pa.float32()), np.float32([1.5, 2.5])),
    (pa.array([1, 2], pa.int8()), np.int8([1, 2])),
    (pa.array([True, False]), np.array([True, False])),
    (pa.array([[1, 2], [3, 4]], pa.list_(pa.float32())), np.float32([[1, 2], [3, 4]])),
    (pa.array([[1, 2], [3, 4]], pa.list_(pa.int64(), 2)), np.int64([[1, 2], [3, 4]])),
    (
        pa.array([[[1, 2, 3]], [[4, 5, 6]]], pa.large_list(pa.list_(pa.uint8()))),
        np.uint8([[[1, 2, 3]], [[4, 5, 6]]]),
    ),
]


@pytest.mark.parametrize(("column", "numbers"), NUMBERS)
def test_numbers_of_a_table_keep_their_dtype(tmp_path, column, numbers):
    chunked = pa.chunked_array([column, column.slice(1), column.slice(0, 1)])
    pa.parquet.write_table(pa.table({"x": chunked}), tmp_path / "x.parquet", row_group_size=2)
    found = read_columns(tmp_path / "x.parquet")["x"]
    np.testing.assert_array_equal(found, numbers[[0, 1, 1, 0]])
    assert found.dtype == numbers.dtype


UNEVEN = [
    ([[1, 2], [1]], "are of different length"),
    ([[[1], [2]], [[1], [2, 3]]], "are of different length"),
    ([[1, 2], [3, None]], "row 1 of column 'x' has an empty entry"),
    ([[[1], [2]], [[3], None]], "row 1 of column 'x' has an empty entry"),
    ([[1, 2], None], "row 1 of column 'x' is empty"),
]


@pytest.mark.parametrize(("values", "says"), UNEVEN)
def test_lists_of_a_table_that_are_no_array_are_refused(tmp_path, values, says):
    pa.parquet.write_table(pa.table({"x": values}), tmp_path / "x.parquet")
    with pytest.raises(ConfigError, match=says):
        read_columns(tmp_path / "x.parquet")


def test_parts_of_a_table_with_lists_of_other_lengths_are_refused(tmp_path):
    whole = pa.table({"x": pa.chunked_array([[[1, 2]], [[3]]])})
    pa.parquet.write_table(whole, tmp_path / "x.parquet", row_group_size=1)
    with pytest.raises(ConfigError, match="are of different length"):
        read_columns(tmp_path / "x.parquet")


@pytest.mark.parametrize("labels", [[{"is": "a"}, {"is": "b"}], ["a", {"is": "b"}], ["a", 1]])
def test_labels_that_are_no_names_are_told(labels):
    given = np.empty(2, object)
    given[:] = labels
    with pytest.raises(ConfigError, match="which is none of the model's labels: a, b"):
        read_labels({"label": given}, "label", "rows.jsonl", ("a", "b"))


@pytest.mark.parametrize("seed", [-1, 2**63, 2**64, 1.5])
def test_a_seed_that_is_none_is_refused_before_rows_are_read(seed):
    with pytest.raises(ConfigError, match=r"data: seed = .*: expected"):
        parse(DataConfig, {"rows": "rows.npz", "seed": seed}, "data")
    assert parse(DataConfig, {"rows": "rows.npz", "seed": 2**63 - 1}, "data").seed == 2**63 - 1


def test_texts_and_pictures_at_once_are_refused():
    with pytest.raises(ConfigError, match="text and picture are both named"):
        parse(DataConfig, {"rows": "rows.jsonl", "text": "body", "picture": "file"}, "data")
