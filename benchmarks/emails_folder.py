"""A real encoder on real emails as a Hugging Face folder, and the emails as text.

`python benchmarks/emails_folder.py [--out .build/emails-folder] [--length 128] [--packages …]
[--npm …]` takes the MiniLM and the emails of `emails.py` (which see) and writes

- `minilm-spam/`: a folder that `AutoModelForSequenceClassification` loads, with its tokenizer;
- with `--tune`, `minilm-spam-tuned/` in its place; with `--mean`, `minilm-spam-mean/`;
- `emails-fit.jsonl`, `emails.jsonl`: half of the emails each, `body` and `spam` (`ham` or `spam`).

Of `minilm-spam` the pretrained layers are as they were published. What is fitted, to the labels of
the first half, is the part behind them that transformers has there: the pooler (a linear layer and
tanh on the first token of the last layer) and the classifier. Of `minilm-spam-tuned` all weights
are trained on the first half, `--epochs` times over, as people fine-tune a BERT: AdamW with warm-up
and linear decay, batches of 16 texts of similar length. `minilm-spam-mean` is in optimum's layout:
the `model.onnx` of `emails.py` (pretrained layers, logistic regression on the mean of the last one)
beside `config.json` and tokenizer. Texts are cut at 128 tokens, as `emails.py` does, or at
`--length`, which the tokenizer then says; emails with the same tokens are taken once. It prints how
many of the other half are right.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from email import message_from_string
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from emails import (
    LENGTH,
    Classifier,
    emails_folder,
    export,
    install,
    model_folder,
    pooled_rows,
    text_of,
)
from emails import fit_head as fit_regression
from numpy.typing import NDArray
from torch import Tensor, nn

LABELS = ("ham", "spam")
STEPS, DECAY = 1_500, 3e-2
TUNED_BATCH, TUNED_RATE, WARM_UP = 16, 1e-4, 0.1


def read_texts(folder: Path) -> tuple[list[str], NDArray[np.int64]]:
    """Texts and labels of all emails."""
    emails = [json.loads(file.read_text()) for file in sorted(folder.glob("*/*.json"))]
    texts = [text_of(message_from_string(mail["text"])) for mail in emails]
    labels = [mail["group"].startswith("spam") for mail in emails]
    return texts, np.array(labels, np.int64)


@torch.no_grad()
def first_tokens(encoder: nn.Module, ids: Tensor, mask: Tensor) -> Tensor:
    """The last layer at the first token of every row [rows, width]; short rows go together."""
    lengths = mask.sum(dim=1)
    found = torch.empty(len(ids), encoder.config.hidden_size)
    for taken in torch.argsort(lengths).split(32):
        longest = int(lengths[taken].max())
        inputs = {"input_ids": ids[taken, :longest], "attention_mask": mask[taken, :longest]}
        found[taken] = encoder(**inputs).last_hidden_state[:, 0]
    return found


def fit_head(head: nn.Module, rows: Tensor, labels: Tensor) -> None:
    """Train the layers behind the encoder, all rows at once."""
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-3, weight_decay=DECAY)
    for _ in range(STEPS):
        optimizer.zero_grad()
        nn.functional.cross_entropy(head(rows), labels).backward()
        optimizer.step()


class Logits(nn.Module):
    """A classifier that answers as those of transformers do."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> SimpleNamespace:
        return SimpleNamespace(logits=self.network(input_ids, attention_mask))


def on_mean(encoder: nn.Module, ids: Tensor, mask: Tensor, labels: NDArray[np.int64]) -> Classifier:
    """An encoder and a logistic regression on the mean of its last layer."""
    network = Classifier(encoder, encoder.config.hidden_size).eval()
    rows = {"input_ids": ids.numpy(), "attention_mask": mask.numpy()}
    fit_regression(network.head, pooled_rows(network, rows), labels)
    return network


def tune(model: nn.Module, ids: Tensor, mask: Tensor, labels: Tensor, epochs: int) -> None:
    """Train all weights of a classifier; batches are of rows of similar length, in random order."""
    from transformers import get_linear_schedule_with_warmup

    lengths = mask.sum(dim=1)
    batches = torch.argsort(lengths).split(TUNED_BATCH)
    steps = epochs * len(batches)
    optimizer = torch.optim.AdamW(model.parameters(), lr=TUNED_RATE, weight_decay=1e-2)
    rate = get_linear_schedule_with_warmup(optimizer, int(WARM_UP * steps), steps)
    model.train()
    began, total = time.perf_counter(), 0.0
    for step in range(steps):
        if step % len(batches) == 0:
            order = torch.randperm(len(batches))
        taken = batches[order[step % len(batches)]]
        longest = int(lengths[taken].max())
        inputs = {"input_ids": ids[taken, :longest], "attention_mask": mask[taken, :longest]}
        loss = model(**inputs, labels=labels[taken]).loss
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        rate.step()
        total += loss.item()
        if step % 20 == 19:
            took = time.perf_counter() - began
            print(f"step {step + 1} of {steps}, {took:.0f} s: loss {total / 20:.3f}", flush=True)
            total = 0.0
    model.eval()


@torch.no_grad()
def right_of(model: nn.Module, ids: Tensor, mask: Tensor, labels: Tensor) -> float:
    """The part of the rows that the classifier has right."""
    lengths = mask.sum(dim=1)
    right = 0
    for taken in torch.argsort(lengths).split(32):
        longest = int(lengths[taken].max())
        inputs = {"input_ids": ids[taken, :longest], "attention_mask": mask[taken, :longest]}
        right += int((model(**inputs).logits.argmax(dim=1) == labels[taken]).sum())
    return right / len(labels)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path(".build/emails-folder"))
    parser.add_argument("--packages", type=Path, help="of pip; default: OUT/packages")
    parser.add_argument("--npm", type=Path, help="of npm; default: OUT/npm")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--tune", action="store_true", help="train all weights, not the head")
    kind.add_argument("--mean", action="store_true", help="a head on the mean, as optimum's graph")
    parser.add_argument("--epochs", type=int, default=2, help="of --tune")
    parser.add_argument("--length", type=int, default=LENGTH, help="most tokens of a text")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    packages = options.packages or options.out / "packages"
    npm = options.npm or options.out / "npm"
    options.out.mkdir(parents=True, exist_ok=True)
    install(packages, npm)
    # Behind all others: only what this environment lacks is taken from there.
    sys.path.append(str(packages.resolve()))
    os.environ["HF_HUB_OFFLINE"] = "1"
    from transformers import AutoTokenizer, BertForSequenceClassification

    source = model_folder(packages)
    tokenizer = AutoTokenizer.from_pretrained(source, model_max_length=options.length)
    texts, labels = read_texts(emails_folder(npm))
    tokens = tokenizer(texts, truncation=True, padding=True, return_tensors="pt")
    ids, mask = tokens["input_ids"], tokens["attention_mask"]
    _, first = np.unique(ids.numpy(), axis=0, return_index=True)
    first.sort()
    order = np.random.default_rng(options.seed).permutation(first)
    halves = {"emails-fit": order[: len(order) // 2], "emails": order[len(order) // 2 :]}
    for name, taken in halves.items():
        with (options.out / f"{name}.jsonl").open("w") as file:
            for row in taken.tolist():
                said = {"body": texts[row], "spam": LABELS[labels[row]]}
                file.write(json.dumps(said, ensure_ascii=False) + "\n")
        print(f"{name}.jsonl: {len(taken):,} emails, {labels[taken].mean():.1%} spam", flush=True)

    named = {"id2label": dict(enumerate(LABELS)), "label2id": {n: i for i, n in enumerate(LABELS)}}
    model = BertForSequenceClassification.from_pretrained(source, num_labels=2, **named).eval()
    known = torch.from_numpy(labels)
    fit, unseen = (torch.from_numpy(halves[name]) for name in ("emails-fit", "emails"))
    folder = options.out / f"minilm-spam{'-tuned' * options.tune}{'-mean' * options.mean}"
    folder.mkdir(exist_ok=True)
    tokenizer.save_pretrained(folder)
    judged: nn.Module = model
    if options.tune:
        tune(model, ids[fit], mask[fit], known[fit], options.epochs)
        model.save_pretrained(folder)
    elif options.mean:
        network = on_mean(model.bert, ids[fit], mask[fit], labels[halves["emails-fit"]])
        export(network, (ids[fit][:2], mask[fit][:2]), folder / "model.onnx", "torchscript")
        model.config.architectures = [type(model).__name__]
        model.config.save_pretrained(folder)
        judged = Logits(network)
    else:
        head = nn.Sequential(
            model.bert.pooler.dense, model.bert.pooler.activation, model.classifier
        )
        fit_head(head, first_tokens(model.bert, ids[fit], mask[fit]), known[fit])
        model.save_pretrained(folder)
    right = right_of(judged, ids[unseen], mask[unseen], known[unseen])
    print(f"{folder.name}: {right:.2%} of {len(unseen):,} unseen emails right")
    if right < 0.9:
        sys.exit("wanted: 90 % right")


if __name__ == "__main__":
    main()
