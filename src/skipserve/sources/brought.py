"""Brought networks as sources: an ONNX file, a folder or a torch module, and rows."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from skipserve.artifacts.manifest import Source
from skipserve.artifacts.origin import Origin
from skipserve.artifacts.parity import Expected, parts_of
from skipserve.errors import ConfigError, CutError
from skipserve.graph.known import known_counts
from skipserve.graph.memory import open_model
from skipserve.graph.precision import largest_activation
from skipserve.graph.prepare import prepare, read_graph
from skipserve.preprocessing.opening import preprocessor_of
from skipserve.routing.network import network_of
from skipserve.signature import BATCH, DTYPES, Signature, TensorSpec
from skipserve.sources.answering import as_answer, check_answers
from skipserve.sources.columns import read_columns
from skipserve.sources.config import Brought, DataConfig
from skipserve.sources.graph_files import sha256_of_graph
from skipserve.sources.matching import match
from skipserve.sources.picture_files import sent
from skipserve.sources.queries import with_queries
from skipserve.sources.read import ReadSource
from skipserve.sources.splits import Labelled, Splits, split_rows
from skipserve.sources.values import Values
from skipserve.tasks import Classify, MultiLabel, Regress, Task

PARITY_ROWS = 128
# Fewer rows leave too few to certify anything on, to fit a head to, and to do the rest with.
FEWEST_ROWS, FEWEST_TO_FIT, FEWEST_OF_A_SPLIT = 200, 50, 10


def brought_origin(brought: Brought, root: Path) -> tuple[Origin, Splits]:
    """The origin of an artifact from a brought network, and its rows.

    Raises:
        CutError: If the graph cannot be read, cut, or run on the rows.
        ConfigError: If the rows do not fit it.
    """
    read = _read(brought, root)
    signature = _known(signature_of(read.model), read)
    splits = _split(brought, signature, root, read)
    model, task = as_answer(read.model, splits.fit.rows, brought.task.named(read.names))
    if read.source.kind == "hugging_face":
        task = _named_as_there(task)
    plain = prepare(model)
    name = model.graph.output[0].name
    answer = TensorSpec(name=name, dtype="float32", shape=(BATCH, task.width))
    signature = signature.model_copy(update={"outputs": (answer,)})
    tried = slice(PARITY_ROWS)
    rows, values = splits.test.rows[tried], splits.test.values
    session = open_model(model, arena=False)
    parts = [session.run([name], part.tensors)[0] for part in parts_of(rows)]
    answers = np.concatenate(parts).astype(np.float64)
    if splits.test.labels is not None:
        task.truth(splits.test.labels, len(splits.test), "the network")
    check_answers(task, answers)
    expected = Expected(rows, answers, task, largest_activation(plain, rows))
    network = network_of(plain, signature, task)
    return Origin(
        read.source,
        network,
        expected,
        prepared=read.prepared,
        values=() if values is None else tuple(map(sent, values[tried])),
        notes=read.notes,
        query=brought.data.query,
        columns=brought.data.values,
    ), splits


def _named_as_there(task: Task) -> Task:
    """Name classes as transformers does where they have no names."""
    numbered = tuple(f"LABEL_{i}" for i in range(task.width))
    if isinstance(task, Classify | MultiLabel) and not task.names:
        return task.model_copy(update={"names": numbered})
    if isinstance(task, Regress) and task.names == numbered:
        return task.model_copy(update={"names": ()})
    return task


def brought_rows(brought: Brought, root: Path) -> Splits:
    """The rows of a brought network, split."""
    return read_brought(brought, root)[1]


def read_brought(brought: Brought, root: Path) -> tuple[ReadSource, Splits]:
    """A brought network as it was read, and its rows, split."""
    read = _read(brought, root)
    return read, _split(brought, _known(signature_of(read.model), read), root, read)


def _read(brought: Brought, root: Path) -> ReadSource:
    """Read a brought network; class names of the build file come before those of the source."""
    read = _opened(brought, root)
    return replace(read, names=brought.task.names) if brought.task.names else read


def _opened(brought: Brought, root: Path) -> ReadSource:
    source = brought.source
    tuned = None if brought.tuned is None else root / brought.tuned
    if source.onnx is not None:
        file = root / source.onnx
        model = read_graph(file)
        return ReadSource(model, Source(kind="onnx", name=file.name, sha256=sha256_of_graph(file)))
    if source.folder is not None:
        from skipserve.sources.hugging_face.reading import read_folder

        return read_folder(root / source.folder, source.exporters, tuned)
    from skipserve.sources.module import read_module

    assert source.module is not None
    model, described, module = read_module(source.module, root, tuned)
    return ReadSource(model, described, module=module)


def _known(signature: Signature, read: ReadSource) -> Signature:
    """Add known bounds of integers and sizes to a signature."""
    counts = known_counts(read.model)
    inputs = tuple(
        spec.model_copy(update={"count": counts.get(spec.name)}) for spec in signature.inputs
    )
    return signature.model_copy(update={"inputs": inputs, "largest": dict(read.limits)})


def signature_of(model: onnx.ModelProto) -> Signature:
    """The signature of a graph as its file declares it.

    Raises:
        CutError: If an input or the first output has no batch dimension, or a fixed one, or is of
            a dtype that is not supported.
    """
    constants = {one.name for one in model.graph.initializer}
    inputs = tuple(_spec(one) for one in model.graph.input if one.name not in constants)
    if not inputs:
        raise CutError("the graph has no input")
    masks = [one.name for one in inputs if _is_mask(one)]
    return Signature(
        inputs=inputs,
        outputs=(_spec(model.graph.output[0], output=True),),
        mask=masks[0] if masks else None,
    )


def _spec(value: onnx.ValueInfoProto, output: bool = False) -> TensorSpec:
    kind = value.type.tensor_type
    name = helper.tensor_dtype_to_np_dtype(kind.elem_type).name if kind.elem_type else "?"
    if name not in DTYPES:
        raise CutError(
            f"{value.name!r} is of dtype {TensorProto.DataType.Name(kind.elem_type).lower()}; "
            f"expected one of {', '.join(DTYPES)}"
        )
    sizes: list[int | str] = [
        one.dim_param or one.dim_value or f"{value.name}_{axis}"
        for axis, one in enumerate(kind.shape.dim)
    ]
    if not output:
        if not sizes or isinstance(sizes[0], int):
            fixed = f"is fixed at {sizes[0]}" if sizes else "is missing"
            raise CutError(
                f"the batch dimension of {value.name!r} {fixed}; export the network with its first "
                "dimension free (dynamic_shapes or dynamic_axes)"
            )
        sizes[0] = BATCH
    return TensorSpec(name=value.name, dtype=name, shape=tuple(sizes))


def _is_mask(spec: TensorSpec) -> bool:
    return "mask" in spec.name.lower() and len(spec.shape) == 2 and spec.dtype[:3] in ("int", "boo")


def _split(brought: Brought, signature: Signature, root: Path, source: ReadSource) -> Splits:
    data, prepared = brought.data, source.prepared
    values = None
    if prepared is not None:
        with tempfile.TemporaryDirectory(prefix="skipserve.") as folder:
            for name, content in prepared.files.items():
                (Path(folder) / name).write_bytes(content)
            values = Values.of(
                preprocessor_of(prepared.config, Path(folder)),
                data.values,
                source.names,
            )
    elif data.values:
        raise ConfigError(
            f"[data] names {data.values[0]!r}, but the network takes tensors alone; bring it as a "
            "Hugging Face folder with its tokenizer or processor"
        )

    def read(name: str, labels: str | None) -> Labelled:
        columns = read_columns(root / name)
        found = match(columns, signature, data.columns, labels, name, values, data.query)
        return with_queries(found, brought.task, columns, data.query, name)

    rows = read(data.rows, data.labels)
    beside = read(data.fit, None) if data.fit is not None else None
    splits = split_rows(rows, signature, beside, data.seed)
    _require_enough(splits, len(rows), data)
    return splits


def _require_enough(splits: Splits, rows: int, data: DataConfig) -> None:
    """Refuse splits of too few rows.

    Raises:
        ConfigError: Saying where the rows went.
    """
    others = (splits.propose, splits.certify, splits.test)
    left, known = rows, ""
    if data.fit is not None:
        left = sum(map(len, others))
        if left < rows:
            known = f", of which {rows - left} are left out because they are in {data.fit}"
    if left < FEWEST_ROWS:
        raise ConfigError(
            f"{data.rows} holds {rows} rows{known}; it takes at least {FEWEST_ROWS} to fit a "
            "router, and thousands to certify it"
        )
    if len(splits.fit) < FEWEST_TO_FIT:
        where = data.rows if data.fit is None else data.fit
        raise ConfigError(
            f"{where} has {len(splits.fit)} rows to fit exits to; it takes at least "
            f"{FEWEST_TO_FIT}, and they must differ"
        )
    for doing, split in zip(("propose thresholds", "certify", "test"), others, strict=True):
        if len(split) < FEWEST_OF_A_SPLIT:
            raise ConfigError(
                f"{data.rows} has {len(split)} rows to {doing} on; it takes at least "
                f"{FEWEST_OF_A_SPLIT}: equal rows, and all rows of a query, stand in one part; "
                "bring more rows or queries that differ"
            )
