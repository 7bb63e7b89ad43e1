"""Sessions of graphs in memory, also for graphs beyond the size limit of protobuf."""

from __future__ import annotations

import tempfile
from pathlib import Path

import onnx
import onnxruntime as ort

from skipserve.cores import usable_cores

# Limit of weights inside the protobuf message, which ends at 2 GiB.
INLINE_BYTES = 1 << 30


def open_model(
    model: onnx.ModelProto,
    level: ort.GraphOptimizationLevel = ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
    threads: int = 1,
    arena: bool = True,
) -> ort.InferenceSession:
    """Open a graph in memory on the CPU.

    Args:
        model: The graph.
        level: Of optimisation.
        threads: Cores used inside one operation; 0 takes all.
        arena: Whether it keeps the memory of its largest run, as a session that serves does. Many
            sessions side by side would keep as many times that.
    """
    options = ort.SessionOptions()
    options.graph_optimization_level = level
    options.intra_op_num_threads = threads or usable_cores()
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.enable_cpu_mem_arena = arena
    # Threads spin only in serving; fitting and probing share the machine.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    providers = ["CPUExecutionProvider"]
    if sum(len(tensor.raw_data) for tensor in model.graph.initializer) < INLINE_BYTES:
        return ort.InferenceSession(model.SerializeToString(), options, providers=providers)
    with tempfile.TemporaryDirectory(prefix="skipserve.") as folder:
        file = Path(folder) / "model.onnx"
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        onnx.save(copy, file, save_as_external_data=True, location="model.bin")
        return ort.InferenceSession(str(file), options, providers=providers)
