"""Telemetry: metrics, logs, traces and probes."""
