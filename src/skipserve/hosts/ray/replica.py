"""A replica of a model in Ray, with its own metrics, alarm and switch."""

from __future__ import annotations

from skipserve.artifacts.manifest import Manifest
from skipserve.artifacts.versions import archives_in
from skipserve.errors import LaunchError
from skipserve.hosts.ray.config import RayConfig
from skipserve.hosts.ray.metrics import RayMetrics
from skipserve.hosts.standalone import Standalone
from skipserve.protocols.messages import RawRequest, Reply
from skipserve.telemetry.logs import Log


class Replica:
    """Opens one archive of the shared model store.

    Args:
        config: Of the application.
        name: Of the model.

    Raises:
        ConfigError: If the folder lacks its archive, on this node.
        ArtifactError: If the archive is damaged.
        LaunchError: If CUDA was asked for and is not there.
    """

    # In the event loop that answers: Ray calls only those there that are coroutines.
    async def __init__(self, config: RayConfig, name: str) -> None:  # type: ignore[misc]
        Log().attach()
        archives = archives_in(config.model_store, (name,))
        self._standalone = Standalone(archives, RayMetrics().publish)
        self._model = self._standalone.open()[name]

    async def about(self) -> tuple[Manifest, int, str]:
        """Manifest, most rows in a request, and version."""
        return self._model.manifest, self._model.max_rows, self._model.version

    async def answer(self, request: RawRequest) -> Reply:
        """Answer one request; errors are replies, too."""
        return await self._model.batcher.answer(request)

    async def check_health(self) -> None:
        """The health check of Ray; it runs in the event loop of the model, so a hung loop fails it.

        Raises:
            LaunchError: If a batch hangs; Ray ends the replica after three of these.
        """
        if hanging := self._standalone.hanging():
            raise LaunchError(hanging)

    async def __del__(self) -> None:
        """What Ray calls when the replica shall end, its requests answered."""
        self._standalone.close()
