"""Ray Serve as a host: the same application, its models in replicas on many machines.

    serve run skipserve.hosts.ray:app model_store=/shared/model_store max_replicas=4

docs/ray.md tells how to run it, docs/decisions/0037-ray.md why it is built so.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from skipserve.extras import EXTRAS, require

require(*EXTRAS["ray"])

from skipserve.hosts.asgi import STORE_VARIABLE  # noqa: E402 - what they import needs the extra
from skipserve.hosts.ray.deploy import app  # noqa: E402

if TYPE_CHECKING:
    from ray.serve import Application

__all__ = ["app"]


def __getattr__(name: str) -> Application:
    # `serve build` takes neither arguments nor a function.
    if name == "application":
        return app({"model_store": os.environ.get(STORE_VARIABLE, "")})
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
