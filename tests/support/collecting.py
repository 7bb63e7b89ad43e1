"""A collector of OpenTelemetry spans."""

from __future__ import annotations

import gzip
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span


class Collector(ThreadingHTTPServer):
    """Takes spans as an OpenTelemetry collector does: protobuf over HTTP."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.services: set[str] = set()

        class Handler(BaseHTTPRequestHandler):
            server: Collector

            def do_POST(self) -> None:
                assert self.path == "/v1/traces"
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                self.server.take(ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"

    def take(self, message: ExportTraceServiceRequest) -> None:
        for group in message.resource_spans:
            self.services |= {
                item.value.string_value
                for item in group.resource.attributes
                if item.key == "service.name"
            }
            for scope in group.scope_spans:
                self.spans += scope.spans

    def wait_for(self, count: int, seconds: float = 30) -> list[Span]:
        """At least so many spans; whoever sends them does so later, and together."""
        deadline = time.monotonic() + seconds
        while len(self.spans) < count:
            assert time.monotonic() < deadline, f"{len(self.spans)} spans of {count}"
            time.sleep(0.02)
        return list(self.spans)

    @staticmethod
    def attributes(span: Span) -> dict[str, Any]:
        return {
            item.key: getattr(item.value, item.value.WhichOneof("value"))
            for item in span.attributes
        }
