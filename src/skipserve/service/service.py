"""The service of one model: requests in, replies out, each as soon as it is complete.

    read (check all rows at once) → run (stage by stage, all rows at once) → encode what is complete

Rows of different shapes are padded to one where the signature has a mask, those of similar length
together, and run apart where it has none. A bad request gets its own error and leaves its
neighbours alone.
"""

from __future__ import annotations

import atexit
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from time import perf_counter

from skipserve.artifacts.serving import ServingConfig
from skipserve.errors import InputError
from skipserve.intervals import spelled
from skipserve.protocols.answers import Answer, Predicted
from skipserve.protocols.messages import RISK_HEADER, RawRequest, Reply, status_of
from skipserve.protocols.oip_replies import VERSION
from skipserve.runtime.engine import Engine
from skipserve.runtime.prediction import overflow
from skipserve.safety.switch import AlwaysOn, Controls
from skipserve.service.batches import Batches
from skipserve.service.by_slice import BySlice
from skipserve.service.evidence import EvidenceSink, Witness
from skipserve.service.idle import Idle, Immediate
from skipserve.service.observer import AnsweredBatch, Observer, Turn
from skipserve.service.reader import INTERNAL, AcceptedRequest, Admission, Reader, named
from skipserve.service.runs import CompletedRequests, Runs
from skipserve.slices import sliced
from skipserve.tasks import NO_EVIDENCE
from skipserve.telemetry.journal import Journal
from skipserve.telemetry.opening import NoMetrics, open_metrics
from skipserve.telemetry.series import ABANDONED
from skipserve.telemetry.tracing import Phases

# Replies, each with the place of its request among those that were asked.
Replies = list[tuple[int, Reply]]
# Returns requests that begin now.
More = Callable[[], Sequence[RawRequest]]

logger = logging.getLogger(__name__)


class Service:
    """Answers requests to one model, until it is closed.

    Args:
        engine: The open model.
        serving: Its serving settings.
        idle: Does work once the replies are on their way; at once by default.
        switch: Turns the router off for a while; always on by default.
        journal: Tells of the requests; by default only of those that were refused.
        version: Of the model, as clients name it.
        counts: Keep what rows say of the candidates, and know ladders by name; by slice. They and
            the switch are the service's own from now on.
    """

    def __init__(
        self,
        engine: Engine,
        serving: ServingConfig,
        idle: Idle | None = None,
        switch: Controls | None = None,
        journal: Journal | None = None,
        version: str = VERSION,
        counts: Mapping[str, EvidenceSink] | None = None,
    ) -> None:
        idle = idle or Immediate()
        self._put_off = idle.when_idle
        self._switch = switch or AlwaysOn()
        self._engine = engine
        # On a GPU a run costs nearly the same for few rows and for many.
        self._batches = Batches(engine.manifest.signature, engine.provider == "cpu")
        self._most = serving.batch_size
        self._reader = Reader(engine, serving, version)
        ladders = {of_slice: one.ladder for of_slice, one in (counts or {}).items()}
        self._in_force = BySlice(engine, serving, ladders)
        self._in_force.follow(self._switch.controls())
        if engine.manifest.task.top is not None and serving.asks_evidence:
            # Build files are refused with it; settings of another program come here.
            logger.warning(
                "%s draws no evidence, though evidence = %g: its certificate counts queries "
                "(task.top); %s",
                engine.manifest.name,
                serving.evidence,
                NO_EVIDENCE,
            )
        defaults = {name: self._in_force.of(name).default for name in self._in_force.names}
        own = engine.setting(serving.risk)
        for name, default in defaults.items():
            # Until the launcher has read what was earned, nothing is in force; that is no news.
            undecided = self._in_force.of(name).control.state == "on" and not own.reason
            if default.reason and not undecided:
                about = sliced(engine.manifest.name, name)
                logger.warning("%s serves at full depth: %s", about, default.reason)
        # It also announces this worker.
        metrics = open_metrics(engine, defaults, self._in_force.evident)
        self._metrics = metrics if serving.metrics else NoMetrics()
        # Also without metrics, because the alarm reads these counts.
        self._counts = counts or {}
        witness = Witness(engine, metrics, self._counts)
        journal = journal or Journal(engine.manifest.name, serving.access_log)
        self._observer = Observer(engine.manifest.depth, self._metrics, witness, journal)

    def answer(self, requests: Sequence[RawRequest]) -> list[Reply]:
        """Answer requests together, in order; never raises for what a client sent."""
        replies = dict(reply for some in self.answers(requests) for reply in some)
        return [replies[place] for place in range(len(requests))]

    def answers(
        self,
        requests: Sequence[RawRequest],
        more: More = tuple,
    ) -> Iterator[Replies]:
        """Answer requests, each as soon as it is complete; never raises for what a client sent.

        Yields behind each stage, also where nothing was completed by it.

        Args:
            requests: To begin with.
            more: Asked behind each stage for requests that shall set out now.
        """
        turn, asked = Turn(), 0
        runs: Runs[AcceptedRequest] = Runs(self._engine, self._batches, self._most)
        while requests or runs:
            if requests:
                refused = self._admit(requests, asked, runs, turn)
                asked += len(requests)
                if refused:
                    yield refused
            if runs:
                yield self._step(runs, turn)
            requests = more()
        self._observer.add(turn)
        self._put_off(self._observer.observe)

    def close(self) -> None:
        """Write down what evidence said, and let the files go; call it behind the last request."""
        atexit.unregister(self.close)
        for one in self._counts.values():
            one.close()
        self._switch.close()

    def refuse(self, request: RawRequest, error: InputError) -> Reply:
        """Refuse a request without reading its rows."""
        return self._reader.refuse(request, error)

    def turn_away(self, request: RawRequest, error: InputError) -> Reply:
        """Refuse a request before it is read, and count it by reason."""
        self._metrics.turned_away(error.code, status_of(error))
        return self.refuse(request, error)

    def abandoned(self) -> None:
        """Count a request whose client disconnected before it began."""
        self._metrics.turned_away(ABANDONED)

    def fail(self, request: RawRequest) -> Reply:
        """The reply to a request that failed inside the server."""
        return self.refuse(request, INTERNAL)

    def waited(self, seconds: Sequence[float]) -> None:
        """Record how long the requests of a batch waited."""
        self._observer.waited(seconds)
        self._put_off(self._observer.observe)
        for name in self._in_force.waited(perf_counter(), max(seconds)) if seconds else ():
            self._show_risk(name)

    def _show_risk(self, name: str) -> None:
        in_force = self._in_force.of(name)
        default, now = in_force.default.risk, in_force.now.risk
        self._metrics.risk_in_force(name, now, moved=True)
        logger.warning(
            "%s: requests wait; those that name no risk get %s"
            if now != default
            else "%s: requests do not wait any more; those that name no risk get %s",
            sliced(self._engine.manifest.name, name),
            "full depth" if now is None else f"risk {now:g}",
        )

    def _admit(
        self, requests: Sequence[RawRequest], asked: int, runs: Runs[AcceptedRequest], turn: Turn
    ) -> Replies:
        admission = Admission(perf_counter())
        for name in self._in_force.follow(self._switch.controls()):
            in_force = self._in_force.of(name)
            self._metrics.default(name, in_force.default)
            self._metrics.risk_in_force(name, in_force.now.risk)
        good, refused = self._reader.read(requests, asked, admission, self._in_force)
        admission.read = perf_counter()
        turn.read_s += admission.read - admission.start
        if good:
            turn.sizes += runs.admit(good)
        if refused:
            theirs = [requests[place - asked] for place, _ in refused]
            phases = Phases(admission.start, *[admission.read] * 3)
            turn.batches.append(AnsweredBatch(theirs, [reply for _, reply in refused], phases))
        return refused

    def _step(self, runs: Runs[AcceptedRequest], turn: Turn) -> Replies:
        begun = perf_counter()
        complete, lost = runs.step()
        inferred = perf_counter()
        turn.inference_s += inferred - begun
        answers: Replies = []
        for ran in complete:
            replies = self._encode(ran, inferred)
            turn.see(ran.jobs, replies, inferred, ran)
            answers += [(job.place, reply) for job, reply in zip(ran.jobs, replies, strict=True)]
        if lost:
            replies = [named(job.refuse(INTERNAL), job.request) for job in lost]
            turn.lost += lost
            turn.see(lost, replies, inferred)
            answers += [(job.place, reply) for job, reply in zip(lost, replies, strict=True)]
        turn.encode_s += perf_counter() - inferred
        return answers

    def _encode(self, ran: CompletedRequests[AcceptedRequest], inferred: float) -> list[Reply]:
        predicted = Predicted(ran.prediction, self._engine.manifest.task)
        all_finite = ran.prediction.all_finite
        since = ran.jobs[0].admission
        timing = (
            f"decode;dur={(since.read - since.start) * 1e3:.3f}, "
            f"inference;dur={(inferred - since.read) * 1e3:.3f}"
        )
        replies = []
        for job, (first, last) in zip(ran.jobs, ran.ends, strict=True):
            answer = Answer(predicted, first, last, job.setting, job.rows)
            if all_finite or answer.prediction.all_finite:
                reply = job.encode(answer)
                reply.headers["server-timing"] = timing
                if job.setting.risk is not None:
                    reply.headers[RISK_HEADER] = spelled(job.setting.risk)
            else:
                reply = job.refuse(overflow(answer.prediction))
            replies.append(named(reply, job.request))
        return replies
