"""What hurts in TorchServe 0.12.0's frontend and can be mended without compiling Java.

Each patch renames one string of one class; a copy of that class in which it is another stands
before the frontend's own on the class path. An archive that is not as expected is left as it is.

``x-request-id`` of every reply is a name of the frontend's own, over what the handler set: the
frontend's goes to another header.

A batch waits for its next request in whole milliseconds, and as long for a lone client: in
``Model``, where nothing else is timed, the unit becomes the microsecond. What is left of the delay
is still counted in milliseconds there, so that it is the wait for each request and no longer that
for all of them.
"""

from __future__ import annotations

import logging
import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path

from skipserve.serving.request_id import HEADER

RENAMED = "x-torchserve-request-id"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Patch:
    """A string of a class that becomes another.

    Attributes:
        of: The class's file.
        old: The string.
        new: What it becomes.
        without: What is so if it cannot be done.
    """

    of: str
    old: str
    new: str
    without: str

    def is_in(self, classes: Path) -> bool:
        """Whether it was applied to what is in this folder."""
        return (classes / self.of).is_file()


REQUEST_ID = Patch(
    "org/pytorch/serve/util/NettyUtils.class",
    HEADER,
    RENAMED,
    "X-Request-ID of a reply is the frontend's own",
)
BATCH_DELAY = Patch(
    "org/pytorch/serve/wlm/Model.class",
    "MILLISECONDS",
    "MICROSECONDS",
    "batches wait for whole milliseconds",
)


def patch_frontend(jar: Path, classes: Path) -> None:
    """Write the mended classes below ``classes``, which goes before ``jar`` on the class path."""
    with zipfile.ZipFile(jar) as archive:
        for patch in (REQUEST_ID, BATCH_DELAY):
            original = archive.read(patch.of)
            old, new = _constant(patch.old), _constant(patch.new)
            if original.count(old) != 1:
                logger.warning("%s is not TorchServe 0.12.0's: %s", jar, patch.without)
                continue
            file = classes / patch.of
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(original.replace(old, new))


def _constant(text: str) -> bytes:
    # CONSTANT_Utf8_info: tag 1, length, bytes (The Java Virtual Machine Specification, 4.4.7).
    return struct.pack(">BH", 1, len(text)) + text.encode()
