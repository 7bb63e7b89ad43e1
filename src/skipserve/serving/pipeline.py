"""A worker's loop that gathers its own batches: what came in while it was busy with the last.

TorchServe's worker is sent the next batch once the frontend has its reply, so that each waits for
the other. TorchServe 0.12.0 can also send without waiting, and has a worker for it
(``ts.async_service``) that calls coroutines, a request at a time; this loop stands in its place and
calls the handler as ever.
"""

from __future__ import annotations

import faulthandler
import logging
import signal
import socket
from typing import Any, NoReturn, Protocol

from ts.protocol.otf_message_handler import create_predict_response
from ts.service import Service

from skipserve.serving.messages import error_reply

logger = logging.getLogger(__name__)


class Reads(Protocol):
    """Where the requests come from."""

    def gather(self, connection: socket.socket, most: int, delay_s: float) -> list[dict[str, Any]]:
        """The next requests, at least one."""

    def work(self) -> None:
        """Do what was put off until the replies were sent."""


class Pipeline:
    """Answers requests until the frontend is gone.

    Args:
        reads: Where they come from.
        most: Requests in a batch, at most.
        delay_s: How long one that is not full waits for more, in seconds.
        limit_s: A batch that takes longer, with the work put off for it, ends the process, with the
            tracebacks of all threads in its log: the frontend then answers what it was to answer
            and starts another.
    """

    def __init__(self, reads: Reads, most: int, delay_s: float, limit_s: float) -> None:
        self._reads = reads
        self._most = most
        self._delay_s = delay_s
        self._limit_s = limit_s

    def run(self, service: Any) -> NoReturn:
        """Answer what comes in.

        Args:
            service: TorchServe's, with the handler loaded and ``cl_socket`` connected.
        """
        # The kernel sends the signal and C code answers it, so that a thread that hangs with the
        # interpreter's lock cannot prevent it.
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        faulthandler.register(signal.SIGALRM, all_threads=True, chain=True)
        connection = service.cl_socket
        while True:
            requests = self._reads.gather(connection, self._most, self._delay_s)
            signal.setitimer(signal.ITIMER_REAL, self._limit_s)
            connection.sendall(answer(service, requests))
            self._reads.work()
            signal.setitimer(signal.ITIMER_REAL, 0)


def answer(service: Any, requests: list[dict[str, Any]]) -> bytes:
    """The message with a reply to each request, for what ``Service.predict`` of TorchServe does.

    A handler that raises, or replies with something else than bytes or text for each request, costs
    its batch and no other: an error as the status of the whole message would be the frontend's
    answer to all requests on their way.
    """
    headers, bodies, ids = Service.retrieve_data_for_inference(requests)
    context = service.context
    context.request_ids, context.request_processor = ids, headers
    try:
        replies = _checked(service._entry_point(bodies, context), len(requests))
    except Exception:
        logger.exception("a batch of %d requests failed", len(requests))
        error = error_reply(500, "internal", "the handler failed; its log says why")
        replies = [error.body] * len(requests)
        for i in ids:
            context.set_response_status(error.status, error.reason, i)
            for name, value in error.headers.items():
                context.set_response_header(i, name, value)
    message: bytes = create_predict_response(replies, ids, "Prediction success", 200, context)
    return message


def _checked(replies: Any, count: int) -> list[bytes | str]:
    if not isinstance(replies, list) or len(replies) != count:
        raise TypeError(f"the handler must return a list of {count} replies, got {replies!r:.100}")
    for reply in replies:
        if not isinstance(reply, bytes | bytearray | str):
            raise TypeError(f"a reply must be bytes or str, got {type(reply).__name__}")
    return replies
