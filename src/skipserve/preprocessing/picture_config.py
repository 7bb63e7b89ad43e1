"""Picture preprocessing as the manifest stores it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from skipserve.schema import Record

Pixels = Annotated[int, Field(ge=1, le=8192)]
Size = tuple[Pixels, Pixels]
# Pillow reads many more, some of them with the help of other programs.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
TAKES = (
    f"a picture ({', '.join(FORMATS[:-1])} or {FORMATS[-1]}) in base64, or its pixels "
    "[height, width, 3], whole numbers from 0 to 255"
)


class PictureInput(Record):
    """A picture: resized, cropped, scaled and shifted, in this order.

    Attributes:
        input: The input of the network that takes the pixels, float32 [N, channels, height, width].
        mode: ``RGB``, or ``L`` for one channel of grey.
        white: Whether the one colour that a file calls clear becomes white.
        resize: Height and width that a picture is stretched to.
        shortest: In its place: length of the shortest side, the ratio of the sides kept.
        resample: Pillow's number of the filter: 0 nearest, 1 Lanczos, 2 bilinear, 3 bicubic,
            4 box, 5 Hamming.
        crop: Height and width that are cut out of the middle; where there is less, black is added.
        scale: What a value of 0 … 255 is multiplied with, or ``None``.
        mean: Subtracted from each channel after scaling, or ``None``.
        deviation: What each channel is then divided by, or ``None``.
    """

    kind: Literal["picture"] = "picture"
    input: str = "pixel_values"
    mode: Literal["RGB", "L"] = "RGB"
    white: bool = False
    resize: Size | None = None
    shortest: Pixels | None = None
    resample: Annotated[int, Field(ge=0, le=5)] = 2
    crop: Size | None = None
    scale: Annotated[float, Field(gt=0)] | None = None
    mean: tuple[float, ...] | None = None
    deviation: tuple[float, ...] | None = None

    def model_post_init(self, _context: object) -> None:
        if self.resize is not None and self.shortest is not None:
            raise ValueError("a picture is resized to a height and width or to a shortest side")
        if self.resize is None and self.crop is None:
            raise ValueError("pictures must come out in one size: give resize or crop")
        if (self.mean is None) != (self.deviation is None):
            raise ValueError("mean and deviation belong together")
        for name, values in (("mean", self.mean), ("deviation", self.deviation)):
            if values is not None and len(values) != self.channels:
                raise ValueError(f"{name} has {len(values)} values for {self.channels} channels")
        if self.deviation is not None and 0 in self.deviation:
            raise ValueError("a deviation is 0")

    @property
    def files(self) -> tuple[()]:
        """The files of the artifact that it needs: none."""
        return ()

    @property
    def name(self) -> str:
        """The name of the tensor in the Open Inference Protocol."""
        return "picture"

    @property
    def takes(self) -> str:
        """A value in words, for errors: "expected …"."""
        return TAKES

    @property
    def schema_of_value(self) -> dict[str, Any]:
        """JSON Schema of one value."""
        pixel = {"type": "integer", "minimum": 0, "maximum": 255}
        lines = {"type": "array", "items": {"type": "array", "items": pixel, "minItems": 1}}
        planes = {"type": "array", "items": {**lines, "minItems": 1}, "minItems": 1}
        file = {"type": "string", "contentEncoding": "base64"}
        return {"anyOf": [file, {**lines, "minItems": 1}, planes]}

    @property
    def widest(self) -> int:
        """Most strings in one value in the Open Inference Protocol."""
        return 1

    @property
    def channels(self) -> int:
        """Channels of a pixel."""
        return len(self.mode)

    @property
    def size(self) -> Size:
        """Height and width of every preprocessed picture."""
        size = self.crop or self.resize
        assert size is not None
        return size
