"""Every route of a service, once: who answers it, and the words for its document.

Models are known when the table is made, so each path in it is a whole one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import msgspec

from skipserve.errors import InputError
from skipserve.hosts.choosing import ModelChooser, ModelEndpoint, models_for
from skipserve.hosts.metadata import (
    info_of,
    model_list,
    model_metadata,
    server_metadata,
    v1_status,
)
from skipserve.hosts.models import Answers, Model
from skipserve.protocols.compatible import ENDPOINTS, ROOT, family_at, refuse
from skipserve.protocols.compatible_schemas import INFO, MODEL_LIST
from skipserve.protocols.messages import Reply, error_reply, text_error
from skipserve.protocols.native_schemas import V1_STATUS
from skipserve.protocols.oip_schemas import MODEL_METADATA, MODEL_READY, SERVER_METADATA
from skipserve.protocols.schemas import FLAG, Schema, object_of


@dataclass(frozen=True)
class Infer:
    """A route that a model answers.

    Attributes:
        model: That does; of several that could, the first.
        protocol: That the path names; empty where the request's content says it.
        chosen: Answers where the request's body says which model does.
    """

    model: Model
    protocol: str
    chosen: Answers | None = None

    @property
    def by(self) -> Answers:
        """Who answers."""
        return self.chosen or self.model.batcher


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
    listed = _json(model_list(list(served(models)))).body
    yield Route("GET", "/ping", ping, "Readiness, as TorchServe says it", ping_says, _WHETHER)
    yield Route("GET", "/live", _live, "Liveness", alive)
    yield Route("GET", "/ready", whether("ready"), "Readiness", is_ready, _WHETHER)
    yield Route(
        "GET", "/health", whether("ready"), "Readiness, where others ask", is_ready, _WHETHER
    )
    yield Route("GET", "/v1/models", lambda: Reply(listed), "All models", MODEL_LIST)
    about = _json(server_metadata()).body
    yield Route("GET", "/v2", lambda: Reply(about), "About the server", SERVER_METADATA)
    yield Route("GET", "/v2/health/live", _live, "Liveness", alive)
    yield Route("GET", "/v2/health/ready", whether("ready"), "Readiness", is_ready, _WHETHER)
    yield from compatible_routes(models)
    for model in models.values():
        yield from _of_model(model, served(models)[model.name], ready)


def compatible_routes(models: Mapping[str, Model]) -> Iterator[Route]:
    """Those of other servers that a model here fits."""
    for name, endpoint in ENDPOINTS.items():
        if fitting := models_for(models, name):
            infer = Infer(fitting[0].model, name, ModelChooser(fitting, endpoint.path))
            yield Route("POST", endpoint.path, infer, endpoint.does)
    asked = [
        ModelEndpoint(model, does)
        for model in models.values()
        if (does := ROOT.get(model.manifest.task.kind)) and ENDPOINTS[does].fits(model.manifest)
    ]
    if asked:
        infer = Infer(asked[0].model, asked[0].protocol, ModelChooser(asked, "/"))
        yield Route("POST", "/", infer, "What the model does")
        told = [one.model for one in asked]
        yield Route("GET", "/info", lambda: _info(told), "About the model", INFO)


def _info(models: Sequence[Model]) -> Reply:
    if len(models) > 1:
        names = ", ".join(one.manifest.name for one in models)
        message = f"/info is about one model, and here are {names}; ask /v2/models/NAME"
        return refuse("tei", InputError("several_models", message))
    return _json(info_of(models[0].manifest, models[0].max_rows))


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

    def post(path: str, protocol: str) -> Route:
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


def has_text_errors(path: str) -> bool:
    """Whether errors of a path are text, as in V1 and the Open Inference Protocol."""
    return path.startswith("/v") and path.split("/", 2)[1] in ("v1", "v2")


def refused(path: str, code: str, message: str) -> Reply:
    """An error in the shape of the protocol that a path belongs to."""
    if family := family_at(path):
        return refuse(family, InputError(code, message))
    error = text_error(InputError(code, message))
    return error if has_text_errors(path) else error_reply(error.status, code, message)


def _live() -> Reply:
    return _json({"live": True})


def _json(body: object, status: int = 200) -> Reply:
    return Reply(msgspec.json.encode(body), status)
