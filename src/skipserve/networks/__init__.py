"""The contract ``stem → blocks → pool → head`` and the families that satisfy it."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from skipserve.networks.config import NetworkConfig, parse_network

if TYPE_CHECKING:
    from skipserve.networks.contract import ResidualNetwork
    from skipserve.networks.families import build_network

__all__ = ["NetworkConfig", "ResidualNetwork", "build_network", "parse_network"]
# They need torch, whose import takes seconds; a build file is read without it.
_NEED_TORCH = {"ResidualNetwork": "contract", "build_network": "families"}


def __getattr__(name: str) -> Any:
    if name not in _NEED_TORCH:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_NEED_TORCH[name]}"), name)
