"""Opening pictures as clients send them: file bytes, base64, or an array of pixels.

Opening reads the header alone. What a header declares is held against limits before a pixel is
decoded, because a few kilobytes may declare gigabytes.
"""

from __future__ import annotations

import binascii
from collections.abc import Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from skipserve.errors import InputError
from skipserve.preprocessing.picture_config import FORMATS, TAKES

if TYPE_CHECKING:
    from PIL.Image import Image

# Pillow keeps a pixel of colours in four bytes: a picture of so many takes 200 MB decoded, and
# twice as much while it is turned or converted. Large cameras take 45 to 50 million.
LARGEST_PICTURE = 50_000_000
# Pixels of all pictures of one request, which bounds the time.
LARGEST_REQUEST = 200_000_000
# Channels of arrays: grey, colours, colours and opacity.
CHANNELS = (1, 3, 4)


def open_picture(value: object, row: int) -> Image:
    """Open a picture without decoding it.

    Args:
        value: A file's bytes; the same in base64, a ``data:`` URL too; pixels [height, width],
            [height, width, channels] or [channels, height, width], 0 … 255; or a Pillow image.
        row: Its number, for the error.

    Raises:
        InputError: If it is no picture, or declares too many pixels.
    """
    from PIL.Image import Image as Opened

    if isinstance(value, Opened):
        check_pixels(value.width, value.height, row)
        return value
    if isinstance(value, str):
        value = _from_base64(value, row)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return _from_file(bytes(value), row)
    if isinstance(value, (list, tuple, np.ndarray)):
        return _from_array(value, row)
    raise _refused("wrong_type", f"{type(value).__name__} is no picture; expected {TAKES}", row)


def upright(picture: Image, mode: Literal["RGB", "L"], row: int, white: bool = False) -> Image:
    """Decode a picture in a mode, rotated by its EXIF orientation.

    Opacity is dropped, not blended with a background, as transformers' ``load_image`` does.

    Args:
        picture: Opened.
        mode: Of the result.
        row: Its number, for the error.
        white: Whether the one colour that a file calls clear becomes white, as in processors with
            ``do_convert_rgb``.

    Raises:
        InputError: If the file is damaged or ends early.
    """
    from PIL import ExifTags, Image, ImageOps

    try:
        picture.load()
        # Rotate and convert only if needed, because each copies up to 200 MB.
        if picture.getexif().get(ExifTags.Base.Orientation, 1) != 1:
            picture = ImageOps.exif_transpose(picture)
        decoded = picture if picture.mode == mode else picture.convert(mode)
        del picture
        if white and decoded.info.get("transparency") is not None:
            seen = decoded.convert("RGBA").getchannel("A")
            under = Image.new(mode, decoded.size, "white")
            under.paste(decoded, mask=seen)
            return under
        return decoded
    except MemoryError:
        raise
    except Exception as error:  # each decoder of Pillow raises its own exception types
        raise _refused(
            "invalid_picture",
            f"the picture cannot be decoded: {_first_line(error)}; is the file complete?",
            row,
        ) from None


def _from_base64(text: str, row: int) -> bytes:
    if text.startswith("data:"):
        head, comma, text = text.partition(",")
        if not comma or not head.endswith(";base64"):
            raise _refused("invalid_picture", "a data: URL must be data:image/…;base64,…", row)
    elif "://" in text[:16]:
        raise _refused(
            "invalid_picture", f"pictures are not fetched from addresses; expected {TAKES}", row
        )
    try:
        return binascii.a2b_base64("".join(text.split()), strict_mode=True)
    except ValueError as error:  # letters that are not ASCII raise one without a class of its own
        reason = str(error)[:1].lower() + str(error)[1:]
        raise _refused(
            "invalid_picture", f"the picture is not base64: {reason}; expected {TAKES}", row
        ) from None


def _from_file(data: bytes, row: int) -> Image:
    from PIL import Image, UnidentifiedImageError

    try:
        picture = Image.open(BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        raise _refused(
            "invalid_picture", f"the file is no picture that is read here; expected {TAKES}", row
        ) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_large("the picture", row) from None
    except Exception as error:  # each reader of Pillow raises its own exception types
        raise _refused(
            "invalid_picture", f"the picture cannot be read: {_first_line(error)}", row
        ) from None
    check_pixels(picture.width, picture.height, row)
    return picture


def check_pixels(width: int, height: int, row: int, what: str = "the picture") -> None:
    """Refuse a picture with too many pixels.

    Raises:
        InputError: Naming what has them.
    """
    if width * height > LARGEST_PICTURE:
        raise _too_large(f"{what} of {width} × {height} pixels", row)


def _too_large(what: str, row: int) -> InputError:
    most = LARGEST_PICTURE // 1_000_000
    return _refused(
        "picture_too_large", f"{what} has more than {most} million pixels; send it smaller", row
    )


def _from_array(value: Sequence[object] | np.ndarray[Any, Any], row: int) -> Image:
    from PIL import Image

    try:
        pixels = np.asarray(value)
    except ValueError:
        raise _refused(
            "ragged", "the rows of pixels are of different length; expected a rectangle", row
        ) from None
    # A picture may be 1, 3 or 4 pixels high: channels stand in front only if not at the end.
    if pixels.ndim == 3 and pixels.shape[-1] not in CHANNELS and pixels.shape[0] in CHANNELS:
        pixels = np.moveaxis(pixels, 0, -1)
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[-1] not in CHANNELS):
        raise _refused(
            "wrong_shape",
            f"pixels of shape {list(pixels.shape)} are no picture; expected [height, width], "
            "[height, width, channels] or [channels, height, width] with 1, 3 or 4 channels",
            row,
        )
    if not pixels.size:
        raise _refused("empty", "the picture has no pixel", row)
    if pixels.dtype.kind not in "iu" or pixels.min() < 0 or pixels.max() > 255:
        raise _refused(
            "wrong_type",
            "pixels must be whole numbers from 0 to 255, unscaled; scaled ones are sent as a named "
            "tensor",
            row,
        )
    check_pixels(pixels.shape[1], pixels.shape[0], row)
    if pixels.ndim == 3 and pixels.shape[-1] == 1:
        pixels = pixels[..., 0]
    return Image.fromarray(np.ascontiguousarray(pixels, dtype=np.uint8))


def _refused(code: str, message: str, row: int) -> InputError:
    return InputError(code, f"row {row}: {message}", row)


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
