"""A small network of pictures of 12 × 12 pixels that takes them as files."""

from __future__ import annotations

import base64
from pathlib import Path

import numpy as np
from pictures import drawn, saved
from PIL import Image
from small_router import small_router

from skipserve.artifacts.artifact import Artifact, open_artifact
from skipserve.artifacts.manifest import write_manifest
from skipserve.building.buildfile import read_build_file
from skipserve.building.steps import run_steps
from skipserve.preprocessing.picture_config import PictureInput
from skipserve.preprocessing.pictures import Pictures

CONFIG = PictureInput(
    resize=(12, 12), resample=3, scale=1 / 255, mean=(0.5,) * 3, deviation=(0.5,) * 3
)
SOURCE = """
import torch
from torch import nn

class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.into, self.out = nn.Conv2d(6, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)

    def forward(self, x):
        return torch.relu(x + self.out(torch.relu(self.into(x))))

class Network(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 6, 3, stride=2, padding=1)
        self.blocks = nn.Sequential(*[Block() for _ in range(3)])
        self.head = nn.Linear(6, 4)
        with torch.no_grad():  # so that answers differ from picture to picture
            plain = (1.4 * torch.rand(64, 3, 1, 1) - 1).expand(64, 3, 12, 12)
            self.head.bias -= self.forward(plain).mean(0) / 20

    def forward(self, pixel_values):
        return 20 * self.head(self.blocks(self.stem(pixel_values)).mean((2, 3)))

def seen():
    return Network(), (torch.rand(2, 3, 12, 12),)
"""
MODEL = """
name = "seen"
[source]
module = "picture_network:seen"
[data]
rows = "seen.npz"
""" + small_router(0, 1, 2)


def files(count: int, seed: int = 0) -> list[bytes]:
    """PNG files of pictures of many sizes, bright and dark."""
    random = np.random.default_rng(seed)
    made = []
    for number in range(count):
        height, width = (int(side) for side in random.integers(8, 30, 2))
        bright = random.random(3)
        pixels = (drawn(height, width, 3, number) * bright).astype(np.uint8)
        made.append(saved(Image.fromarray(pixels)))
    return made


def build(root: Path, folder: Path) -> Artifact:
    """Bring the network to a project; a copy of its artifact in a folder, which takes pictures."""
    (root / "export").mkdir(exist_ok=True)
    (root / "picture_network.py").write_text(SOURCE)
    some = files(800)
    np.savez(root / "seen.npz", **Pictures(CONFIG)(some))
    (root / "export" / "seen.toml").write_text(MODEL)
    build_file = read_build_file(root / "export" / "seen.toml")
    run_steps(build_file, lambda epoch: None, lambda line: None)
    artifact = open_artifact(build_file.artifact)
    for entry in artifact.directory.iterdir():
        (folder / entry.name).write_bytes(entry.read_bytes())
    example = artifact.manifest.example.model_copy(
        update={"value": base64.b64encode(some[0]).decode()}
    )
    made = {"preprocessing": CONFIG, "example": example}
    write_manifest(folder, artifact.manifest.model_copy(update=made))
    return open_artifact(folder)
