"""The contract ``stem → blocks → pool → head`` and the families that satisfy it."""

from skipserve.networks.config import NetworkConfig, parse_network
from skipserve.networks.contract import ResidualNetwork
from skipserve.networks.families import build_network

__all__ = ["NetworkConfig", "ResidualNetwork", "build_network", "parse_network"]
