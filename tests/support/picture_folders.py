"""Small Hugging Face folders of picture classifiers with random weights, and pictures for them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pictures import drawn
from PIL import Image
from torch import nn

LABELS = ("dark", "plain", "bright")
SIDE = 32
LAYERS = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 48}
FAMILIES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "vit": (
        "ViTForImageClassification",
        {**LAYERS, "num_hidden_layers": 3, "image_size": SIDE, "patch_size": 8},
        {"image_processor_type": "ViTImageProcessor", "size": {"height": SIDE, "width": SIDE}},
    ),
    "resnet": (
        "ResNetForImageClassification",
        {
            "embedding_size": 8,
            "hidden_sizes": [8, 12, 16],
            "depths": [2, 2, 2],
            "layer_type": "basic",
        },
        {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": SIDE}},
    ),
    "convnext": (
        "ConvNextForImageClassification",
        {"hidden_sizes": [8, 12, 16, 24], "depths": [1, 1, 2, 1]},
        {
            "image_processor_type": "ConvNextImageProcessor",
            "size": {"shortest_edge": SIDE},
            "crop_pct": 1.0,
        },
    ),
}


def write(folder: Path, family: str, **changes: Any) -> nn.Module:
    """Write a folder as ``save_pretrained`` does; the network in it."""
    import transformers

    torch.manual_seed(1)
    name, sizes, processor = FAMILIES[family]
    named = {"id2label": dict(enumerate(LABELS)), "label2id": {n: i for i, n in enumerate(LABELS)}}
    config = transformers.AutoConfig.for_model(family, **(sizes | named | changes))
    made: nn.Module = getattr(transformers, name)(config).eval()
    with torch.no_grad():  # so that answers differ from picture to picture
        last = [part for part in made.modules() if isinstance(part, nn.Linear)][-1]
        levels = torch.linspace(-1, 1, 64).view(-1, 1, 1, 1)
        plain = levels + 0.3 * torch.randn(64, 3, SIDE, SIDE)
        for _ in range(2):
            logits = made(pixel_values=plain).logits
            last.weight *= 2 / logits.std(0, keepdim=True).T
            last.bias -= made(pixel_values=plain).logits.mean(0)
    made.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return made


def write_classes(folder: Path, count: int, seed: int = 0) -> list[Path]:
    """Pictures of many sizes, PNG and JPEG, in a folder for each class."""
    random = np.random.default_rng(seed)
    made = []
    for number in range(count):
        height, width = (int(side) for side in random.integers(20, 60, 2))
        bright = random.random(3) * random.random()
        pixels = (drawn(height, width, 3, number) * bright + 100 * random.random()).clip(0, 255)
        place = folder / LABELS[number % len(LABELS)]
        place.mkdir(parents=True, exist_ok=True)
        file = place / f"{number:04}.{'png' if number % 3 else 'jpg'}"
        Image.fromarray(pixels.astype(np.uint8)).save(file)
        made.append(file)
    return made
