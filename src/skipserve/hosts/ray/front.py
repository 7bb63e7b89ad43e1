"""What Ray's proxies hand requests to: every route of the service, its models elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from ray.serve.handle import DeploymentHandle

from skipserve.hosts.application import Application
from skipserve.hosts.asgi import Asgi
from skipserve.hosts.models import Model
from skipserve.hosts.ray.config import RayConfig
from skipserve.hosts.ray.health import ClusterHealth
from skipserve.hosts.ray.remote import Remote
from skipserve.telemetry.logs import Log


class Front:
    """Knows the models by what their replicas say, and opens none.

    Args:
        config: Of the application.
        handles: Of the models' deployments, by name.
    """

    async def __init__(  # type: ignore[misc]  # Ray calls only coroutines in the loop
        self, config: RayConfig, handles: Mapping[str, DeploymentHandle[Any]]
    ) -> None:
        Log().attach()
        models = {}
        for name, handle in handles.items():
            manifest, max_rows, version = await handle.about.remote()
            models[name] = Model(manifest, Remote(handle), max_rows, version)
        self._health = ClusterHealth(handles)
        self._looking = asyncio.create_task(self._health.watch())
        self._application = Application(models, self._health.is_healthy, config.origins)

    def __serve_build_asgi_app__(self) -> Asgi:
        """What Ray calls requests with."""
        # Ray's proxies give replies their X-Request-ID.
        return Asgi(lambda: self._application, self._close, names=False)

    def _close(self) -> None:
        self._looking.cancel()
