"""What hurts in TorchServe 0.12.0's frontend and can be mended without compiling Java.

Each patch changes a few bytes of one or two classes; copies with them changed stand before the
frontend's own on the class path. An archive that is not as expected is left as it is.

``x-request-id`` of every reply is a name of the frontend's own, over what the handler set: the
frontend's goes to another header.

The frontend keeps a request's own name with its connection. A reply to an earlier request of that
connection takes it away, from another thread: a request that has just come in then has none, cannot
be sent, and its batch waits until the worker is ended. The name now stays where it is until the
next request's takes its place.

A batch waits for its next request in whole milliseconds, and as long for a lone client: in
``Model``, where nothing else is timed, the unit becomes the microsecond. What is left of the delay
is still counted in milliseconds there, so that it is the wait for each request and no longer that
for all of them.

When a worker dies while the frontend waits for the rest of a batch, the requests it has are never
answered: ``WorkerThread`` reports errors to a request it has sent and it had sent none yet. It now
reports them always, and ``BatchAggregator``, told of no request, sends the error to all it holds;
its own way, back into the queue, ends the thread for good when the queue is full.

An address to listen on is matched by a pattern that no IPv6 address fits: hosts without colons.

TorchServe has a thread that does not wait for a reply before it sends the next request, which keeps
worker and frontend busy at the same time, but it forgets requests, keeps those it has answered, and
does not notice that a worker it started again is there: see ``PIPELINE``.
"""

from __future__ import annotations

import logging
import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path

from skipserve.protocols.request_id import HEADER

RENAMED = "x-torchserve-request-id"
# The Java Virtual Machine Specification, 6.5: an instruction that does nothing, and one that takes
# off the stack what ``ifnull`` or ``ifeq`` would have tested.
NOP, POP = b"\x00", b"\x57"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Edit:
    """Bytes of a class that become others.

    Attributes:
        of: The class's file.
        old: The bytes.
        new: What they become.
        times: How often they are there.
    """

    of: str
    old: bytes
    new: bytes
    times: int = 1


@dataclass(frozen=True)
class Patch:
    """Edits that are made together or not at all; no two patches share a class.

    Attributes:
        edits: The edits.
        without: What is so if they cannot be made.
    """

    edits: tuple[Edit, ...]
    without: str

    def is_in(self, classes: Path) -> bool:
        """Whether it was applied to what is in this folder."""
        return all((classes / edit.of).is_file() for edit in self.edits)


def _constant(text: str) -> bytes:
    # CONSTANT_Utf8_info: tag 1, length, bytes (The Java Virtual Machine Specification, 4.4.7).
    return struct.pack(">BH", 1, len(text)) + text.encode()


REQUEST_ID = Patch(
    (
        Edit("org/pytorch/serve/util/NettyUtils.class", _constant(HEADER), _constant(RENAMED)),
        # aconst_null, invokeinterface #177 (Attribute.getAndSet), checkcast, astore 4, becomes
        # invokeinterface #19 (Attribute.get) and the rest.
        Edit(
            "org/pytorch/serve/util/NettyUtils.class",
            b"\x01\xb9\x00\xb1\x02\x00\xc0\x00\x19\x3a\x04",
            NOP + b"\xb9\x00\x13\x01\x00\xc0\x00\x19\x3a\x04",
        ),
    ),
    "X-Request-ID of a reply is the frontend's own, and a client that does not wait for replies "
    "can stall a model",
)
BATCH_DELAY = Patch(
    (
        Edit(
            "org/pytorch/serve/wlm/Model.class",
            _constant("MILLISECONDS"),
            _constant("MICROSECONDS"),
        ),
    ),
    "batches wait for whole milliseconds",
)
ANSWERED = Patch(
    (
        Edit(
            "org/pytorch/serve/wlm/WorkerThread.class",
            # if (this.req != null): aload_0, getfield #32, ifnull +18; in each copy of `finally`.
            b"\x2a\xb4\x00\x20\xc6\x00\x12",
            b"\x2a\xb4\x00\x20" + POP + 2 * NOP,
            times=7,
        ),
        Edit(
            "org/pytorch/serve/wlm/BatchAggregator.class",
            # if (job.isControlCmd()), aload 7, invokevirtual #72, ifeq +13, becomes
            # if (job != null), ifnull +22, past both branches: another thread may have taken it.
            b"\x19\x07\xb6\x00\x48\x99\x00\x0d",
            b"\x19\x07\xc6\x00\x16" + 3 * NOP,
        ),
    ),
    "a request may wait for ever when a worker dies while its batch is gathered",
)
PIPELINE = Patch(
    (
        # Two threads put into this map and take out of it.
        Edit(
            "org/pytorch/serve/wlm/AsyncBatchAggregator.class",
            _constant("java/util/LinkedHashMap"),
            _constant("java/util/concurrent/ConcurrentHashMap"),
        ),
        # A request that was answered leaves it, and not only the last part of a stream:
        # invokevirtual #235 (String.equals), ifeq +15.
        Edit(
            "org/pytorch/serve/wlm/AsyncBatchAggregator.class",
            b"\xb6\x00\xeb\x99\x00\x0f",
            b"\xb6\x00\xeb" + POP + 2 * NOP,
        ),
        # Errors go to clients, as above: aload 8, invokevirtual #87 (isControlCmd), ifeq +13.
        Edit(
            "org/pytorch/serve/wlm/AsyncBatchAggregator.class",
            b"\x19\x08\xb6\x00\x57\x99\x00\x0d",
            b"\x19\x08\xc6\x00\x16" + 3 * NOP,
        ),
        # A thread that runs anew waits for the model to be loaded anew: after invokevirtual #50,
        # aload_0, aconst_null, putfield #56 (req) becomes aload_0, iconst_0, putfield #7
        # (loadingFinished).
        Edit(
            "org/pytorch/serve/wlm/AsyncWorkerThread.class",
            b"\xb6\x00\x32\x2a\x01\xb5\x00\x38",
            b"\xb6\x00\x32\x2a\x03\xb5\x00\x07",
        ),
        # if (req != null) aggregator.sendError(req, "Worker died.", status), in each copy of
        # `finally`, becomes aggregator.sendError(null, ...), which reports to all that are out.
        Edit(
            "org/pytorch/serve/wlm/AsyncWorkerThread.class",
            b"\x2a\xb4\x00\x38\xc6\x00\x11\x2a\xb4\x00\x46\x2a\xb4\x00\x38\x12\xe2",
            b"\x2a\xb4\x00\x38" + POP + 2 * NOP + b"\x2a\xb4\x00\x46\x01" + 3 * NOP + b"\x12\xe2",
            times=7,
        ),
        # What interrupts the thread ends it also while it sends: the handler at 246, which goes on,
        # covers one instruction that cannot throw in place of 135 to 243.
        Edit(
            "org/pytorch/serve/wlm/AsyncWorkerThread.class",
            b"\x00\x87\x00\xf3\x00\xf6",
            b"\x00\x87\x00\x88\x00\xf6",
        ),
    ),
    "the frontend sends no request while a worker is busy",
)
IPV6 = Patch(
    (
        Edit(
            "org/pytorch/serve/util/ConfigManager.class",
            _constant("((https|http)://([^:^/]+)(:([0-9]+))?)|(unix:(/.*))"),
            _constant("((https|http)://([^/]+?)(:([0-9]+))?)|(unix:(/.*))"),
        ),
    ),
    "it cannot listen on IPv6 addresses",
)
PATCHES = (REQUEST_ID, BATCH_DELAY, ANSWERED, PIPELINE, IPV6)


def patch_frontend(jar: Path, classes: Path) -> None:
    """Write the mended classes below ``classes``, which goes before ``jar`` on the class path."""
    with zipfile.ZipFile(jar) as archive:
        for patch in PATCHES:
            content = {edit.of: archive.read(edit.of) for edit in patch.edits}
            if any(content[edit.of].count(edit.old) != edit.times for edit in patch.edits):
                logger.warning("%s is not TorchServe 0.12.0's: %s", jar, patch.without)
                continue
            for edit in patch.edits:
                content[edit.of] = content[edit.of].replace(edit.old, edit.new)
            for name, mended in content.items():
                file = classes / name
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(mended)
