"""Pictures of every kind, drawn by the tests, as bytes of files."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

ROTATIONS = range(1, 9)
EXIF_ORIENTATION = 0x0112


def drawn(height: int, width: int, channels: int, seed: int) -> np.ndarray:
    """A picture with edges, slopes and noise: uint8 [height, width, channels]."""
    random = np.random.default_rng(seed)
    down, across = np.mgrid[0:height, 0:width]
    waves = [
        np.sin(down / (3 + seed % 11) + phase) * np.cos(across / (5 + seed % 7) - phase)
        for phase in range(channels)
    ]
    picture = 127 + 90 * np.stack(waves, axis=-1) + random.normal(0, 20, (height, width, channels))
    picture[height // 3 : height // 2, width // 4 : width // 2] = random.integers(0, 256, channels)
    return picture.clip(0, 255).astype(np.uint8)


def saved(picture: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    """The file of a picture."""
    file = BytesIO()
    picture.save(file, format=format, **options)
    return file.getvalue()


def ordinary(count: int, seed: int = 0) -> Iterator[bytes]:
    """Pictures as people send them: of many sizes, JPEG and PNG by turns."""
    random = np.random.default_rng(seed)
    for number in range(count):
        height, width = (int(side) for side in random.integers(20, 400, 2))
        picture = Image.fromarray(drawn(height, width, 3, number))
        yield saved(picture, "PNG") if number % 2 else saved(picture, "JPEG", quality=85)


def real() -> Iterator[bytes]:
    """Photographs and drawings that come with other packages."""
    import matplotlib
    import scipy.ndimage
    import sklearn.datasets

    folders = (
        Path(sklearn.datasets.__file__).parent / "images",
        Path(matplotlib.__file__).parent / "mpl-data" / "sample_data",
        Path(matplotlib.__file__).parent / "mpl-data" / "images",
        Path(scipy.ndimage.__file__).parent / "tests",
    )
    for folder in folders:
        for file in sorted((*folder.glob("*.jpg"), *folder.glob("*.png"))):
            yield file.read_bytes()


def odd() -> dict[str, bytes]:
    """Pictures that decoders stumble over, by what is odd about them."""
    colours = Image.fromarray(drawn(50, 70, 3, 1))
    alpha = Image.fromarray(drawn(50, 70, 4, 2), mode="RGBA")
    palette = colours.quantize(17)
    deep = Image.fromarray(np.arange(60 * 40, dtype=np.uint16).reshape(40, 60) * 27)
    made = {
        "CMYK": saved(colours.convert("CMYK"), "JPEG"),
        "YCbCr, progressive": saved(colours, "JPEG", progressive=True, subsampling=0),
        "palette": saved(palette),
        "palette with a clear colour": saved(palette, transparency=3),
        "grey": saved(colours.convert("L")),
        "grey JPEG": saved(colours.convert("L"), "JPEG"),
        "grey and opacity": saved(alpha.convert("LA")),
        "opacity": saved(alpha),
        "a clear colour": saved(colours, transparency=tuple(drawn(50, 70, 3, 1)[4, 5].tolist())),
        "black and white": saved(colours.convert("1")),
        "16 bit": saved(deep),
        "one pixel": saved(Image.new("RGB", (1, 1), (9, 200, 77))),
        "one row": saved(Image.fromarray(drawn(1, 90, 3, 3))),
        "one column": saved(Image.fromarray(drawn(90, 1, 3, 4))),
        "WebP": saved(colours, "WEBP", lossless=True),
        "GIF of two pictures": saved(palette, "GIF", save_all=True, append_images=[palette]),
        "BMP": saved(colours, "BMP"),
        "interlaced": saved(colours, "PNG", interlace=True),
    }
    for rotation in ROTATIONS:
        exif = Image.Exif()
        exif[EXIF_ORIENTATION] = rotation
        made[f"turned {rotation}"] = saved(colours, "JPEG", exif=exif)
        made[f"PNG turned {rotation}"] = saved(colours, "PNG", exif=exif)
    return made


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that declares many pixels."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(b"\0" * 64)
    parts = [(b"IHDR", head), (b"IDAT", body), (b"IEND", b"")]
    chunks = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)
