"""A plainly trained ResNet on Fashion-MNIST, as a stranger would bring it: ONNX and rows.

`python benchmarks/fashion.py [--out .build/fashion] [--exporter dynamo|torchscript]` installs
Debian's `dataset-fashion-mnist` where it may, and writes

- `fashion.onnx`: `image` float32 [batch, 1, 28, 28], 0 to 1 → `logits` float32 [batch, 10];
- `fashion-fit.npz`: the 45,000 pictures it was trained on, good to fit exit heads to;
- `fashion.npz`: 15,000 pictures of the training set kept out of training, to propose and certify;
- `fashion-test.npz`: the 10,000 test pictures, looked at once, for the accuracy.

Each with `image` as above and `label` int64. Nine basic blocks with BatchNorm in three stages of
32, 64 and 128 channels; ordinary cross-entropy at the last layer only, no exits. First steps see
pictures of half the size, which cost a quarter. The weights of each cycle stay in
the folder, and a second run only exports; `--fresh` trains anew.
"""

from __future__ import annotations

import argparse
import gzip
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from onnx_check import check
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, cross_entropy, relu

PACKAGE = "dataset-fashion-mnist"
SOURCE = Path("/usr/share/datasets/fashion-mnist")
HELD_OUT = 15_000
BATCH = 64
# Passes over the training pictures at half size, then at full size, and the peak learning rate.
CYCLES = ((0.8, 0.5, 0.05), (0.0, 0.4, 0.03))
OPSET = 20


class Block(nn.Module):
    """Two 3 × 3 convolutions beside an identity, or a 1 × 1 convolution where the shape changes."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.first_norm = nn.BatchNorm2d(channels)
        self.second = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.second_norm = nn.BatchNorm2d(channels)
        self.beside: nn.Module = nn.Identity()
        if channels_in != channels or stride != 1:
            self.beside = nn.Sequential(
                nn.Conv2d(channels_in, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, stream: Tensor) -> Tensor:
        inner = relu(self.first_norm(self.first(stream)))
        return relu(self.second_norm(self.second(inner)) + self.beside(stream))


def make_network() -> nn.Sequential:
    layers: list[nn.Module] = [nn.Conv2d(1, 32, 3, 1, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU()]
    before = 32
    for channels in (32, 64, 128):
        for block in range(3):
            layers.append(Block(before, channels, 2 if block == 0 and channels > 32 else 1))
            before = channels
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10)]
    return nn.Sequential(*layers)


def install() -> None:
    """Install the Debian package if its files are missing, or say how."""
    if SOURCE.is_dir():
        return
    command = ["apt-get", "install", "--yes", PACKAGE]
    if os.geteuid() != 0 or subprocess.run(command).returncode != 0:
        sys.exit(f"{SOURCE} is missing: it comes with `apt-get install {PACKAGE}`, as root")


def read_idx(name: str) -> NDArray[np.uint8]:
    """The array in a gzipped IDX file of unsigned bytes."""
    content = gzip.decompress((SOURCE / name).read_bytes())
    dimensions = content[3]
    shape = np.frombuffer(content, ">u4", dimensions, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape)


def read_set(name: str) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Pictures [rows, 1, 28, 28] in 0 to 1 and labels [rows] of the set `train` or `t10k`."""
    pictures = read_idx(f"{name}-images-idx3-ubyte.gz")[:, None].astype(np.float32) / 255
    return pictures, read_idx(f"{name}-labels-idx1-ubyte.gz").astype(np.int64)


def batches(rows: int, epochs: float, generator: torch.Generator) -> Iterator[Tensor]:
    """Indices of `epochs` × `rows` rows in batches, each pass in an order of its own."""
    left = int(epochs * rows) // BATCH
    while left > 0:
        taken = torch.randperm(rows, generator=generator).split(BATCH)[: rows // BATCH][:left]
        left -= len(taken)
        yield from taken


def train(folder: Path, pictures: Tensor, labels: Tensor, seed: int) -> Path:
    """Run the cycles whose weights are not in the folder yet; the file of the last one."""
    torch.manual_seed(seed)
    network = make_network()
    for number, cycle in enumerate(CYCLES):
        weights = folder / f"fashion-{number}.safetensors"
        if weights.exists():
            network.load_state_dict(load_file(weights))
        else:
            run_cycle(network, pictures, labels, cycle, seed + number)
            save_file(network.state_dict(), weights)
    return weights


def run_cycle(
    network: nn.Module,
    pictures: Tensor,
    labels: Tensor,
    cycle: tuple[float, float, float],
    seed: int,
) -> None:
    half_size, full_size, peak = cycle
    generator = torch.Generator().manual_seed(seed)
    network.to(memory_format=torch.channels_last).train()
    half = list(batches(len(labels), half_size, generator))
    steps = half + list(batches(len(labels), full_size, generator))
    optimizer = torch.optim.SGD(
        network.parameters(), lr=peak, momentum=0.9, nesterov=True, weight_decay=5e-4
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=peak,
        total_steps=len(steps),
        pct_start=0.2,
        anneal_strategy="linear",
    )
    began = time.perf_counter()
    for step, rows in enumerate(steps):
        seen = pictures[rows]
        if step < len(half):
            seen = avg_pool2d(seen, 2)
        loss = cross_entropy(network(seen), labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 50 == 0 or step == len(steps) - 1:
            spent = time.perf_counter() - began
            print(f"step {step + 1}/{len(steps)} loss {loss.item():.3f} {spent:.0f} s", flush=True)
    network.to(memory_format=torch.contiguous_format)


def export(network: nn.Module, example: Tensor, file: Path, exporter: str) -> None:
    """Write the network as one ONNX file with a dynamic batch dimension."""
    network.eval()
    names = {"input_names": ["image"], "output_names": ["logits"], "opset_version": OPSET}
    if exporter == "dynamo":
        dynamic = ({0: torch.export.Dim("batch")},)
        torch.onnx.export(
            network,
            (example,),
            file,
            dynamo=True,
            external_data=False,
            dynamic_shapes=dynamic,
            verbose=False,
            **names,
        )
    else:
        axes = {"image": {0: "batch"}, "logits": {0: "batch"}}
        torch.onnx.export(network, (example,), file, dynamo=False, dynamic_axes=axes, **names)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path(".build/fashion"))
    parser.add_argument("--exporter", choices=["dynamo", "torchscript"], default="dynamo")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--fresh", action="store_true", help="train even if weights are there")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    install()
    options.out.mkdir(parents=True, exist_ok=True)

    pictures, labels = read_set("train")
    order = np.random.default_rng(options.seed).permutation(len(labels))
    held_out, fit = order[:HELD_OUT], order[HELD_OUT:]
    test_pictures, test_labels = read_set("t10k")
    sets = {
        "fashion": (pictures[held_out], labels[held_out]),
        "fashion-fit": (pictures[fit], labels[fit]),
        "fashion-test": (test_pictures, test_labels),
    }
    for name, (image, label) in sets.items():
        np.savez(options.out / f"{name}.npz", image=image, label=label)
        print(f"{name}.npz: {len(label):,} rows", flush=True)

    if options.fresh:
        for weights in options.out.glob("fashion-*.safetensors"):
            weights.unlink()
    image, label = (torch.from_numpy(values) for values in sets["fashion-fit"])
    network = make_network()
    network.load_state_dict(load_file(train(options.out, image, label, options.seed)))
    model = options.out / "fashion.onnx"
    export(network, torch.from_numpy(test_pictures[:2]), model, options.exporter)

    right, difference = check(model, {"image": test_pictures}, test_labels)
    print(
        f"{model.name}: {model.stat().st_size / 1e6:.1f} MB, {right:.2%} of {len(test_labels):,} "
        f"test pictures right, largest difference between a row in a batch and alone "
        f"{difference:.1e}"
    )
    if right < 0.9 or difference > 1e-4:
        sys.exit("wanted: 90 % right, no difference above 1e-4")


if __name__ == "__main__":
    main()
