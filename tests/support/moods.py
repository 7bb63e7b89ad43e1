"""A small BERT that tells moods, as transformers runs it and as a project brings it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import folders
import torch
from folders import LABELS, sentences
from small_router import small_router

from skipserve.building.buildfile import read_build_file
from skipserve.building.steps import run_steps
from skipserve.preprocessing.opening import preprocessor_of
from skipserve.sources.config import Exporter
from skipserve.sources.read import ReadSource

ODD = [
    "",
    "   ",
    "\t\n",
    "🙂 ba de 🙃🙃",
    "שלום עולם",
    "مرحبا بالعالم",
    "ba\u0301 de\u0301 \u200b fa\ufeff",
    "\x00\x01ba",
    "[CLS] ba [SEP] de [MASK]",
    "BA De fOr",
    "漢字かな交じり文",
    "ba" * 300,
    "ba de fi go lu " * 7_000,
]
SCRIPT: tuple[Exporter, ...] = ("torchscript",)
MODEL = (
    """
name = "moods"
[source]
folder = "net"
exporters = ["torchscript"]
[data]
rows = "rows.jsonl"
text = "body"
labels = "mood"
"""
    + small_router(0, 2, 4)
    + """\
max_rows = 64
"""
)


def prepared(read: ReadSource, folder: Path) -> Any:
    assert read.prepared is not None
    folder.mkdir(exist_ok=True)
    for name, content in read.prepared.files.items():
        (folder / name).write_bytes(content)
    return preprocessor_of(read.prepared.config, folder)


def logits(net: torch.nn.Module, folder: Path, texts: list[Any]) -> Any:
    """What transformers itself makes of texts or pairs, truncated as its pipeline does."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokens = tokenizer(texts, truncation=True, padding=True, return_tensors="pt")
    with torch.no_grad():
        return net(**tokens).logits.numpy()


def reference(root: Path, texts: list[Any]) -> Any:
    from transformers import AutoModelForSequenceClassification

    net = AutoModelForSequenceClassification.from_pretrained(root / "net").eval()
    return torch.from_numpy(logits(net, root / "net", texts)).softmax(dim=-1).numpy()


def make(root: Path) -> None:
    """Bring it to a project, with texts and the labels it gives them."""
    net = folders.write(root / "net")
    texts = sentences(900)
    given = logits(net, root / "net", texts).argmax(axis=1)
    folders.write_rows(root / "rows.jsonl", texts, mood=[LABELS[label] for label in given])
    (root / "export").mkdir()
    (root / "export" / "moods.toml").write_text(MODEL)
    build = read_build_file(root / "export" / "moods.toml")
    run_steps(build, lambda epoch: None, lambda line: None)
