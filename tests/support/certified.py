"""The small routed model as it is certified: its depth, its risks, requests to it."""

from __future__ import annotations

import json

from skipserve.protocols.messages import RawRequest

DEPTH, RISKS = 4, (0.02, 0.05)


def native(rows, router=None) -> RawRequest:
    body: dict[str, object] = {"inputs": rows.tolist()}
    if router is not None:
        body["parameters"] = {"router": router}
    return RawRequest(json.dumps(body).encode(), {"content-type": "application/json"})


def change(file, **values):
    """Change every certificate in a file."""
    content = json.loads(file.read_text())
    for certificate in content["certificates"]:
        certificate.update(values)
    file.write_text(json.dumps(content))
