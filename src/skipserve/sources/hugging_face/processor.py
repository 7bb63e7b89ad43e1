"""``preprocessor_config.json`` of a Hugging Face folder: picture preprocessing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from skipserve.errors import ConfigError
from skipserve.preprocessing.picture_config import PictureInput
from skipserve.schema import parse

FILE = "preprocessor_config.json"
HALF = (0.5, 0.5, 0.5)
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
BILINEAR, BICUBIC = 2, 3
SQUARE = {"height": 224, "width": 224}
SHORTEST = {"shortest_edge": 224}
# Where ConvNeXt's processor stretches a picture in place of cropping it.
STRETCHED = 384


@dataclass(frozen=True)
class _Defaults:
    """Defaults of a processor."""

    resample: int
    size: Mapping[str, int]
    crop: Mapping[str, int] | None = None
    normal: tuple[tuple[float, ...], tuple[float, ...]] = field(default=(HALF, HALF))
    square: bool = True
    white: bool = False


# Processors that resize, crop, scale and shift, and do nothing else.
PROCESSORS = {
    "ViT": _Defaults(BILINEAR, SQUARE),
    "DeiT": _Defaults(BICUBIC, {"height": 256, "width": 256}, SQUARE),
    "ConvNext": _Defaults(BICUBIC, {"shortest_edge": STRETCHED}, square=False),
    "Bit": _Defaults(BICUBIC, SHORTEST, SQUARE, CLIP, square=False, white=True),
    "CLIP": _Defaults(BICUBIC, SHORTEST, SQUARE, CLIP, square=False, white=True),
    "Siglip": _Defaults(BICUBIC, SQUARE, square=False, white=True),
    "Pvt": _Defaults(BICUBIC, SQUARE, normal=IMAGENET),
    "MobileNetV1": _Defaults(BILINEAR, {"shortest_edge": 256}, SQUARE, square=False),
}
# The standard mean and deviation of ImageNet in these processors is a half each.


def read_processor(folder: Path) -> dict[str, Any]:
    """The processor's file in a folder.

    Raises:
        ConfigError: If it is missing or no object in JSON.
    """
    file = folder / FILE
    if not file.is_file():
        raise ConfigError(
            f"{folder} has no {FILE}, so pictures cannot become pixel values; add the file that "
            "the processor's save_pretrained writes"
        )
    try:
        values = json.loads(file.read_text())
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{file} is not JSON: {error}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{file} holds no object")
    return values


def picture_input(values: Mapping[str, Any], where: str, channels: int = 3) -> PictureInput:
    """The picture preprocessing of a processor file.

    Args:
        values: Content of ``preprocessor_config.json``.
        where: Its name, for the error.
        channels: That the network takes.

    Raises:
        ConfigError: If the processor is of another kind, or its pictures come out in several
            sizes.
    """
    kind = _kind(values, where)
    known = PROCESSORS[kind]

    def asked(name: str, default: Any) -> Any:
        return default if values.get(name) is None else values[name]

    if values.get("auto_map"):
        raise ConfigError(f"{where} names code of its own (auto_map); that is not run")
    if values.get("do_pad"):
        raise ConfigError(f"{where} pads pictures (do_pad), which is not supported")
    made: dict[str, Any] = {
        "mode": _mode(channels, where),
        "resample": asked("resample", known.resample),
        "white": bool(asked("do_convert_rgb", known.white)),
    }
    if asked("do_resize", True):
        size = _size(asked("size", known.size), known.square, where)
        made |= _convnext(size, asked("crop_pct", 224 / 256)) if kind == "ConvNext" else size
    if asked("do_center_crop", known.crop is not None):
        crop = _crop(asked("crop_size", known.crop), where)
        if made.get("crop", crop) != crop:
            raise ConfigError(f"{where} crops pictures twice; leave do_center_crop out")
        made["crop"] = crop
    if asked("do_rescale", True):
        made["scale"] = float(asked("rescale_factor", 1 / 255))
    if asked("do_normalize", True):
        for name, key, default in zip(
            ("mean", "deviation"), ("image_mean", "image_std"), known.normal, strict=True
        ):
            made[name] = _per_channel(asked(key, default), channels)
    if "resize" not in made and "crop" not in made:
        raise ConfigError(
            f"{where}: pictures come out in several sizes; set do_center_crop with a crop_size, or "
            "a size with height and width"
        )
    return parse(PictureInput, made, where)


def _kind(values: Mapping[str, Any], where: str) -> str:
    name = values.get("image_processor_type") or values.get("feature_extractor_type")
    if not isinstance(name, str):
        raise ConfigError(f"{where} does not say which processor it is for (image_processor_type)")
    kind = name.removesuffix("Fast").removesuffix("Pil")
    kind = kind.removesuffix("ImageProcessor").removesuffix("FeatureExtractor")
    if kind not in PROCESSORS:
        raise ConfigError(
            f"{where}: the processor {name} is not known; known: {', '.join(PROCESSORS)}"
        )
    return kind


def _mode(channels: int, where: str) -> Literal["RGB", "L"]:
    if channels not in (1, 3):
        raise ConfigError(f"{where}: the network takes {channels} channels; expected 3, or 1")
    return "RGB" if channels == 3 else "L"


def _size(size: Any, square: bool, where: str) -> dict[str, Any]:
    if isinstance(size, int):
        size = {"height": size, "width": size} if square else {"shortest_edge": size}
    elif isinstance(size, (list, tuple)) and len(size) == 2:
        size = {"height": size[0], "width": size[1]}
    if isinstance(size, Mapping):
        if set(size) == {"height", "width"}:
            return {"resize": (size["height"], size["width"])}
        if set(size) == {"shortest_edge"}:
            return {"shortest": size["shortest_edge"]}
    raise ConfigError(f"{where}: size is {size!r}; expected a height and width, or a shortest_edge")


def _convnext(size: dict[str, Any], kept: float) -> dict[str, Any]:
    """ConvNeXt resizes to a larger picture and crops its centre."""
    edge = size.get("shortest")
    if edge is None:
        raise ConfigError(f"size is {size}; a ConvNext processor takes a shortest_edge")
    if edge >= STRETCHED:
        return {"resize": (edge, edge)}
    return {"shortest": int(edge / kept), "crop": (edge, edge)}


def _crop(size: Any, where: str) -> tuple[int, int]:
    made = _size(size, True, f"{where}: crop_size").get("resize")
    if made is None:
        raise ConfigError(f"{where}: crop_size is {size!r}; expected a height and width")
    height, width = made
    return height, width


def _per_channel(values: Any, channels: int) -> tuple[float, ...]:
    """One number for each channel; a single number applies to all."""
    if isinstance(values, (int, float)):
        return (float(values),) * channels
    if len(set(values)) == 1:
        return (float(values[0]),) * channels
    return tuple(float(value) for value in values)
