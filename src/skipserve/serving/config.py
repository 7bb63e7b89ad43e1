"""How a model is served: [serving] in its TOML, `skipserve:` in its archive's configuration."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from skipserve.schema import Record


class ServingConfig(Record):
    """Serving defaults of one model; the options of `skipserve serve` override them.

    Attributes:
        backend: ``onnxruntime`` or ``torchscript``.
        precision: ``auto`` is FP16 on a GPU and FP32 on a CPU.
        provider: ``auto`` takes a GPU where there is one.
        threads: Cores used inside one operation; 0 takes all.
        workers: Processes that each hold the model.
        batch_size: Most requests in one batch; 1 turns batching off.
        max_batch_delay_ms: Longest wait for the next request of a batch that is not full, also a
            lone client's: 0.05 ms by default, at least a microsecond. Where TorchServe itself opens
            the archive it is the wait for the whole batch, in whole milliseconds. Pipelined, it is
            the wait for the whole batch too, and 0 by default.
        pipelined: A lone worker is sent requests while it is busy and gathers its own batches. Off
            by default: where the frontend's thread for it fails, it fails for all that are on their
            way (docs/decisions/0003-torchserve-configuration.md). Keep it off for a handler that
            does not call :func:`skipserve.serving.torchserve_patches.apply`.
        queue_size: Requests that may wait in the frontend; one more is answered 503. Pipelined,
            some 200 small ones wait on their way to the worker besides.
        response_timeout_s: A worker that takes longer for a batch is ended and started again.
        max_rows: Most rows in one request; more are answered 413.
        access_log: Share of the requests that leave a line in the log; errors always do.
        risk: ε of the router for a request that asks for nothing; full depth if left out.
        shadow: Share of the routed rows that is run a second time, at full depth, to see whether
            the answers still agree; 0 turns the alarm off.
        shadow_budget_ms: Longest that one shadow run may hold up the next request.
        alarm_alpha: Chance that the alarm is ever raised although the certificate holds.
        clean_window_s: Seconds that skipping stays off at least once the alarm was raised.
        metrics: Counting can be turned off to measure what it costs.
    """

    backend: Literal["onnxruntime", "torchscript"] = "onnxruntime"
    precision: Literal["auto", "fp32", "fp16"] = "auto"
    provider: Literal["auto", "cpu", "cuda"] = "auto"
    threads: Annotated[int, Field(ge=0)] = 1
    workers: Annotated[int, Field(ge=1, le=256)] = 1
    batch_size: Annotated[int, Field(ge=1, le=4096)] = 1
    max_batch_delay_ms: Annotated[float, Field(ge=0, le=10_000)] | None = None
    pipelined: bool = False
    queue_size: Annotated[int, Field(ge=1)] = 1000
    response_timeout_s: Annotated[int, Field(ge=1, le=86_400)] = 60
    max_rows: Annotated[int, Field(ge=1)] = 1024
    access_log: Annotated[float, Field(ge=0, le=1)] = 0.0
    risk: Annotated[float, Field(gt=0, lt=1)] | None = None
    shadow: Annotated[float, Field(ge=0, le=1)] = 0.01
    shadow_budget_ms: Annotated[float, Field(gt=0, le=10_000)] = 10.0
    alarm_alpha: Annotated[float, Field(gt=0, lt=1)] = 0.05
    clean_window_s: Annotated[float, Field(ge=0)] = 600.0
    metrics: bool = True
