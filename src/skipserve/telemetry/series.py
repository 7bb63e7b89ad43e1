"""The series of the workers: names, labels and buckets; docs/metrics.md explains each."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

from skipserve.telemetry.process import count_by_number

count_by_number()

# Counting costs about as much for ten batches as for one, so workers do it so late, in seconds. One
# that dies loses what it has not counted yet.
COUNTED_S = 0.01
# Seconds; 100 µs to 10 s with an edge at exactly 15 ms, the target of the service.
BUCKETS = (
    *(0.0001, 0.0002, 0.0003, 0.0005, 0.00075, 0.001, 0.0015, 0.002, 0.003, 0.005, 0.0075),
    *(0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
DEPTHS = (*range(25), 28, 32, 40, 48, 64, 96, 128)
PHASES = ("decode", "inference", "encode")
ANSWERS = ("fp32", "refused")
STATUSES = (200, 400, 413, 415, 500, 503, 504)
# Why a request was not begun; the others are the codes of what it was answered.
ABANDONED = "abandoned"
REASONS = ("overloaded", "waited_too_long", "deadline_exceeded", ABANDONED)

REQUESTS = Counter(
    "skipserve_requests",
    "Requests the workers answered, warm-up included, by HTTP status.",
    ("model", "code"),
)
LATENCY = Histogram(
    "skipserve_request_duration_seconds",
    "Time in the worker of requests answered with 200, from the first byte decoded to the reply "
    "encoded, their batch included; depth is skipped if any row left out a block, else full.",
    ("model", "depth"),
    buckets=BUCKETS,
)
QUEUE_WAIT = Histogram(
    "skipserve_queue_wait_seconds",
    "Time that a request waited in the service for its batch; not counted behind TorchServe, "
    "whose queue is in its frontend.",
    ("model",),
    buckets=BUCKETS,
)
NOT_RUN = Counter(
    "skipserve_requests_not_run",
    "Requests that were not begun: the queue was full or too slow (overloaded), they waited longer "
    "than the model allows (waited_too_long) or they do (deadline_exceeded), or their client had "
    "hung up (abandoned). Not counted behind TorchServe.",
    ("model", "reason"),
)
PHASE = Histogram(
    "skipserve_phase_duration_seconds",
    "Time of one batch in one phase.",
    ("model", "phase"),
    buckets=BUCKETS,
)
BATCH = Histogram(
    "skipserve_batch_rows",
    "Rows that ran together.",
    ("model",),
    buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024),
)
ROWS = Counter(
    "skipserve_rows", "Rows that ran, by whether the router was on.", ("model", "router")
)
BLOCK_ROWS = Counter(
    "skipserve_block_rows",
    "Rows with the router on that ran or skipped a block; blocks count from 1.",
    ("model", "block", "action"),
)
DEPTH_RUN = Histogram(
    "skipserve_depth_run_blocks",
    "Blocks run for a row with the router on.",
    ("model",),
    buckets=DEPTHS,
)
HELD_BACK = Counter(
    "skipserve_guard_held_back_rows", "Rows the guard sent to full depth.", ("model",)
)
OVERFLOWS = Counter(
    "skipserve_overflow_rows",
    "Finite rows that overflowed inside the network, by whether the FP32 file answered them after "
    "all (fp32) or nothing could (refused).",
    ("model", "answer"),
)
SIGNAL_ROWS = Counter(
    "skipserve_signal_rows",
    "Rows by the tenth of the calibration's distribution in which their signal at a decision lay; "
    "a tenth of them each if nothing drifted.",
    ("model", "stage", "bin"),
)
EVIDENCE_ROWS = Counter(
    "skipserve_evidence_rows",
    "Rows run at full depth to see what the router in force would have answered.",
    ("model", "slice", "risk"),
)
DISAGREEMENTS = Counter(
    "skipserve_evidence_disagreements",
    "Evidence rows that the router in force would have answered otherwise than full depth.",
    ("model", "slice", "risk"),
)
DROPPED = Counter(
    "skipserve_evidence_dropped_rows",
    "Rows drawn for evidence that could not be run.",
    ("model", "slice"),
)
INFO = Gauge(
    "skipserve_model_info",
    "1 for each worker's model, with its task and what it really runs on.",
    ("model", "task", "backend", "provider", "precision", "checkpoint"),
    multiprocess_mode="livemax",
)
FALLBACK = Gauge(
    "skipserve_provider_fallback",
    "1 if the model runs on the CPU although the machine has a GPU.",
    ("model",),
    multiprocess_mode="livemax",
)
CERTIFIED_RISK = Gauge(
    "skipserve_certified_risk_ratio",
    "Certified rate of disagreement of requests that name no risk; absent if none.",
    ("model", "slice"),
    multiprocess_mode="livemax",
)
RISK_IN_FORCE = Gauge(
    "skipserve_risk_in_force_ratio",
    "Risk that a request gets now which names none, 0 for full depth: above "
    "skipserve_certified_risk_ratio while the service is overloaded and may skip more.",
    ("model", "slice"),
    multiprocess_mode="livemax",
)
OVERLOAD_MOVES = Counter(
    "skipserve_overload_moves",
    "Times that a worker moved the risk of requests that name none, up or back down.",
    ("model", "to"),
)
THRESHOLD = Gauge(
    "skipserve_threshold",
    "Signal from which a row skips, by stage, for requests that name no risk.",
    ("model", "slice", "stage"),
    multiprocess_mode="livemax",
)
