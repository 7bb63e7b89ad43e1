"""The servers of the race: the peers, each with files of its own, and skipserve."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
# Settings may differ between a few connections and many, for skipserve as for everybody.
FEW = 4


@dataclass(frozen=True)
class Settings:
    """What a contender is started with.

    Attributes:
        batch_size: Most requests in a batch; 1 is no batching.
        workers: Processes (or instances) that hold the model.
        threads: Of ONNX Runtime in each.
    """

    batch_size: int = 1
    workers: int = 1
    threads: int = 1

    def __str__(self) -> str:
        batching = f"batch {self.batch_size}" if self.batch_size > 1 else "no batching"
        return f"{batching}, {self.workers} × {self.threads}"


def load_of(connections: int) -> str:
    """Which of a contender's two settings serves this many connections."""
    return "few" if connections <= FEW else "many"


def native(row: Any) -> object:
    return {"inputs": [row]}


def kserve_v1(row: Any) -> object:
    return {"instances": [row]}


def open_inference(row: list[float]) -> object:
    tensor = {"name": "inputs", "shape": [1, len(row)], "datatype": "FP32", "data": row}
    return {"inputs": [tensor]}


def label_of(reply: Any, names: Sequence[str] = ()) -> int:
    """The label in any contender's reply to one row; ``names`` of a model that has some."""
    answers = reply if isinstance(reply, list) else reply.get("outputs", reply.get("predictions"))
    if "label" in answers[0]:
        label = answers[0]["label"]
        return names.index(label) if isinstance(label, str) else int(label)
    probabilities = answers[0]["data"]
    return int(max(range(len(probabilities)), key=probabilities.__getitem__))


@dataclass(frozen=True)
class Peer:
    """A server we are compared with; its files are in servers/NAME.

    Attributes:
        name: Of its folder.
        title: In the table.
        batches: Whether it can batch requests.
        path: Where it answers; ``{model}`` is the model's name.
        body: What it wants to be sent for a row.
        polls: Whether it keeps a core busy when nobody asks; it is frozen while others are driven.
    """

    name: str
    title: str
    batches: bool
    path: str = "/predict"
    body: Callable[[Any], object] = native
    polls: bool = False

    @property
    def folder(self) -> Path:
        return HERE / "servers" / self.name

    @property
    def versions(self) -> list[str]:
        return (self.folder / "requirements.txt").read_text().split()


OURS = "skipserve"
# Those that stand side by side in one group are near each other here; Ray, which polls, is last.
PEERS = {
    peer.name: peer
    for peer in (
        Peer("fastapi", "FastAPI, async", batches=False),
        Peer("mosec", "mosec", batches=True, path="/inference"),
        Peer("litserve", "LitServe", batches=True, polls=True),
        Peer("bentoml", "BentoML", batches=True),
        Peer("mlserver", "MLServer", True, "/v2/models/{model}/infer", open_inference),
        Peer("kserve", "KServe's Python server", False, "/v1/models/{model}:predict", kserve_v1),
        Peer("torchserve", "TorchServe, stock handler", True, "/predictions/{model}"),
        Peer("triton", "Triton (pytriton)", True, "/v2/models/{model}/infer", open_inference),
        Peer("ray", "Ray Serve", batches=True, polls=True),
    )
}
