"""Backends: model files opened on a provider."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skipserve.artifacts.asked import LIBRARIES, AskedProvider, BackendName, Provider
from skipserve.cores import usable_cores
from skipserve.errors import ArtifactError, LaunchError
from skipserve.extras import require
from skipserve.runtime.pieces import OnnxPiece, Padded
from skipserve.runtime.rows import Rows
from skipserve.runtime.stepper import Piece
from skipserve.runtime.wave import Limits, RowResults

# ONNX Runtime plans a convolution anew whenever the batch size changes, and by default lets cuDNN
# try out its algorithms then. HEURISTIC plans in a tenth of the time and runs as fast; DEFAULT
# plans faster still, but runs a quarter slower ever after (docs/gpu.md). TF32 keeps 11 bits: not
# what a file named FP32 promises.
CUDA_OPTIONS = {"cudnn_conv_algo_search": "HEURISTIC", "use_tf32": "0"}


def open_onnx(file: Path, provider: Provider = "cpu", threads: int = 1) -> tuple[Piece, Provider]:
    """Open an ONNX file in ONNX Runtime.

    Args:
        file: The model.
        provider: ``cuda`` fails if ONNX Runtime cannot use it; see :func:`pick_provider`.
        threads: Cores used inside one operation; 0 takes all.

    Returns:
        The open graph, and where it really runs.

    Raises:
        ArtifactError: If the file is not a model that ONNX Runtime can load.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads or usable_cores()
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    providers: list[Any] = ["CPUExecutionProvider"]
    if provider == "cpu":
        _share_arena()
        options.add_session_config_entry("session.use_env_allocators", "1")
    else:
        # CUDA lies in pip's packages, where the system's loader does not look.
        ort.preload_dlls()
        providers.insert(0, ("CUDAExecutionProvider", CUDA_OPTIONS))
    try:
        session = ort.InferenceSession(str(file), options, providers=providers)
    except Exception as error:  # ONNX Runtime raises its own exception types
        raise ArtifactError(f"{file} cannot be loaded by ONNX Runtime: {error}") from None
    piece = OnnxPiece(session)
    if session.get_providers()[0] == "CUDAExecutionProvider":
        return Padded(piece), "cuda"
    return piece, "cpu"


_lock = threading.Lock()
_shared: list[object] = []


def _share_arena() -> None:
    """Register one shared memory arena for the sessions of this process.

    Each stage of a network is a session. With arenas of their own they kept together several
    times what the whole network does, for only one of them runs at a time.
    """
    import onnxruntime as ort

    with _lock:
        if not _shared:
            arena, usual = ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, ort.OrtMemType.DEFAULT
            _shared.append(ort.OrtMemoryInfo("Cpu", arena, 0, usual))
            ort.create_and_register_allocator(_shared[0], None)


class TorchScript:
    """A TorchScript file: a network with its router inside, or without one.

    Opening one on CUDA turns TF32 off for the whole process.

    Args:
        file: The model.
        decisions: Thresholds a row has; 0 without a router.
        depth: Blocks of the network.
        provider: Where it runs.
        threads: Cores used inside one operation; 0 takes all.

    Raises:
        ArtifactError: If the file cannot be loaded.
    """

    def __init__(
        self, file: Path, decisions: int, depth: int, provider: Provider = "cpu", threads: int = 1
    ) -> None:
        import torch

        torch.set_num_threads(threads or usable_cores())
        if provider == "cuda":
            torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
        self._device = torch.device(provider)
        try:
            self._module = torch.jit.load(file, map_location=self._device)  # type: ignore[no-untyped-call]
        except (RuntimeError, ValueError) as error:
            raise ArtifactError(f"{file} cannot be loaded as TorchScript: {error}") from None
        self.provider: Provider = provider
        self.steps = None  # it decides inside
        self._decisions = decisions
        self._depth = depth

    def full(self, rows: Rows) -> NDArray[np.float32]:
        """Answers at full depth [B, width]."""
        infinite = np.full((len(rows), self._decisions), np.inf, np.float32)
        return self.run(rows, Limits(infinite, np.full(len(rows), np.inf, np.float32))).answers

    def run(self, rows: Rows, limits: Limits) -> RowResults:
        """Run each row as deep as its limits ask."""
        feeds = [*rows.tensors.values()]
        if self._decisions:
            feeds += [limits.thresholds, limits.guard]
        import torch

        with torch.inference_mode():
            tensors = [torch.from_numpy(_writable(feed)).to(self._device) for feed in feeds]
            made = self._module(*tensors)
        made = (made,) if isinstance(made, torch.Tensor) else made
        answers, *rest = (one.cpu().numpy() for one in made)
        if not rest:
            depth, held = np.full(len(rows), self._depth), np.zeros(len(rows), dtype=bool)
            return RowResults(answers, depth, held, np.empty((len(rows), 0), np.float32))
        depth, held, signals, *others = rest
        return RowResults(answers, depth, held, signals, others[0] if others else None)


def _writable(array: NDArray[Any]) -> NDArray[Any]:
    # A view of a request's bytes is read-only; torch warns, for it could not keep it so.
    return array if array.flags.writeable else array.copy()


def pick_provider(backend: BackendName, asked: AskedProvider) -> Provider:
    """The provider that will be used; ``auto`` takes CUDA where there is a device.

    Raises:
        LaunchError: If the backend is not installed, or ``cuda`` was asked for and is not there.
    """
    require(LIBRARIES[backend])
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
    """Whether the machine has an NVIDIA device, usable or not."""
    return Path("/dev/nvidia0").exists() or Path("/proc/driver/nvidia/version").exists()
