"""Text networks: tokens of free length, with and without a mask."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from once import alone
from small_router import small_router

from skipserve.building.buildfile import read_build_file
from skipserve.building.steps import run_steps

TOKENS, CLASSES, LENGTH = 50, ("no", "maybe", "yes"), 8
SOURCE = """
import torch
from torch import nn

class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.mix, self.out = nn.Linear(16, 16), nn.Linear(16, 16)

    def forward(self, x, weight):
        about = (x * weight).sum(1, keepdim=True) / weight.sum(1, keepdim=True)
        return x + self.out(torch.relu(self.mix(x) + about))

class Texts(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(50, 16)
        self.blocks = nn.ModuleList([Block() for _ in range(3)])
        self.head = nn.Linear(16, 3)

    def answer(self, input_ids, weight):
        x = self.embed(input_ids)
        for block in self.blocks:
            x = block(x, weight)
        return 8 * self.head((x * weight).sum(1) / weight.sum(1))

class Masked(Texts):
    def forward(self, input_ids, attention_mask):
        return self.answer(input_ids, attention_mask.unsqueeze(-1).to(torch.float32))

class Bare(Texts):
    def forward(self, input_ids):
        return self.answer(input_ids, torch.ones_like(input_ids).unsqueeze(-1).to(torch.float32))

class Vectors(Masked):
    def forward(self, input_ids, attention_mask):
        weight = attention_mask.unsqueeze(-1).to(torch.float32)
        x = self.embed(input_ids)
        for block in self.blocks:
            x = block(x, weight)
        return nn.functional.normalize((x * weight).sum(1) / weight.sum(1), dim=1)

class Pairs(Masked):
    def forward(self, input_ids, attention_mask):
        return super().forward(input_ids, attention_mask)[:, :1]

def vectors():
    ids = torch.arange(16).reshape(2, 8)
    return Vectors(), (ids, torch.ones_like(ids))

def pairs():
    ids = torch.arange(16).reshape(2, 8)
    return Pairs(), (ids, torch.ones_like(ids))

def masked():
    ids = torch.arange(16).reshape(2, 8)
    return Masked(), (ids, torch.ones_like(ids))

def bare():
    return Bare(), (torch.arange(16).reshape(2, 8),)
"""
MODEL = """
name = "{name}"
[source]
module = "texts_network:{name}"
[task]
{task}
[data]
rows = "{name}.npz"
""" + small_router(0, 1, 2)


TASKS = {
    "vectors": 'kind = "embed"\ncosine = 0.9',
    "pairs": 'kind = "score"\ntolerance = 1.0',
}
NAMED = 'names = ["no", "maybe", "yes"]'


def texts(count: int, length: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Rows of one length, none padded."""
    ids = np.random.default_rng(seed).integers(1, TOKENS, (count, length))
    return {"input_ids": ids, "attention_mask": np.ones_like(ids)}


def build(root: Path, name: str) -> Path:
    """Bring ``masked``, ``bare``, ``vectors`` or ``pairs`` into a project; its artifact.

    Whoever asks again, in whichever process, is given what was built.
    """
    file = root / "export" / f"{name}.toml"
    with alone(root):
        if not file.is_file():
            file.parent.mkdir(exist_ok=True)
            (root / "texts_network.py").write_text(SOURCE)
            rows = texts(800, LENGTH)
            if name == "bare":
                del rows["attention_mask"]
            np.savez(root / f"{name}.npz", **rows)
            model = MODEL.format(name=name, task=TASKS.get(name, NAMED))
            if name in TASKS:
                # Estimates of agreement would take most of the time of so small a build.
                model = model.replace("[router]", '[router]\nsignal = "norm"')
            file.write_text(model)
        build_file = read_build_file(file)
        run_steps(build_file, lambda epoch: None, lambda line: None)
    return build_file.artifact
