"""Patches for two faults of the TorchServe 0.12.0 frontend that make clients wait.

All else is TorchServe's own. Copies of three classes, a few bytes of each changed, stand before the
frontend's on the class path; of any other frontend than that one nothing is changed.

When a worker dies while the frontend waits for the rest of a batch, the requests it has are never
answered: ``WorkerThread`` reports errors to a request it has sent and it had sent none yet. It now
reports them always, and ``BatchAggregator``, told of no request, sends the error to all it holds;
its own way, back into the queue, ends the thread for good when the queue is full.

The frontend keeps a request's own name with its connection. A reply to an earlier request of that
connection takes it away, from another thread: a request that has just come in then has none, cannot
be sent, and its batch and all behind it wait until the worker is ended. The name now stays where it
is until the next request's takes its place.
"""

from __future__ import annotations

import logging
import zipfile
from dataclasses import dataclass
from pathlib import Path

from skipserve.files import sha256_of

# model-server.jar of torchserve 0.12.0, the last release, from PyPI.
SHA256 = "ce340411ce54beaacd3dcfa31644a9aa369a83a36ed687172ba1088a13123dfe"
# The Java Virtual Machine Specification, 6.5: an instruction that does nothing, and one that takes
# off the stack what ``ifnull`` would have tested.
_NOP, _POP = b"\x00", b"\x57"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Edit:
    """A replacement of bytes in a class file.

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


EDITS = (
    Edit(
        "org/pytorch/serve/wlm/WorkerThread.class",
        # if (this.req != null): aload_0, getfield #32, ifnull +18; in each copy of `finally`.
        b"\x2a\xb4\x00\x20\xc6\x00\x12",
        b"\x2a\xb4\x00\x20" + _POP + 2 * _NOP,
        times=7,
    ),
    Edit(
        "org/pytorch/serve/wlm/BatchAggregator.class",
        # if (job.isControlCmd()), aload 7, invokevirtual #72, ifeq +13, becomes
        # if (job != null), ifnull +22, past both branches: another thread may have taken it.
        b"\x19\x07\xb6\x00\x48\x99\x00\x0d",
        b"\x19\x07\xc6\x00\x16" + 3 * _NOP,
    ),
    Edit(
        "org/pytorch/serve/util/NettyUtils.class",
        # aconst_null, invokeinterface #177 (Attribute.getAndSet), checkcast, astore 4, becomes
        # invokeinterface #19 (Attribute.get) and the rest.
        b"\x01\xb9\x00\xb1\x02\x00\xc0\x00\x19\x3a\x04",
        _NOP + b"\xb9\x00\x13\x01\x00\xc0\x00\x19\x3a\x04",
    ),
)


def patch_frontend(jar: Path, classes: Path) -> None:
    """Write patched classes below ``classes``, which precedes ``jar`` on the class path.

    A frontend that is not TorchServe 0.12.0's is left as it is, and one line says so.
    """
    if sha256_of(jar) != SHA256:
        logger.warning(
            "%s is not TorchServe 0.12.0's and is left as it is: a request may wait for ever when "
            "a worker dies, and a client that does not wait for replies can stall a model",
            jar,
        )
        return
    with zipfile.ZipFile(jar) as archive:
        for edit in EDITS:
            file = classes / edit.of
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(archive.read(edit.of).replace(edit.old, edit.new))
