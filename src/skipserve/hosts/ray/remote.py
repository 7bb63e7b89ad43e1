"""A model whose replicas run in other processes."""

from __future__ import annotations

import logging
from typing import Any

from ray.exceptions import NodeDiedError, ObjectLostError, RayActorError, RayError
from ray.serve.exceptions import BackPressureError, RayServeException
from ray.serve.handle import DeploymentHandle

from skipserve.errors import InputError
from skipserve.protocols.messages import RawRequest, Reply
from skipserve.protocols.refusals import refused
from skipserve.protocols.request_id import HEADER as REQUEST_ID
from skipserve.telemetry.logs import fields

# The replica is gone, and the request with it. Requests change nothing, so it is sent
# again: once, because the request itself may have ended the replica.
LOST = (RayActorError, ObjectLostError, NodeDiedError)

logger = logging.getLogger(__name__)


class Remote:
    """Sends requests to the replicas of a model.

    Args:
        handle: Of its deployment.
    """

    def __init__(self, handle: DeploymentHandle[Any]) -> None:
        self._handle = handle

    async def answer(self, request: RawRequest) -> Reply:
        """Answer one request; it is sent again once if its replica is lost."""
        try:
            try:
                return await self._ask(request)
            except LOST as error:
                logger.warning("a replica was lost with a request: %s", _line(error))
                return await self._ask(request)
        except BackPressureError as error:
            told = InputError("overloaded", f"{_line(error)} Ask again later, or less often")
        except (RayError, RayServeException) as error:
            logger.error("a request failed: %s", _line(error), extra=fields(request_id=request.id))
            told = InputError("internal", "no replica of the model could answer; ask again")
        return self.turn_away(request, told)

    def turn_away(self, request: RawRequest, error: InputError) -> Reply:
        """Refuse a request without sending it to the model."""
        reply = refused(request, error)
        if request.id:
            reply.headers[REQUEST_ID] = request.id
        return reply

    async def _ask(self, request: RawRequest) -> Reply:
        reply: Reply = await self._handle.answer.remote(request)
        return reply


def _line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
