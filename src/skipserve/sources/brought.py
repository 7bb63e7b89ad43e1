"""A network that was brought as a source: an ONNX file, or a torch module, and rows for it."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from skipserve.artifacts.manifest import Source
from skipserve.artifacts.origin import Origin
from skipserve.artifacts.parity import Expected, parts_of
from skipserve.errors import ConfigError, CutError
from skipserve.files import sha256_of
from skipserve.graph.known import known_counts
from skipserve.graph.memory import open_model
from skipserve.graph.precision import largest_activation
from skipserve.graph.prepare import prepare, read_graph
from skipserve.preprocessing.opening import preprocessor_of
from skipserve.routing.network import network_of
from skipserve.runtime.rows import Rows
from skipserve.signature import BATCH, DTYPES, Signature, TensorSpec
from skipserve.sources.config import Brought
from skipserve.sources.data import Values, match, read_columns
from skipserve.sources.picture_files import sent
from skipserve.sources.read import ReadSource
from skipserve.sources.splits import Labelled, Splits, split_rows
from skipserve.tasks import Classify

ANSWER = "probabilities"
PARITY_ROWS = 128
# Answers whose rows sum to one within this are probabilities already.
SUMS_TO_ONE = 1e-3
# Fewer rows leave too few to certify anything on.
FEWEST_ROWS = 200


def brought_origin(brought: Brought, root: Path) -> tuple[Origin, Splits]:
    """What was brought as something to make an artifact from, and its rows.

    Raises:
        CutError: If the graph cannot be read, cut, or run on the rows.
        ConfigError: If the rows do not fit it.
    """
    read = _read(brought, root)
    signature = _known(signature_of(read.model), read)
    splits = _split(brought, signature, root, read)
    model, task = _as_classifier(read.model, signature, splits.fit.rows, read.names)
    if read.source.kind == "hugging_face" and not task.names:  # as transformers calls them
        names = tuple(f"LABEL_{i}" for i in range(task.classes))
        task = task.model_copy(update={"names": names})
    plain = prepare(model)
    signature = signature.model_copy(
        update={"outputs": (TensorSpec(name=ANSWER, dtype="float32", shape=(BATCH, task.classes)),)}
    )
    tried = slice(PARITY_ROWS)
    rows, values = splits.test.rows[tried], splits.test.values
    session = open_model(model, arena=False)
    parts = [session.run([ANSWER], part.tensors)[0] for part in parts_of(rows)]
    answers = np.concatenate(parts).astype(np.float64)
    _check_classes(splits, task, answers)
    expected = Expected(rows, answers, task, largest_activation(plain, rows))
    network = network_of(plain, signature, task)
    return Origin(
        read.source,
        network,
        expected,
        prepared=read.prepared,
        values=() if values is None else tuple(map(sent, values[tried])),
        notes=read.notes,
    ), splits


def brought_rows(brought: Brought, root: Path) -> Splits:
    """The rows of what was brought, split."""
    return read_brought(brought, root)[1]


def read_brought(brought: Brought, root: Path) -> tuple[ReadSource, Splits]:
    """What was brought as it was read, and its rows, split."""
    read = _read(brought, root)
    return read, _split(brought, _known(signature_of(read.model), read), root, read)


def _read(brought: Brought, root: Path) -> ReadSource:
    source = brought.source
    tuned = None if brought.tuned is None else root / brought.tuned
    if source.onnx is not None:
        file = root / source.onnx
        described = Source(kind="onnx", name=file.name, sha256=sha256_of(file))
        return ReadSource(read_graph(file), described, source.names)
    if source.folder is not None:
        from skipserve.sources.hugging_face.reading import read_folder

        read = read_folder(root / source.folder, source.exporters, tuned)
        return replace(read, names=source.names) if source.names else read
    from skipserve.sources.module import read_module

    assert source.module is not None
    model, described, module = read_module(source.module, root, tuned)
    return ReadSource(model, described, source.names, module=module)


def _known(signature: Signature, read: ReadSource) -> Signature:
    """The same with what is known of numbers and sizes: those beyond it cannot be run."""
    counts = known_counts(read.model)
    inputs = tuple(
        spec.model_copy(update={"count": counts.get(spec.name)}) for spec in signature.inputs
    )
    return signature.model_copy(update={"inputs": inputs, "largest": dict(read.limits)})


def signature_of(model: onnx.ModelProto) -> Signature:
    """The signature of a graph as it stands in its file.

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
                preprocessor_of(prepared.config, Path(folder)), data.values, source.names
            )
    elif data.values:
        raise ConfigError(
            f"[data] names {data.values[0]!r}, but the network takes tensors alone; bring it as a "
            "Hugging Face folder with its tokenizer or processor"
        )

    def read(name: str, labels: str | None) -> Labelled:
        return match(read_columns(root / name), signature, data.columns, labels, name, values)

    rows = read(data.rows, data.labels)
    if len(rows) < FEWEST_ROWS:
        raise ConfigError(
            f"{data.rows} holds {len(rows)} rows; it takes at least {FEWEST_ROWS} to fit a router, "
            "and thousands to certify it"
        )
    beside = read(data.fit, None) if data.fit is not None else None
    return split_rows(rows, beside, data.seed)


def _as_classifier(
    model: onnx.ModelProto, signature: Signature, rows: Rows, names: tuple[str, ...]
) -> tuple[onnx.ModelProto, Classify]:
    """The same graph with probabilities as its only output, and its task.

    Raises:
        CutError: If its first output is not one answer a row.
        ConfigError: If there are not as many names as classes.
    """
    output = model.graph.output[0].name
    some = rows[:32]
    try:
        answers: NDArray[Any] = open_model(model).run([output], some.tensors)[0]
    except Exception as error:  # ONNX Runtime raises classes of its own for each cause
        raise CutError(f"the graph does not run on the rows: {error}") from None
    if answers.ndim != 2 or len(answers) != len(some) or answers.shape[1] < 2:
        raise CutError(
            f"the output {output!r} has shape {list(answers.shape)} for {len(some)} rows; expected "
            "one answer a row: logits or probabilities of at least two classes"
        )
    if not np.isfinite(answers).all():
        raise CutError(f"the output {output!r} is not finite on the rows that were brought")
    if names and len(names) != answers.shape[1]:
        raise ConfigError(f"source.names has {len(names)} names for {answers.shape[1]} classes")
    sums = np.abs(answers.sum(axis=1) - 1).max()
    are_probabilities = bool(sums < SUMS_TO_ONE and answers.min() >= 0)
    made = onnx.ModelProto()
    made.CopyFrom(model)
    del made.graph.output[:]
    kind = "Identity" if are_probabilities else "Softmax"
    made.graph.node.append(
        helper.make_node("Cast", [output], [f"{ANSWER}/float"], to=TensorProto.FLOAT)
    )
    last = helper.make_node(kind, [f"{ANSWER}/float"], [ANSWER])
    if not are_probabilities:
        last.attribute.append(helper.make_attribute("axis", -1))
    made.graph.node.append(last)
    shape = [BATCH, answers.shape[1]]
    made.graph.output.append(helper.make_tensor_value_info(ANSWER, TensorProto.FLOAT, shape))
    return made, Classify(classes=answers.shape[1], names=names)


def _check_classes(splits: Splits, task: Classify, answers: NDArray[np.float64]) -> None:
    labels = splits.test.labels
    if labels is not None and not ((labels >= 0) & (labels < task.classes)).all():
        raise ConfigError(
            f"the labels run from {labels.min()} to {labels.max()}, the network knows "
            f"0 … {task.classes - 1}"
        )
    if len(np.unique(task.labels(answers))) == 1:
        raise ConfigError(
            f"the network answers all of {len(answers)} rows with one class: there is nothing to "
            "tell apart; check that the rows are scaled as in training"
        )
