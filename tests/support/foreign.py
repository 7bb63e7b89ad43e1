"""Networks that were not trained here, exported as ONNX files by the tests."""

from __future__ import annotations

import contextlib
import io
import warnings
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import nn

TOKENS, WORDS, SIDE = 2_000, 9, 32
SMALL = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 48}
LAYERS = 3
NAMES = ("bert", "distilbert", "roberta", "vit", "resnet")
EXPORTERS = ("dynamo", "script")
# Residual steps: attention and feed-forward of each layer; eight blocks of a ResNet.
BLOCKS = dict.fromkeys(NAMES, 2 * LAYERS) | {"resnet": 8}


class Logits(nn.Module):
    """A model of transformers that takes its inputs in order and gives its logits alone."""

    def __init__(self, model: nn.Module, names: tuple[str, ...]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        return self.model(**dict(zip(self.names, inputs, strict=True))).logits


@cache
def network(name: str) -> Logits:
    """A small network with random weights."""
    import transformers as t

    torch.manual_seed(0)
    words = {"vocab_size": TOKENS, "max_position_embeddings": 160, "num_labels": 5}
    layers = {"num_hidden_layers": LAYERS}
    distil = {"dim": 32, "n_heads": 2, "hidden_dim": 48, "n_layers": LAYERS}
    picture = {"image_size": SIDE, "patch_size": 8, "num_labels": 5}
    sizes = {"embedding_size": 8, "hidden_sizes": [8, 12, 16, 24], "depths": [2, 2, 2, 2]}
    if name == "bert":
        config = t.BertConfig(**words, **SMALL, **layers)
        made = t.BertForSequenceClassification(config)
    elif name == "distilbert":
        made = t.DistilBertForSequenceClassification(t.DistilBertConfig(**words, **distil))
    elif name == "roberta":
        config = t.RobertaConfig(**words, **SMALL, **layers, pad_token_id=1)
        made = t.RobertaForSequenceClassification(config)
    elif name == "vit":
        made = t.ViTForImageClassification(t.ViTConfig(**picture, **SMALL, **layers))
    else:
        config = t.ResNetConfig(**sizes, layer_type="basic", num_labels=5)
        made = t.ResNetForImageClassification(config)
    with torch.no_grad():  # so that answers differ from row to row
        for part in made.modules():
            if isinstance(part, nn.Linear):
                part.weight *= 4
    names = ("pixel_values",) if name in ("vit", "resnet") else ("input_ids", "attention_mask")
    return Logits(made.eval(), names).eval()


def rows(name: str, count: int, length: int = WORDS, seed: int = 0) -> dict[str, np.ndarray]:
    """Rows of a network; texts of different length, padded."""
    rng = np.random.default_rng(seed)
    if name in ("vit", "resnet"):
        return {"pixel_values": rng.standard_normal((count, 3, SIDE, SIDE), dtype=np.float32)}
    ids = rng.integers(5, TOKENS, (count, length))
    real = np.maximum(2, length - np.arange(count) % length)[:, None]
    mask = (np.arange(length) < real).astype(np.int64)
    return {"input_ids": np.where(mask, ids, 1), "attention_mask": mask}


def export(name: str, exporter: str, file: Path) -> None:
    """Export a network with batch and length free."""
    model = network(name)
    inputs = tuple(map(torch.from_numpy, rows(name, 2).values()))
    axes = {0: "batch"} if len(inputs) == 1 else {0: "batch", 1: "length"}
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        if exporter == "dynamo":
            dims = {word: torch.export.Dim(word) for word in axes.values()}
            shapes = tuple({axis: dims[word] for axis, word in axes.items()} for _ in inputs)
            program = torch.onnx.export(
                model,
                inputs,
                dynamo=True,
                dynamic_shapes=(shapes,),
                input_names=list(model.names),
                output_names=["logits"],
                verbose=False,
            )
            program.save(str(file))
            return
        free = dict.fromkeys(model.names, axes) | {"logits": {0: "batch"}}
        torch.onnx.export(
            model,
            inputs,
            str(file),
            dynamo=False,
            dynamic_axes=free,
            input_names=list(model.names),
            output_names=["logits"],
            opset_version=17,
        )
