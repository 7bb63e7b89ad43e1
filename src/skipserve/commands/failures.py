"""Which errors are the user's to mend, and the line that says how."""

from __future__ import annotations

from skipserve.errors import SkipserveError
from skipserve.files import machines_fault

# What an import may miss, and the extra that has it.
EXTRAS = {
    "train": (
        *("jinja2", "matplotlib", "mnist1d", "model_archiver", "onnx", "onnxscript"),
        *("pyarrow", "safetensors", "scipy", "sklearn"),
    ),
    "loadtest": ("gevent", "hdrh", "locust"),
    "otel": ("opentelemetry",),
}
RUNTIME = (
    "ONNX Runtime is not installed; run `pip install 'skipserve[cpu]'`, or `pip install "
    "'skipserve[gpu]'` on a machine with an NVIDIA GPU (one of the two, they share their files)"
)


def line_for(error: Exception) -> str | None:
    """The line for an error that was to be expected; ``None`` for a fault of ours."""
    if isinstance(error, SkipserveError):
        return str(error)
    if isinstance(error, ModuleNotFoundError) and error.name:
        return _missing(error.name.partition(".")[0])
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, OSError) and machines_fault(error):
        return error.strerror or str(error)
    return None


def _missing(module: str) -> str | None:
    if module == "onnxruntime":
        return RUNTIME
    for extra, modules in EXTRAS.items():
        if module in modules:
            return f"{module} is not installed; run `pip install 'skipserve[{extra}]'`"
    return None
