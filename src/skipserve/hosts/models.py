"""The models of one process, each with its queue."""

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
from skipserve.service.arrivals import Arrivals
from skipserve.service.batcher import Batcher, QueueLimits, Watch
from skipserve.service.deferred import DeferredWork
from skipserve.service.opening import open_service
from skipserve.service.service import Service
from skipserve.service.turns import Turns


class Answers(Protocol):
    """Answers requests to a model, in this process or another."""

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
        version: The version for clients.
    """

    manifest: Manifest
    batcher: Answers
    max_rows: int
    version: str = VERSION

    @property
    def name(self) -> str:
        """The name for clients; metrics and logs use the name in the manifest."""
        return self.manifest.model

    @cached_property
    def most_bytes(self) -> int:
        """Largest body of a request, in bytes."""
        return most_bytes(self.max_rows, self.manifest.signature, self.manifest.preprocessing)

    @property
    def is_default(self) -> bool:
        """Whether it answers requests that name no version."""
        return self.name == self.manifest.name


class Models(Mapping[str, Model]):
    """Open models by key (``NAME`` or ``NAME@VERSION``); made inside their event loop.

    Args:
        unpacked: To open; each is warmed up.
        watch: Makes the watch of a model's batches, of which one runs at a time.
        arrivals: Requests to any of them.

    Raises:
        ArtifactError: If the files of one cannot be loaded.
        LaunchError: If CUDA was asked for and is not there.
    """

    def __init__(
        self,
        unpacked: Sequence[Unpacked],
        watch: Callable[[Unpacked], Watch],
        arrivals: Arrivals | None = None,
    ) -> None:
        self._turns = Turns(asyncio.get_running_loop(), arrivals)
        self._open_services: list[tuple[Service, DeferredWork]] = []
        try:
            self._models = {one.name: self._open(one, watch(one)) for one in unpacked}
        except BaseException:
            self.close()
            raise

    def __getitem__(self, name: str) -> Model:
        return self._models[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._models)

    def __len__(self) -> int:
        return len(self._models)

    def close(self) -> None:
        """End the threads of the batches, and write down what their evidence said."""
        self._turns.close()
        while self._open_services:
            service, later = self._open_services.pop()
            later.work()
            service.close()

    def _open(self, one: Unpacked, watch: Watch) -> Model:
        serving, later = one.serving, DeferredWork()
        service = open_service(one.artifact, serving, later, one.version)
        self._open_services.append((service, later))
        limits = QueueLimits(
            serving.batch_size,
            serving.queue_size,
            serving.response_timeout_s,
            serving.refuse_s,
            serving.max_batch_delay_ms / 1e3,
            serving.join_ms / 1e3,
        )
        batcher = Batcher(service, limits, self._turns, later, watch)
        return Model(one.artifact.manifest, batcher, serving.max_rows, one.version)
