"""Models of one's own are brought, served and asked by the commands of README.md and docs/.

The examples of docs/text.md, of the model that the README brings, are run too, and those of
docs/images.md.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import folders
import numpy as np
import onnx
import picture_folders
import pytest
import torch
from clone import Shell, blocks, cloned, commands
from logits import Logits

from skipserve.artifacts.torch_files import export_module
from skipserve.training.checkpoint import load_checkpoint
from skipserve.training.recipes import open_recipe


@pytest.fixture(scope="module")
def clone(tmp_path_factory) -> Path:
    """Nothing is built in it before."""
    return cloned(tmp_path_factory.mktemp("clone"))


def write_network(root: Path, checkpoint: Path) -> None:
    network = load_checkpoint(checkpoint).network.eval()
    model = export_module(Logits(network).eval(), (torch.zeros(2, 2),), ("point",), "logits")
    onnx.save(model, root / "net.onnx")
    samples = open_recipe("two_moons").draw("certify")
    np.savez(root / "rows.npz", point=samples.inputs.numpy(), label=samples.labels.numpy())


def write_folder(root: Path, _: Path) -> None:
    folders.write(root / "film-mood")
    texts = folders.sentences(600)
    moods = [folders.LABELS[len(text) % 3] for text in texts]
    folders.write_rows(root / "reviews.jsonl", texts, mood=moods)


def write_pictures(root: Path, _: Path) -> None:
    names = ("bag", "boot", "sneaker")
    named = {"id2label": dict(enumerate(names)), "label2id": {n: i for i, n in enumerate(names)}}
    picture_folders.write(root / "fashion_resnet", "resnet", depths=[1, 1, 1], **named)
    for folder, count, seed in (("pictures", 300, 0), ("fit", 210, 1)):
        picture_folders.write_classes(root / folder, count, seed)
        for made, name in zip(picture_folders.LABELS, names, strict=True):
            (root / folder / made).rename(root / folder / name)
    first, *_ = sorted((root / "pictures" / "sneaker").glob("*.png"))
    first.rename(first.with_name("a00033.png"))


def test_models_of_ones_own_are_brought_where_a_page_says_so():
    """What is tried below is all that README.md, docs/text.md and docs/images.md try."""
    assert [len(examples(page)) for page in ("docs/text.md", "docs/images.md")] == [2, 2]


def examples(page: str) -> list[tuple[str, str]]:
    """The blocks of a page that ask a model: a terminal's, and those in Python."""
    asking = ("predictions/film_mood", "predictions/fashion_resnet")
    return [
        (kind, content)
        for kind, content in blocks(page)
        if kind == "python" or (kind == "sh" and any(one in content for one in asking))
    ]


@pytest.mark.server
@pytest.mark.parametrize(
    ("page", "source", "write", "more"),
    [
        ("README.md", "net.onnx", write_network, None),
        ("README.md", "film-mood", write_folder, "docs/text.md"),
        ("docs/images.md", "fashion_resnet", write_pictures, "docs/images.md"),
    ],
    ids=["numbers", "texts", "pictures"],
)
def test_a_model_of_ones_own_is_brought_served_and_asked(
    clone, checkpoint, monkeypatch, page, source, write, more
):
    write(clone, checkpoint)
    shells = [commands(content) for kind, content in blocks(page) if kind == "sh"]
    (block,) = [lines for lines in shells if any(f"bring {source} " in line for line in lines)]
    begun = [content for content in examples(more) if commands(content[1]) != block] if more else []
    shell = Shell(clone)
    shell.begun.append(". .venv/bin/activate")
    asked = 0
    with contextlib.ExitStack() as until_asked:
        for command in block:
            if command.startswith("skipserve serve"):
                until_asked.enter_context(shell.serving(command))
            elif command.startswith("curl"):
                reply = json.loads(shell.run(command))
                asked += len(reply["outputs"])
                assert all(0 <= row["depth_run"] <= reply["depth"] for row in reply["outputs"])
            elif command.startswith("pip install"):
                installs(shell, command)
            else:
                shell.run(command)
        for kind, content in begun:
            if kind == "python":
                monkeypatch.chdir(clone)
                exec(content, {})
                continue
            for command in commands(content):
                said = shell.run(command)
                assert not command.startswith("curl") or "error" not in json.loads(said)
    assert asked >= 1


def installs(shell: Shell, command: str) -> None:
    """The project can be installed so, and has each extra; what it asks for is here already."""
    offline = "--dry-run --no-deps --no-build-isolation --no-index"
    said = shell.run(command.replace("pip install", f"pip install {offline}", 1) + " 2>&1")
    assert "Would install skipserve" in said
    assert "does not provide the extra" not in said
