"""Health of the cluster: a replica of every model answers, and so does the head of Ray."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import ray
from ray.serve.handle import DeploymentHandle

LOOK_S = 1.0
# Longer than one batch takes; shorter than the timeout of a probe.
PATIENCE_S = 5.0

logger = logging.getLogger(__name__)


class ClusterHealth:
    """Checks the cluster once a second.

    Args:
        handles: Of the models' deployments, by name.
    """

    def __init__(self, handles: Mapping[str, DeploymentHandle[Any]]) -> None:
        self._handles = handles
        self._said = ""

    def is_healthy(self) -> bool:
        """Whether every model answers and the head can restart what fails."""
        return not self._said

    async def watch(self) -> None:
        """Check until cancelled."""
        while True:
            problem = await self._problem()
            if problem != self._said:
                logger.warning("%s", f"not ready: {problem}" if problem else "ready again")
                self._said = problem
            await asyncio.sleep(LOOK_S)

    async def _problem(self) -> str:
        found = await asyncio.gather(
            self._head(), *(self._model(name) for name in self._handles), return_exceptions=True
        )
        return next((str(one) for one in found if one), "")

    async def _head(self) -> str:
        address: str = ray.get_runtime_context().gcs_address
        host, _, port = address.rpartition(":")
        try:
            connecting = asyncio.open_connection(host.strip("[]"), int(port))
            _, writer = await asyncio.wait_for(connecting, PATIENCE_S)
        except (OSError, asyncio.TimeoutError):
            return (
                f"Ray's head at {address} is gone: what dies is not started again, and the nodes "
                "will end; start a head again and deploy again, or give Ray a Redis to come back by"
            )
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
        return ""

    async def _model(self, name: str) -> str:
        try:
            await asyncio.wait_for(self._asked(name), PATIENCE_S)
        except asyncio.TimeoutError:
            return f"{name} answers nothing for {PATIENCE_S:g} s"
        except Exception as error:  # of Ray, or of the replica
            return f"{name} does not answer ({type(error).__name__})"
        return ""

    async def _asked(self, name: str) -> None:
        await self._handles[name].check_health.remote()
