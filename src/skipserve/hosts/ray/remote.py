"""A model that answers in other processes, as the application sees it."""

from __future__ import annotations

import logging
from typing import Any

from ray.exceptions import NodeDiedError, ObjectLostError, RayActorError, RayError
from ray.serve.exceptions import BackPressureError, RayServeException
from ray.serve.handle import DeploymentHandle

from skipserve.errors import InputError
from skipserve.protocols.messages import RawRequest, Reply, error_reply, status_of, text_error
from skipserve.protocols.oip import is_oip_request
from skipserve.protocols.request_id import HEADER as REQUEST_ID
from skipserve.protocols.v1 import is_v1_request
from skipserve.telemetry.logs import fields

# The replica is gone, and what it was asked with it. A question changes nothing, so it is asked
# again: once, for it may be what ended the replica.
LOST = (RayActorError, ObjectLostError, NodeDiedError)

logger = logging.getLogger(__name__)


class Remote:
    """Asks the replicas of a model.

    Args:
        handle: Of its deployment.
    """

    def __init__(self, handle: DeploymentHandle[Any]) -> None:
        self._handle = handle

    async def answer(self, request: RawRequest) -> Reply:
        """Answer one request; a replica that is lost meanwhile costs it a second try."""
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
        """Refuse a request without asking the model."""
        if request.protocol in ("oip", "v1") or is_oip_request(request) or is_v1_request(request):
            reply = text_error(error)
        else:
            reply = error_reply(status_of(error), error.code, error.message)
        if request.id:
            reply.headers[REQUEST_ID] = request.id
        return reply

    async def _ask(self, request: RawRequest) -> Reply:
        reply: Reply = await self._handle.answer.remote(request)
        return reply


def _line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
