"""Every route of a service, once: who answers it, and the words for its document.

Models are known when the table is made, so each path in it is a whole one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import msgspec

from skipserve.errors import InputError
from skipserve.hosts.metadata import model_metadata, server_metadata, v1_status
from skipserve.hosts.models import Model
from skipserve.protocols.messages import Reply, error_reply, text_error
from skipserve.protocols.native_schemas import V1_STATUS
from skipserve.protocols.oip_schemas import MODEL_METADATA, MODEL_READY, SERVER_METADATA
from skipserve.protocols.schemas import FLAG, TEXT, Schema, list_of, object_of


@dataclass(frozen=True)
class Infer:
    """A route that a model answers.

    Attributes:
        model: That does.
        protocol: That the path names; empty where the request's content says it.
    """

    model: Model
    protocol: Literal["", "oip", "v1"]


Endpoint: TypeAlias = Infer | Callable[[], Reply]


@dataclass(frozen=True)
class Route:
    """A method of a path.

    Attributes:
        method: Of HTTP.
        path: As it stands in a request.
        endpoint: Answers it.
        summary: What it is for, in a few words.
        reply: JSON Schema of its body; a model's is its protocol's.
        statuses: It is answered with, beside errors.
        model: It is about, if it is about one.
    """

    method: Literal["GET", "POST"]
    path: str
    endpoint: Endpoint
    summary: str
    reply: Schema = field(default_factory=dict)
    statuses: tuple[int, ...] = (200,)
    model: str = ""


# While it starts and while it stops, a service says so with 503.
_WHETHER = (200, 503)


def routes_of(models: Mapping[str, Model], ready: Callable[[], bool]) -> Iterator[Route]:
    """All routes but that of the document about them.

    Args:
        models: By name.
        ready: Whether the whole service is ready.
    """

    def whether(word: str) -> Callable[[], Reply]:
        return lambda: _json({word: True}) if ready() else _json({word: False}, 503)

    def ping() -> Reply:
        return _json({"status": "Healthy"}) if ready() else _json({"status": "Unhealthy"}, 503)

    alive = object_of({"live": FLAG})
    is_ready = object_of({"ready": FLAG})
    ping_says = object_of({"status": {"enum": ["Healthy", "Unhealthy"]}})
    names = object_of({"models": list_of(TEXT)})
    called = list(served(models))
    yield Route("GET", "/ping", ping, "Readiness, as TorchServe says it", ping_says, _WHETHER)
    yield Route("GET", "/live", _live, "Liveness", alive)
    yield Route("GET", "/ready", whether("ready"), "Readiness", is_ready, _WHETHER)
    yield Route("GET", "/v1/models", lambda: _json({"models": called}), "All models", names)
    about = _json(server_metadata()).body
    yield Route("GET", "/v2", lambda: Reply(about), "About the server", SERVER_METADATA)
    yield Route("GET", "/v2/health/live", _live, "Liveness", alive)
    yield Route("GET", "/v2/health/ready", whether("ready"), "Readiness", is_ready, _WHETHER)
    for model in models.values():
        yield from _of_model(model, served(models)[model.name], ready)


def served(models: Mapping[str, Model]) -> dict[str, list[str]]:
    """The versions of each model, by its name as clients know it; the oldest first."""
    found: dict[str, list[str]] = {}
    for model in models.values():
        found.setdefault(model.name, []).append(model.version)
    return {name: sorted(versions, key=int) for name, versions in found.items()}


def _of_model(model: Model, versions: Sequence[str], ready: Callable[[], bool]) -> Iterator[Route]:
    name, version = model.name, model.version
    metadata = _json(model_metadata(model.manifest, versions)).body

    def is_ready() -> Reply:
        here = ready()
        return _json({"name": name, "ready": here}, 200 if here else 503)

    def status(of: Sequence[str]) -> Callable[[], Reply]:
        def told() -> Reply:
            here = ready()
            return _json(v1_status(name, of, here), 200 if here else 503)

        return told

    def get(path: str, endpoint: Endpoint, summary: str, reply: Schema, may_wait: bool) -> Route:
        statuses = _WHETHER if may_wait else (200,)
        return Route("GET", path, endpoint, summary, reply, statuses, model.manifest.name)

    def post(path: str, protocol: Literal["", "oip", "v1"]) -> Route:
        infer = Infer(model, protocol)
        return Route("POST", path, infer, "Predict", model=model.manifest.name)

    # The default has the paths without a version, too; that of TorchServe is /predictions/NAME/N.
    ways = [("", "", versions)] if model.is_default else []
    for native, rest, told in [*ways, (f"/{version}", f"/versions/{version}", [version])]:
        yield post(f"/predictions/{name}{native}", "")
        root = f"/v1/models/{name}{rest}"
        yield get(root, status(told), "Readiness of a model", V1_STATUS, True)
        yield post(f"{root}:predict", "v1")
        root = f"/v2/models/{name}{rest}"
        yield get(root, lambda: Reply(metadata), "About a model", MODEL_METADATA, False)
        yield get(f"{root}/ready", is_ready, "Readiness of a model", MODEL_READY, True)
        yield post(f"{root}/infer", "oip")


def speaks_text(path: str) -> bool:
    """Whether errors of a path are text, as in V1 and the Open Inference Protocol."""
    return path.startswith("/v") and path.split("/", 2)[1] in ("v1", "v2")


def refused(path: str, code: str, message: str) -> Reply:
    """An error in the shape of the protocol that a path belongs to."""
    error = text_error(InputError(code, message))
    return error if speaks_text(path) else error_reply(error.status, code, message)


def _live() -> Reply:
    return _json({"live": True})


def _json(body: object, status: int = 200) -> Reply:
    return Reply(msgspec.json.encode(body), status)
