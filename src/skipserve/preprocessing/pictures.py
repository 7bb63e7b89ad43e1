"""Pictures to pixel values, as the Pillow processors of transformers make them."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from skipserve.errors import InputError
from skipserve.extras import require
from skipserve.preprocessing.decoding import (
    LARGEST_REQUEST,
    check_pixels,
    open_picture,
    upright,
)
from skipserve.preprocessing.picture_config import PictureInput, Size

if TYPE_CHECKING:
    from PIL.Image import Image


class Pictures:
    """Makes the input of a network from pictures.

    Args:
        config: What becomes of a picture.

    Raises:
        LaunchError: If Pillow is not installed.
    """

    def __init__(self, config: PictureInput) -> None:
        require("PIL")
        self._config = config
        self._table = _table(config)

    def __call__(self, values: Sequence[object], first: int = 0) -> dict[str, NDArray[Any]]:
        """Pixel values, float32 [N, channels, height, width], under the name of the input.

        Args:
            values: Pictures: bytes, base64 or pixels, each as
                :func:`~skipserve.preprocessing.decoding.open_picture` takes it.
            first: Number of the first, for the error.

        Raises:
            InputError: If one is no picture, damaged or too large; names the row.
        """
        config = self._config
        pictures = self._opened(values, first)
        made = np.empty((len(pictures), config.channels, *config.size), dtype=np.float32)
        for row in range(len(made)):  # a decoded picture is freed before the next
            # No other reference: the picture is freed once it is rotated or converted.
            decoded = upright(pictures.popleft(), config.mode, first + row, config.white)
            self._into(made[row], decoded)
        return {config.input: made}

    def _opened(self, values: Sequence[object], first: int) -> deque[Image]:
        """Open the pictures without decoding them; their sizes are checked, alone and together."""
        pictures: deque[Image] = deque()
        pixels = 0
        for row, value in enumerate(values, first):
            picture = open_picture(value, row)
            pixels += picture.width * picture.height
            if pixels > LARGEST_REQUEST:
                raise InputError(
                    "picture_too_large",
                    f"the pictures have more than {LARGEST_REQUEST // 1_000_000} million pixels "
                    "together; send fewer or smaller ones",
                )
            size = _resized(self._config, picture.height, picture.width)
            if size is not None:
                # A picture one pixel wide may have to grow a millionfold.
                height, width = size
                check_pixels(width, height, row, "the picture, resized,")
            pictures.append(picture)
        return pictures

    def _into(self, made: NDArray[np.float32], picture: Image) -> None:
        config = self._config
        size = _resized(config, picture.height, picture.width)
        if size is not None:
            height, width = size
            picture = picture.resize((width, height), resample=config.resample)
        if config.crop is not None:
            picture = _cropped(picture, config.crop)
        pixels = np.asarray(picture)
        if pixels.ndim == 2:
            pixels = pixels[..., None]
        for channel in range(config.channels):
            np.take(self._table[channel], pixels[..., channel], out=made[channel])


def _table(config: PictureInput) -> NDArray[np.float32]:
    """The scaled number for every channel and byte value [channels, 256].

    In the precisions of the original, so that the results are equal to the last bit.
    """
    values: NDArray[np.float32] = np.arange(256).astype(np.float32)
    if config.scale is not None:
        values = (np.arange(256).astype(np.float64) * config.scale).astype(np.float32)
    table = np.repeat(values[None], config.channels, axis=0)
    if config.mean is not None:
        table = table - np.array(config.mean, dtype=np.float32)[:, None]
        table = table / np.array(config.deviation, dtype=np.float32)[:, None]
    return table


def _resized(config: PictureInput, height: int, width: int) -> Size | None:
    """Height and width to resize a picture to, or ``None``."""
    if config.shortest is None:
        return config.resize
    longest = int(config.shortest * max(height, width) / min(height, width))
    return (longest, config.shortest) if width <= height else (config.shortest, longest)


def _cropped(picture: Image, size: Size) -> Image:
    """The centre crop of a picture, padded with black; rounds halves as the original does."""
    height, width = size
    top, left = (picture.height - height) // 2, (picture.width - width) // 2
    return picture.crop((left, top, left + width, top + height))
