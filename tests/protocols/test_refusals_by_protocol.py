"""Errors made without the model: in every protocol those that the model's codec gives."""

from __future__ import annotations

import pytest

from skipserve.artifacts.serving import ServingConfig
from skipserve.errors import InputError
from skipserve.protocols.compatible import ENDPOINTS, compatible_codecs
from skipserve.protocols.messages import RawRequest
from skipserve.protocols.refusals import refused
from skipserve.runtime.engine import Engine
from skipserve.service.reader import Reader

ERRORS = [
    InputError("overloaded", "2 requests wait. Ask again later"),
    InputError("internal", "no replica of the model could answer; ask again"),
    InputError("wrong_type", "row 3 is null", 3),
]
REQUESTS = [
    *(RawRequest(b"{}", {}, protocol=name) for name in ("native", "oip", "v1")),
    RawRequest(b'{"inputs": ["a"]}', {}),
    RawRequest(b'{"instances": ["a"]}', {}),
    RawRequest(b'{"inputs": [{"name": "text", "datatype": "BYTES"}]}', {}),
    RawRequest(b"abc", {"inference-header-content-length": "0"}),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.code)
def test_an_error_has_the_body_of_its_protocol(engines: dict[str, Engine], error) -> None:
    seen = set()
    for engine in engines.values():
        reader = Reader(engine, ServingConfig(), "1")
        names = compatible_codecs(engine.manifest, 8)
        for request in [*REQUESTS, *(RawRequest(b"{}", {}, protocol=name) for name in names)]:
            ours, theirs = refused(request, error), reader.refuse(request, error)
            assert (ours.status, ours.body) == (theirs.status, theirs.body), request
            assert (ours.reason, ours.headers) == (theirs.reason, theirs.headers), request
            seen.add(request.protocol)
    assert seen == {"", "native", "oip", "v1", *ENDPOINTS}
