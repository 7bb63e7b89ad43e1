"""What hurts in TorchServe 0.12.0's frontend and can be mended without compiling Java.

Each patch changes a few bytes of one or two classes; copies with them changed stand before the
frontend's own on the class path. An archive that is not as expected is left as it is.

``x-request-id`` of every reply is a name of the frontend's own, over what the handler set: the
frontend's goes to another header.

A batch waits for its next request in whole milliseconds, and as long for a lone client: in
``Model``, where nothing else is timed, the unit becomes the microsecond. What is left of the delay
is still counted in milliseconds there, so that it is the wait for each request and no longer that
for all of them.

When a worker dies while the frontend waits for the rest of a batch, the requests it has are never
answered: ``WorkerThread`` reports errors to a request it has sent and it had sent none yet. It now
reports them always, and ``BatchAggregator``, told of no request, sends the error to all it holds;
its own way, back into the queue, ends the thread for good when the queue is full.
"""

from __future__ import annotations

import logging
import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path

from skipserve.serving.request_id import HEADER

RENAMED = "x-torchserve-request-id"
# The Java Virtual Machine Specification, 6.5: an instruction that does nothing, and one that takes
# what ``ifnull`` or ``ifeq`` would have tested off the stack.
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
    """Edits that are made together or not at all, each in a class of its own.

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
    (Edit("org/pytorch/serve/util/NettyUtils.class", _constant(HEADER), _constant(RENAMED)),),
    "X-Request-ID of a reply is the frontend's own",
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
            # if (job.isControlCmd()): aload 7, invokevirtual #72, ifeq +13.
            b"\x19\x07\xb6\x00\x48\x99\x00\x0d",
            b"\x19\x07\xb6\x00\x48" + POP + 2 * NOP,
        ),
    ),
    "a request may wait for ever when a worker dies while its batch is gathered",
)
PATCHES = (REQUEST_ID, BATCH_DELAY, ANSWERED)


def patch_frontend(jar: Path, classes: Path) -> None:
    """Write the mended classes below ``classes``, which goes before ``jar`` on the class path."""
    with zipfile.ZipFile(jar) as archive:
        for patch in PATCHES:
            originals = [archive.read(edit.of) for edit in patch.edits]
            pairs = list(zip(patch.edits, originals, strict=True))
            if any(original.count(edit.old) != edit.times for edit, original in pairs):
                logger.warning("%s is not TorchServe 0.12.0's: %s", jar, patch.without)
                continue
            for edit, original in pairs:
                file = classes / edit.of
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(original.replace(edit.old, edit.new))
