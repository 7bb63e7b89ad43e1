"""Reading an ONNX file safely, and preparing the graph for cutting."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path

import onnx
import onnxruntime as ort
from onnx import TensorProto, checker, helper, version_converter

from skipserve.errors import CutError
from skipserve.graph.weights import all_tensors

# Opset of the router's nodes; older files are converted to it.
OPSET = 18
IR_VERSION = 10
# Dtypes whose numbers fill whole bytes.
WHOLE_BYTES = frozenset(
    {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.INT64}
    | {TensorProto.INT32, TensorProto.INT8, TensorProto.UINT8, TensorProto.BOOL}
)
# Operator domains that ONNX Runtime runs without custom libraries.
KNOWN_DOMAINS = frozenset({"", "ai.onnx", "com.microsoft"})


def read_structure(file: Path) -> onnx.ModelProto:
    """Read an ONNX file without the weights that lie beside it.

    Raises:
        CutError: If it cannot be read, is damaged or holds nothing.
    """
    if not file.is_file():
        raise CutError(f"{file} is not there; name an .onnx file")
    try:
        model = onnx.load(file, load_external_data=False)
    except Exception as error:  # protobuf raises its own exception types
        raise CutError(f"{file} is not an ONNX file or is cut short: {error}") from None
    if not model.graph.node:
        raise CutError(f"{file} is not an ONNX file: it holds no graph")
    return model


def read_graph(file: Path) -> onnx.ModelProto:
    """Read an ONNX file with its weights. Nothing in it is executed.

    Raises:
        CutError: If it cannot be read, is damaged, asks for weights outside its folder, is older
            than can be converted, or needs operators that ONNX Runtime does not have.
    """
    model = read_structure(file)
    _load_weights(model, file)
    foreign = sorted({node.domain for node in model.graph.node} - KNOWN_DOMAINS - _local(model))
    if foreign:
        raise CutError(
            f"{file} needs operators of {', '.join(foreign)}, which ONNX Runtime does not have; "
            "export the network with standard operators"
        )
    opset = next((one.version for one in model.opset_import if one.domain in ("", "ai.onnx")), 0)
    if opset < OPSET:
        try:
            model = version_converter.convert_version(model, OPSET)
        except Exception as error:  # a converter in C++ with its own exception types
            raise CutError(
                f"{file} is written in opset {opset} and cannot be converted to {OPSET}: "
                f"{_first_line(error)}; export it again with opset {OPSET} or newer"
            ) from None
    return model


def _load_weights(model: onnx.ModelProto, file: Path) -> None:
    folder = file.resolve().parent
    for tensor in all_tensors(model.graph):
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        where = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
        place = folder / where
        if Path(where).is_absolute() or not place.resolve().is_relative_to(folder):
            raise CutError(
                f"{file}: the weights of {tensor.name!r} lie at {where!r}, outside its folder; "
                "they are not read from there"
            )
        if not place.is_file():
            raise CutError(f"{file}: its weights file {where!r} is missing; copy it beside it")
    try:
        checker.check_model(str(file))  # by its name: a message ends at 2 GB
        onnx.load_external_data_for_model(model, str(folder))
    except Exception as error:
        raise CutError(f"{file} is damaged: {_first_line(error)}") from None
    for tensor in all_tensors(model.graph):
        if not tensor.raw_data or tensor.data_type not in WHOLE_BYTES:
            continue
        size = helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
        if len(tensor.raw_data) != math.prod(tensor.dims) * size:
            raise CutError(f"{file} is damaged: the weights of {tensor.name!r} are cut short")


def _local(model: onnx.ModelProto) -> set[str]:
    return {function.domain for function in model.functions}


def prepare(model: onnx.ModelProto) -> onnx.ModelProto:
    """Apply the basic optimisations of ONNX Runtime before cutting, so that no cut prevents them.

    Raises:
        CutError: If ONNX Runtime cannot load it.
    """
    with tempfile.TemporaryDirectory(prefix="skipserve.") as folder:
        plain, better = Path(folder) / "plain.onnx", Path(folder) / "better.onnx"
        copy = onnx.ModelProto()
        copy.CopyFrom(model)  # saving takes the weights out
        onnx.save(copy, plain, save_as_external_data=True, location="plain.bin")
        del copy
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(better)
        options.log_severity_level = 3
        options.add_session_config_entry(
            "session.optimized_model_external_initializers_file_name", "better.bin"
        )
        try:
            ort.InferenceSession(str(plain), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime raises its own exception types
            raise CutError(f"ONNX Runtime cannot load the graph: {_first_line(error)}") from None
        made = onnx.load(better)
    made.ir_version = IR_VERSION
    del made.graph.value_info[:]  # it tells of tensors that are no longer there
    named = {one.domain: one.version for one in made.opset_import}
    used = {node.domain for node in made.graph.node} | {""}
    kept = [helper.make_opsetid(domain, version) for domain, version in named.items()]
    del made.opset_import[:]
    made.opset_import.extend(one for one in kept if one.domain in used)
    return made


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
