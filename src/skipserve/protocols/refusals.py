"""Errors in the shape of a request's protocol, where no codec of its model is at hand."""

from __future__ import annotations

from skipserve.errors import InputError
from skipserve.protocols.compatible import ENDPOINTS, refuse
from skipserve.protocols.messages import RawRequest, Reply, error_reply, status_of, text_error
from skipserve.protocols.oip import is_oip_request
from skipserve.protocols.v1 import is_v1_request


def refused(request: RawRequest, error: InputError) -> Reply:
    """The error body that the codec of a request would give.

    Args:
        request: Whose path names its protocol, or whose content shows it.
        error: To answer it with.
    """
    name = request.protocol
    if name in ENDPOINTS:
        return refuse(ENDPOINTS[name].family, error)
    if name in ("oip", "v1") or is_oip_request(request) or is_v1_request(request):
        return text_error(error)
    return error_reply(status_of(error), error.code, error.message, error.row)
