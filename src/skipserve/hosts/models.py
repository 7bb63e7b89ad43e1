"""The models that one process serves, each with its queue."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from skipserve.artifacts.archive import Unpacked
from skipserve.artifacts.manifest import Manifest
from skipserve.errors import InputError
from skipserve.protocols.messages import RawRequest, Reply, most_bytes
from skipserve.protocols.oip_replies import VERSION
from skipserve.service.batcher import Batcher, DeferredWork, QueueLimits, Watch
from skipserve.service.opening import open_service
from skipserve.service.turns import Turns


class Answers(Protocol):
    """Answers requests to a model, here or elsewhere."""

    async def answer(self, request: RawRequest) -> Reply:
        """Answer one request; errors are replies, too."""
        ...

    def turn_away(self, request: RawRequest, error: InputError) -> Reply:
        """Refuse a request without reading its rows, and count it."""
        ...


@dataclass(frozen=True)
class Model:
    """One open model.

    Attributes:
        manifest: Of its artifact.
        batcher: Answers requests.
        max_rows: Most rows in one request.
        version: As clients name it.
    """

    manifest: Manifest
    batcher: Answers
    max_rows: int
    version: str = VERSION

    @property
    def name(self) -> str:
        """Of the model, as clients name it; its manifest's is that of its metrics and logs."""
        return self.manifest.model

    @cached_property
    def most_bytes(self) -> int:
        """Length that the body of a request may have, whatever is in it."""
        return most_bytes(self.max_rows, self.manifest.signature, self.manifest.preprocessing)

    @property
    def is_default(self) -> bool:
        """Whether it answers where no version is asked for."""
        return self.name == self.manifest.name


class Models(Mapping[str, Model]):
    """Open models by name, or ``NAME@VERSION`` beside another; made where their event loop runs.

    Args:
        unpacked: To open; each is warmed up.
        watch: For each model, who is told of its batches, of which one runs at a time.

    Raises:
        ArtifactError: If the files of one cannot be loaded.
        LaunchError: If CUDA was asked for and is not there.
    """

    def __init__(
        self,
        unpacked: Sequence[Unpacked],
        watch: Callable[[Unpacked], Watch],
    ) -> None:
        self._turns = Turns(asyncio.get_running_loop())
        self._models = {one.name: self._open(one, watch(one)) for one in unpacked}

    def __getitem__(self, name: str) -> Model:
        return self._models[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._models)

    def __len__(self) -> int:
        return len(self._models)

    def close(self) -> None:
        """End the threads that batches run in."""
        self._turns.close()

    def _open(self, one: Unpacked, watch: Watch) -> Model:
        serving, later = one.serving, DeferredWork()
        service = open_service(one.artifact, serving, later, one.version)
        limits = QueueLimits(
            serving.batch_size,
            serving.queue_size,
            serving.response_timeout_s,
            serving.max_batch_delay_ms / 1e3,
            serving.join_ms / 1e3,
        )
        batcher = Batcher(service, limits, self._turns, later, watch)
        return Model(one.artifact.manifest, batcher, serving.max_rows, one.version)
