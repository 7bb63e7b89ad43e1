"""Backends: what runs a model file. Five lines of interface, so that one more is easy."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

from numpy.typing import NDArray

from skipserve.cores import usable_cores
from skipserve.errors import ArtifactError, LaunchError

Provider = Literal["cpu", "cuda"]
Arrays = dict[str, NDArray[Any]]
# ONNX Runtime plans a convolution anew whenever the batch size changes, and by default lets cuDNN
# try out its algorithms then. HEURISTIC plans in a tenth of the time and runs as fast; DEFAULT
# plans faster still, but runs a quarter slower ever after (docs/gpu.md). TF32 keeps 11 bits: not
# what a file named FP32 promises.
CUDA_OPTIONS = {"cudnn_conv_algo_search": "HEURISTIC", "use_tf32": "0"}


class Backend(Protocol):
    """An open model file."""

    provider: Provider

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> Arrays:
        """Named inputs to named outputs; the batch is the first dimension of each."""
        ...


class OnnxRuntime:
    """An ONNX file in an ONNX Runtime session.

    Args:
        file: The model.
        provider: ``cuda`` fails if ONNX Runtime cannot use it; see :func:`pick_provider`.
        threads: Cores used inside one operation; 0 takes all.

    Raises:
        ArtifactError: If the file is not a model that ONNX Runtime can load.
    """

    def __init__(self, file: Path, provider: Provider = "cpu", threads: int = 1) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = threads or usable_cores()
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        providers: list[Any] = ["CPUExecutionProvider"]
        if provider == "cuda":
            # CUDA lies in pip's packages, where the system's loader does not look.
            ort.preload_dlls()
            providers.insert(0, ("CUDAExecutionProvider", CUDA_OPTIONS))
        try:
            self._session = ort.InferenceSession(str(file), options, providers=providers)
        except Exception as error:  # ONNX Runtime raises classes of its own for each cause
            raise ArtifactError(f"{file} cannot be loaded by ONNX Runtime: {error}") from None
        self.provider: Provider = (
            "cuda" if self._session.get_providers()[0] == "CUDAExecutionProvider" else "cpu"
        )
        self._outputs = [output.name for output in self._session.get_outputs()]

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> Arrays:
        return dict(zip(self._outputs, self._session.run(self._outputs, feeds), strict=True))


class TorchScript:
    """A TorchScript file; its inputs and outputs are named by position.

    Opening one on CUDA turns TF32 off for the whole process.
    """

    def __init__(
        self,
        file: Path,
        outputs: tuple[str, ...],
        provider: Provider = "cpu",
        threads: int = 1,
    ) -> None:
        import torch

        torch.set_num_threads(threads or usable_cores())
        if provider == "cuda":
            torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
        self._device = torch.device(provider)
        try:
            self._module = torch.jit.load(file, map_location=self._device)  # type: ignore[no-untyped-call]
        except RuntimeError as error:
            raise ArtifactError(f"{file} cannot be loaded as TorchScript: {error}") from None
        self.provider = provider
        self._outputs = outputs

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> Arrays:
        import torch

        with torch.inference_mode():
            tensors = [
                torch.from_numpy(_writable(feed)).to(self._device) for feed in feeds.values()
            ]
            results = self._module(*tensors)
        if isinstance(results, torch.Tensor):
            results = (results,)
        return dict(zip(self._outputs, (r.cpu().numpy() for r in results), strict=True))


def _writable(array: NDArray[Any]) -> NDArray[Any]:
    # A view of a request's bytes is read-only; torch warns, for it could not keep it so.
    return array if array.flags.writeable else array.copy()


def open_backend(
    file: Path, outputs: tuple[str, ...], provider: Provider = "cpu", threads: int = 1
) -> Backend:
    """Open a model file with the backend its suffix asks for: ``.onnx`` or ``.pt``."""
    if file.suffix == ".onnx":
        return OnnxRuntime(file, provider, threads)
    if file.suffix == ".pt":
        return TorchScript(file, outputs, provider, threads)
    raise ArtifactError(f"{file}: no backend runs {file.suffix!r} files, only .onnx and .pt")


def pick_provider(backend: str, asked: Literal["auto", "cpu", "cuda"]) -> Provider:
    """The provider that will really be used; ``auto`` takes CUDA where there is one.

    Raises:
        LaunchError: If ``cuda`` was asked for and is not there.
    """
    if asked == "cpu":
        return "cpu"
    available = _onnxruntime_has_cuda() if backend == "onnxruntime" else _torch_has_cuda()
    if available:
        return "cuda"
    if asked == "cuda":
        raise LaunchError(
            f"provider = 'cuda' was asked for, but {backend} finds no usable CUDA device; "
            "install onnxruntime-gpu in place of onnxruntime and check the driver, "
            "or set provider = 'auto'"
        )
    return "cpu"


def _onnxruntime_has_cuda() -> bool:
    if not has_gpu():
        return False
    import onnxruntime as ort

    return "CUDAExecutionProvider" in ort.get_available_providers()


def _torch_has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def has_gpu() -> bool:
    """Whether the machine shows an NVIDIA device, whatever the packages make of it."""
    return Path("/dev/nvidia0").exists() or Path("/proc/driver/nvidia/version").exists()
