"""Choosing the model for paths without a model name, by the field ``model`` of the body."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from skipserve.errors import InputError, quoted
from skipserve.hosts.models import Model
from skipserve.protocols.compatible import ENDPOINTS
from skipserve.protocols.content_coding import unpacked
from skipserve.protocols.messages import MAX_BODY_BYTES, RawRequest, Reply, without_mark
from skipserve.protocols.refusals import refused

_FIELD = b'"model"'


@dataclass(frozen=True)
class ModelEndpoint:
    """A model that can answer an endpoint, and the name of its codec there."""

    model: Model
    protocol: str


class _Named(msgspec.Struct):
    model: str | None = None


_decoder = msgspec.json.Decoder(_Named)


def models_for(models: Mapping[str, Model], protocol: str) -> list[ModelEndpoint]:
    """Models that can answer an endpoint of another server."""
    endpoint = ENDPOINTS[protocol]
    return [ModelEndpoint(one, protocol) for one in models.values() if endpoint.fits(one.manifest)]


class ModelChooser:
    """Answers an endpoint with one of several models.

    Args:
        endpoints: Those that can answer, at least one.
        path: That they answer, for the error.
    """

    def __init__(self, endpoints: Sequence[ModelEndpoint], path: str) -> None:
        self._endpoints = {one.model.manifest.name: one for one in endpoints}
        self._path = path

    async def answer(self, request: RawRequest) -> Reply:
        """Answer one request; errors are replies, too."""
        try:
            one = self._choose(request)
        except InputError as error:
            return self.turn_away(request, error)
        return await one.model.batcher.answer(
            msgspec.structs.replace(request, protocol=one.protocol)
        )

    def turn_away(self, request: RawRequest, error: InputError) -> Reply:
        """Refuse a request without reading its rows."""
        return refused(request, error)

    def _choose(self, request: RawRequest) -> ModelEndpoint:
        names, body = ", ".join(self._endpoints), unpacked(request, MAX_BODY_BYTES).body
        named = None
        if body is not None and _FIELD in body:
            try:
                named = _decoder.decode(without_mark(body)).model
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                raise InputError(
                    "invalid_json", f"not a request of this endpoint: {error}"
                ) from None
        if named is None:
            # Of several versions, the one in force answers.
            unnamed = [one for one in self._endpoints.values() if one.model.is_default]
            if len(unnamed) != 1:
                raise InputError(
                    "which_model",
                    f"several models answer {self._path} here ({names}); name one in the field "
                    '"model", or serve it alone',
                )
            return unnamed[0]
        if named not in self._endpoints:
            raise InputError(
                "model_not_found",
                f"no model {quoted(named)} answers {self._path} here, only {names}",
            )
        return self._endpoints[named]
