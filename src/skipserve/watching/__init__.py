"""Watching a running service from its ``/metrics``, without Prometheus."""
