"""Weights are stored once, and every file that shares them is valid."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from cutting import network_from, random_exits, write
from onnx import numpy_helper
from residual_graphs import CLASSES, WIDE, WIDTH, wide

from skipserve.graph.prepare import prepare
from skipserve.graph.weights import PAGE_BYTES, SMALLEST_BYTES, all_tensors, write_models


@pytest.fixture
def written(tmp_path):
    """The files of a routed network, in a folder of their own."""
    onnx.save(wide(), tmp_path / "wide.onnx")
    network = network_from(tmp_path / "wide.onnx", CLASSES)
    rows = {"x": np.random.default_rng(0).standard_normal((8, WIDTH), dtype=np.float32)}
    folder = tmp_path / "files"
    folder.mkdir()
    write(network, rows, random_exits(network, rows, range(3), width=CLASSES), folder)
    return folder


def test_every_weight_stands_in_one_file_once(written):
    files = sorted(written.glob("*.onnx"))
    assert len(files) == 6  # plain, routed, and a stage more than there are cuts
    places, shared = {}, {}
    for file in files:
        model = onnx.load(file, load_external_data=False)
        onnx.checker.check_model(str(file))
        for tensor in all_tensors(model.graph):
            if tensor.data_location != onnx.TensorProto.EXTERNAL:
                assert len(tensor.raw_data) < SMALLEST_BYTES
                continue
            entry = {one.key: one.value for one in tensor.external_data}
            assert entry["location"] == "weights.fp32.bin"
            assert int(entry["offset"]) % PAGE_BYTES == 0
            places[int(entry["offset"])] = int(entry["length"])
            shared.setdefault(int(entry["offset"]), set()).add(file.name.split(".")[0])
    blocks = [files for place, files in shared.items() if places[place] == 4 * WIDE * WIDE]
    assert len(blocks) == 3
    for users in blocks:
        assert {"plain", "routed"} < users
        assert any(name.startswith("stage") for name in users)
    content = (written / "weights.fp32.bin").read_bytes()
    pieces = [content[place : place + length] for place, length in places.items()]
    assert len(set(pieces)) == len(pieces)
    assert sum(map(len, pieces)) <= len(content) <= sum(map(len, pieces)) + PAGE_BYTES * len(pieces)


def test_the_files_can_be_moved_together(written, tmp_path):
    moved = written.rename(tmp_path / "moved")
    for file in moved.glob("*.onnx"):
        ort.InferenceSession(str(file), providers=["CPUExecutionProvider"])


def test_what_is_written_is_what_it_was(tmp_path):
    model = wide()
    before = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
    write_models({"model.onnx": model}, tmp_path, "w.bin")
    after = {
        one.name: numpy_helper.to_array(one, str(tmp_path))
        for one in onnx.load(tmp_path / "model.onnx", load_external_data=False).graph.initializer
    }
    assert before.keys() == after.keys()
    for name, values in before.items():
        np.testing.assert_array_equal(values, after[name])


def test_preparing_leaves_the_graph_as_it_was():
    model = wide()
    before = model.SerializeToString()
    prepare(model)
    assert model.SerializeToString() == before
