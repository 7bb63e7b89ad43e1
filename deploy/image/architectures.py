#!/usr/bin/env python3
"""Which GPU architectures the libraries in a wheel hold machine code for; needs no GPU.

`pip download --no-deps onnxruntime-gpu==… && deploy/image/architectures.py onnxruntime_gpu-*.whl`
prints, for a T4 to be served, a line with sm_75. Read from the headers of the fat binaries: magic,
u16 version, u16 length of the header, u64 length of the rest; then entries of u16 kind (1 PTX,
2 machine code), u16, u32 length of the header, u64 length, and u32 architecture 28 bytes in.
"""

from __future__ import annotations

import struct
import sys
import zipfile
from collections import Counter

MAGIC = struct.pack("<I", 0xBA55ED50)


def architectures(library: bytes) -> Counter[str]:
    """How many pieces of code a library holds for each architecture."""
    found: Counter[str] = Counter()
    place = -1
    while (place := library.find(MAGIC, place + 1)) >= 0:
        _, header, length = struct.unpack_from("<HHQ", library, place + 4)
        entry, end = place + header, place + header + length
        while end <= len(library) and entry + 32 <= end:
            kind, _, header, length = struct.unpack_from("<HHIQ", library, entry)
            if kind not in (1, 2) or not 32 <= header <= 4096:  # the magic was not one
                break
            number = struct.unpack_from("<I", library, entry + 28)[0]
            found[f"{'sm' if kind == 2 else 'compute'}_{number}"] += 1
            entry += header + length
    return found


for wheel in sys.argv[1:]:
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if ".so" in name and (code := architectures(archive.read(name))):
                print(name, *(f"{key}:{count}" for key, count in sorted(code.items())))
