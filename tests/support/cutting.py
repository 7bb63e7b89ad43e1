"""Networks cut into stages, with exits of random numbers."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np

from skipserve.artifacts.graphs import write_graphs
from skipserve.graph.cut import cut
from skipserve.graph.memory import open_model
from skipserve.graph.prepare import prepare, read_graph
from skipserve.routing.exits import Exit, Guard, Head, layout_of
from skipserve.routing.network import Network, network_of
from skipserve.routing.reading import cuts_of
from skipserve.runtime.backends import open_onnx
from skipserve.runtime.rows import Rows
from skipserve.runtime.stepper import Stepper
from skipserve.runtime.wave import Limits
from skipserve.sources.brought import signature_of
from skipserve.tasks import Classify


def network_from(file: Path, classes: int = 5) -> Network:
    """The network of an ONNX file, its blocks found."""
    model = read_graph(file)
    signature = signature_of(model)
    return network_of(prepare(model), signature, Classify(classes=classes))


def cut_everywhere(network: Network, rows: dict[str, np.ndarray]):
    """Stages between all of its cuts."""
    symbols = network.signature.symbols
    return cut(network.flow, network.found, network.cuts, rows, symbols)


def run_stages(stages, sessions, rows, after=None, keep=None):
    """Run all stages on rows; behind stage ``after`` only those of ``keep`` go on."""
    tensors = dict(rows)
    for i, (stage, session) in enumerate(zip(stages.stages, sessions, strict=True)):
        names = [one.name for one in session.get_outputs()]
        made = session.run(names, {name: tensors[name] for name in stage.inputs})
        tensors |= zip(names, made, strict=True)
        if i == after:
            tensors = {name: tensor[keep] for name, tensor in tensors.items()}
    return made[0]


def random_exits(network: Network, rows: dict[str, np.ndarray], at, signal="confidence", width=5):
    """Exits that read their streams with random numbers, scaled so that distances are about 1."""
    rng = np.random.default_rng(1)
    names = [network.cuts[i] for i in at]
    stages = cut(network.flow, network.found, names, rows, network.signature.symbols)
    found = []
    for place, blocks in enumerate(at):
        ahead = frozenset(one.op_type for one in stages.stages[place + 1].model.graph.node)
        layout = layout_of(stages.shapes[place], ahead, network.signature.mask or "")
        assert layout is not None, stages.shapes[place]
        n = layout.features

        def numbers(*shape, scale):
            return (rng.standard_normal(shape) * scale).astype(np.float32)

        sizes = [n, 16, width]
        head = Head(
            tuple((numbers(a, b, scale=a**-0.5), numbers(b, scale=0.1)) for a, b in pairwise(sizes))
        )
        projection = None
        if signal == "projected_norm":
            projection = numbers(layout.width, 3, scale=1), numbers(3, scale=1)
        guard = Guard(numbers(n, scale=0.1), numbers(n, min(n, 32), scale=0.2 / n**0.5))
        found.append(Exit(blocks, layout, guard, head, signal, projection))
    return found


def write(network: Network, rows, exits, folder: Path, policy="exit", precision="fp32"):
    """The files of a routed network: its stepper, its plain graph and its one-file form."""
    written = write_graphs(network, precision, Rows(rows), folder, tuple(exits), policy)

    def opened(role):
        return [open_onnx(folder / name)[0] for is_, name in written if is_ == role]

    stepper = Stepper(opened("stage"), cuts_of(exits), network.depth, policy, opened("exit"))
    return stepper, opened("plain")[0], opened("routed")[0]


def run_one_file(piece, rows, limits: Limits):
    """What the one-file form answers, by name."""
    feeds = {**rows, "thresholds": limits.thresholds, "guard_limit": limits.guard}
    answer, depth, held = piece.run(feeds)
    return answer, depth, held


def sessions_of(stages):
    """The stages of a graph, open."""
    return [open_model(stage.model) for stage in stages.stages]


def same_limits(count, thresholds, guard=np.inf):
    """The same thresholds for every row."""
    tiled = np.tile(np.asarray(thresholds, np.float32), (count, 1))
    return Limits(tiled, np.full(count, guard, np.float32))
