"""The Locust user: sends a request when it is due; latency counts from then."""

from __future__ import annotations

import re
from time import perf_counter
from typing import ClassVar

from gevent import GreenletExit
from locust import FastHttpUser, task

from skipserve.loadtest.dispatcher import Dispatcher, Request

HEADERS = {"Content-Type": "application/json"}
_PHASE = re.compile(r"(\w+);dur=([\d.]+)")


class ModelUser(FastHttpUser):
    """One connection to the service.

    Attributes:
        dispatcher: Where every user of the process gets its requests.
    """

    abstract = True
    dispatcher: ClassVar[Dispatcher]

    @task
    def ask(self) -> None:
        """Wait until a request is due, send it, check the reply."""
        request, free_s = self.dispatcher.take()
        sent_s = perf_counter()
        if sent_s - request.due_s > self.dispatcher.timeout_s:
            self.dispatcher.give_up(request, "no free connection before the timeout")
            return
        try:
            self._send(request, free_s)
        except GreenletExit:
            self.dispatcher.lost(request, "no reply: the test was stopped", 0.0)
            raise

    def _send(self, request: Request, free_s: float) -> None:
        path, body, name = self.dispatcher.content(request)
        sent_s = perf_counter()
        self.dispatcher.sent(request, free_s, sent_s)
        with self.client.post(
            path, data=body, headers=HEADERS, name=name, catch_response=True
        ) as response:
            done_s = perf_counter()
            # Locust's own figures count from when the request was due, too.
            response.request_meta["response_time"] = 1e3 * (done_s - request.due_s)
            if response.status_code == 0:
                failure = f"no reply: {type(response.error).__name__}: {response.error}"
                self.dispatcher.lost(request, failure, done_s - request.due_s)
                return
            timing = {
                phase: float(duration) / 1e3
                for phase, duration in _PHASE.findall(response.headers.get("server-timing", ""))
            }
            content = response.content or b""
            failure = self.dispatcher.replied(
                request, response.status_code, content, timing, sent_s, done_s
            )
            if failure:
                response.failure(failure)


def user_class(dispatcher: Dispatcher) -> type[ModelUser]:
    """A user class for one dispatcher, with its timeout."""
    return type(
        "Asking",
        (ModelUser,),
        {
            "dispatcher": dispatcher,
            "connection_timeout": dispatcher.timeout_s,
            "network_timeout": dispatcher.timeout_s,
            "abstract": False,
        },
    )
