"""The files of an ONNX graph: weights may stand beside it."""

from __future__ import annotations

import hashlib
from pathlib import Path

from onnx import TensorProto

from skipserve.errors import CutError
from skipserve.files import sha256_of
from skipserve.graph.prepare import read_structure
from skipserve.graph.weights import all_tensors


def graph_files(file: Path) -> list[Path]:
    """An ONNX file, and the files in its folder that hold weights of it, by name.

    A file that is missing or no graph is returned alone: whoever reads it says what is wrong.
    """
    try:
        tensors = all_tensors(read_structure(file).graph)
    except CutError:
        return [file]
    names = {
        entry.value
        for tensor in tensors
        if tensor.data_location == TensorProto.EXTERNAL
        for entry in tensor.external_data
        if entry.key == "location"
    }
    folder = file.parent.resolve()
    beside = (file.parent / name for name in sorted(names))
    return [file, *(one for one in beside if one.resolve().is_relative_to(folder))]


def sha256_of_graph(file: Path) -> str:
    """SHA-256 of an ONNX file; with weights beside it, of the names and hashes of all of them."""
    files = graph_files(file)
    if len(files) == 1:
        return sha256_of(file)
    digest = hashlib.sha256()
    for one in files:
        digest.update(f"{one.relative_to(file.parent)} {sha256_of(one)}\n".encode())
    return digest.hexdigest()
