"""What hurts in TorchServe 0.12.0's frontend and can be mended without compiling Java.

The frontend sets ``x-request-id`` of every reply to a name of its own, over what the handler set.
The header's name is one string of one class; a copy of that class in which it is another stands
before the frontend's own on the class path. An archive that is not as expected is left as it is.
"""

from __future__ import annotations

import logging
import struct
import zipfile
from pathlib import Path

from skipserve.serving.request_id import HEADER

CLASS = "org/pytorch/serve/util/NettyUtils.class"
RENAMED = "x-torchserve-request-id"

logger = logging.getLogger(__name__)


def patch_frontend(jar: Path, directory: Path) -> None:
    """Write the mended class below ``directory``, which goes before ``jar`` on the class path."""
    with zipfile.ZipFile(jar) as archive:
        original = archive.read(CLASS)
    old, new = _constant(HEADER), _constant(RENAMED)
    if original.count(old) != 1:
        logger.warning(
            "%s is not TorchServe 0.12.0's: X-Request-ID of a reply is the frontend's own", jar
        )
        return
    file = directory / CLASS
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(original.replace(old, new))


def _constant(text: str) -> bytes:
    # CONSTANT_Utf8_info: tag 1, length, bytes (The Java Virtual Machine Specification, 4.4.7).
    return struct.pack(">BH", 1, len(text)) + text.encode()
