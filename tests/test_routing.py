"""The routed network and its files: every row runs exactly as deep as its thresholds ask."""

from __future__ import annotations

import copy
import warnings
from functools import cache

import numpy as np
import onnx
import pytest
import torch
from onnx import helper
from torch import nn

from skipserve.artifacts.formats import write_model
from skipserve.artifacts.manifest import model_file_name
from skipserve.artifacts.parity import RoutedReference
from skipserve.artifacts.trail import Trail
from skipserve.errors import ConfigError, ParityError
from skipserve.networks import build_network, parse_network
from skipserve.routing.config import RouterConfig
from skipserve.routing.fit import fit_router
from skipserve.routing.guard import fit_guard
from skipserve.routing.routed import RoutedNetwork, Router
from skipserve.routing.signals import Confidence, Margin, Norm, ProjectedNorm
from skipserve.runtime.backends import OnnxRuntime, open_backend

DEPTH, WIDTH, ROWS = 4, 8, 24
NAMES = ("probabilities", "depth_run", "held_back", "signals")
FAMILIES = {
    "mlp": {"inputs": [2]},
    "convnet": {"inputs": [12], "kernel": 3},
    "encoder": {"inputs": [12], "patch": 4, "heads": 2, "expansion": 2},
}
# Every family, policy and signal; stages of one block, and of unequal lengths.
CASES = [
    ("mlp", "norm", "exit", (1, 2, 3)),
    ("convnet", "projected_norm", "exit", (1, 2)),
    ("convnet", "confidence", "skip", (1, 3)),
    ("encoder", "margin", "exit", (3,)),
    ("mlp", "confidence", "exit", (1, 2), "distilled"),
]
# Exports take seconds; another FP16 file, of the other policy, is tested below.
HALF = [CASES[3]]


@cache
def network_of(family):
    torch.manual_seed(1)
    config = {"family": family, "classes": 3, "depth": DEPTH, "width": WIDTH, **FAMILIES[family]}
    network = build_network(parse_network(config)).eval()
    rows = rows_of(family)
    network.scaling.fit(rows)
    with torch.no_grad():  # random heads prefer one class
        last = [part for part in network.head.modules() if isinstance(part, nn.Linear)][-1]
        last.bias -= network(rows).mean(dim=0)
    return network


@cache
def rows_of(family):
    generator = torch.Generator().manual_seed(2)
    return 2 * torch.randn(ROWS, *FAMILIES[family]["inputs"], generator=generator) + 1


@cache
def router_of(case):
    family, signal, policy, decisions, *heads = case
    generator = torch.Generator().manual_seed(3)
    rows = 2 * torch.randn(300, *FAMILIES[family]["inputs"], generator=generator) + 1
    config = RouterConfig(signal=signal, policy=policy, exit_heads=(heads or ["shared"])[0])
    return fit_router(config, network_of(family), decisions, rows, rows)[0]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The file of a case, exported when it is first asked for."""
    root = tmp_path_factory.mktemp("routed")

    @cache
    def export_case(case, format, precision):
        directory = root / "-".join(map(str, case))
        directory.mkdir(exist_ok=True)
        file = directory / model_file_name(format, precision)
        router = router_of(case) if len(case) > 1 else None
        write_model(network_of(case[0]), format, precision, file, router)
        return file

    return export_case


@pytest.fixture(scope="module")
def opened(exported):
    """Opens the file of a case."""

    @cache
    def open_case(case, format, precision):
        outputs = NAMES if len(case) > 1 else NAMES[:1]
        return open_backend(exported(case, format, precision), outputs)

    return open_case


@cache
def medians(case):
    """Thresholds between the two middle rows of each decision, and a limit for the guard."""
    network, router = network_of(case[0]), router_of(case)
    with torch.no_grad():
        streams = list(network.streams(rows_of(case[0])))
        signals = [
            np.median(signal(network.pool(streams[blocks])).numpy())
            for signal, blocks in zip(router.signals, router.decisions, strict=True)
        ]
        distance = np.sort(router.guard(streams[router.decisions[0]]).numpy())
    return np.array(signals, dtype=np.float32), float(distance[-4:-2].mean())


def feeds(case, thresholds, limit=np.inf, rows=slice(None)):
    inputs = rows_of(case[0]).numpy()[rows]
    count, decisions = len(inputs), len(case[3])
    return {
        "inputs": inputs,
        "thresholds": np.broadcast_to(np.float32(thresholds), (count, decisions)).copy(),
        "guard_limit": np.full(count, limit, dtype=np.float32),
    }


def eager(case, fed):
    with torch.no_grad():
        routed = RoutedNetwork(network_of(case[0]), router_of(case)).eval()
        return [one.numpy() for one in routed(*map(torch.from_numpy, fed.values()))]


def by_hand(case, row, thresholds, limit):
    """One row, decision by decision, with nothing but the network's blocks."""
    network, router = network_of(case[0]), router_of(case)
    with torch.no_grad():
        stream = list(network.streams(row[None]))[router.decisions[0]]
        depth, held = router.decisions[0], bool(router.guard(stream) > limit)
        heads = dict(zip(router.decisions, router.heads))  # noqa: B905 - none, if shared
        ends = (*router.decisions[1:], DEPTH)
        for signal, start, end, threshold in zip(
            router.signals, router.decisions, ends, thresholds, strict=True
        ):
            if not held and float(signal(network.pool(stream))) >= threshold:
                if router.policy == "exit":
                    break
                continue
            for block in network.blocks[start:end]:
                stream = block(stream)
            depth += end - start
        head = heads.get(depth, network.head)
        return head(network.pool(stream)).softmax(dim=-1)[0].numpy(), depth, held


@pytest.fixture(params=CASES, ids=lambda case: "-".join(case[:3]))
def case(request):
    return request.param


@pytest.fixture(params=["onnx", "torchscript"])
def format(request):
    return request.param


def test_eager_routing_is_what_its_description_says(case):
    thresholds, limit = medians(case)
    probabilities, depth, held, _ = eager(case, feeds(case, thresholds, limit))
    assert len(set(depth.tolist())) > 1
    assert 0 < held.sum() < ROWS
    for i, row in enumerate(rows_of(case[0])):
        expected, ran, kept = by_hand(case, row, thresholds.tolist(), limit)
        assert (depth[i], held[i]) == (ran, kept)
        np.testing.assert_allclose(probabilities[i], expected, atol=1e-5)


def test_infinite_thresholds_run_everything_as_the_plain_export_does(case, format, opened):
    got = opened(case, format, "fp32").run(feeds(case, np.inf))
    plain = opened(case[:1], format, "fp32").run({"inputs": rows_of(case[0]).numpy()})
    np.testing.assert_allclose(got["probabilities"], plain["probabilities"], atol=1e-6)
    assert got["depth_run"].tolist() == [DEPTH] * ROWS
    assert got["depth_run"].dtype == np.int64
    assert not got["held_back"].any()


def test_minus_infinity_runs_the_entry_alone(case, format, opened):
    got = opened(case, format, "fp32").run(feeds(case, -np.inf))
    assert got["depth_run"].tolist() == [case[3][0]] * ROWS
    network = network_of(case[0])
    with torch.no_grad():
        stream = list(network.streams(rows_of(case[0])))[case[3][0]]
        head = (*router_of(case).heads, network.head)[0]
        expected = head(network.pool(stream)).softmax(dim=-1).numpy()
    np.testing.assert_allclose(got["probabilities"], expected, atol=1e-5)


def test_a_file_decides_as_the_eager_router_does(case, format, opened):
    fed = feeds(case, *medians(case))
    probabilities, depth, held, signals = eager(case, fed)
    got = opened(case, format, "fp32").run(fed)
    np.testing.assert_array_equal(got["depth_run"], depth)
    np.testing.assert_array_equal(got["held_back"], held)
    assert got["held_back"].dtype == np.bool_
    np.testing.assert_allclose(got["signals"], signals, rtol=1e-4)
    assert got["signals"].dtype == np.float32
    np.testing.assert_allclose(got["probabilities"], probabilities, atol=1e-5)


def test_each_stage_is_left_out_alone(case, format, opened):
    for i in range(len(case[3])):
        thresholds = np.full(len(case[3]), np.inf)
        thresholds[i] = -np.inf
        fed = feeds(case, thresholds)
        probabilities, depth, _, _ = eager(case, fed)
        got = opened(case, format, "fp32").run(fed)
        assert len(set(depth.tolist())) == 1
        np.testing.assert_array_equal(got["depth_run"], depth)
        np.testing.assert_allclose(got["probabilities"], probabilities, atol=1e-5)


def test_scatters_that_add_up_are_of_floats(case, exported):
    """CUDA's ScatterND reduces nothing else, and says so only when it runs."""
    graph = onnx.shape_inference.infer_shapes(onnx.load(exported(case, "onnx", "fp32"))).graph
    reducing = {
        (helper.get_node_attr_value(node, "reduction"), types[node.output[0]])
        for node, types in typed_nodes(graph)
        if node.op_type == "ScatterND" and any(a.name == "reduction" for a in node.attribute)
    }
    assert reducing == {(b"add", onnx.TensorProto.FLOAT)}


def typed_nodes(graph):
    """The nodes of a graph and of those in it, each with the element types around it."""
    known = [*graph.value_info, *graph.output]
    types = {value.name: value.type.tensor_type.elem_type for value in known}
    for node in graph.node:
        yield node, types
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from typed_nodes(attribute.g)


def test_what_torchscript_makes_is_where_its_rows_are(case, exported):
    module = torch.jit.load(exported(case, "torchscript", "fp32"))
    factories = {f"aten::{name}" for name in ("arange", "full", "zeros", "ones", "empty")}
    devices = {
        node.namedInput("device").node().kind()
        for node in nodes_of(module.inlined_graph)
        if node.kind() in factories
    }
    assert devices == {"prim::device"}


def nodes_of(block):
    for node in block.nodes():
        yield node
        for inner in node.blocks():
            yield from nodes_of(inner)


def test_the_signals_of_a_row_are_those_of_the_decisions_it_got_to(case):
    family, _, policy, decisions = case[:4]
    thresholds, limit = medians(case)
    _, depth, _, signals = eager(case, feeds(case, thresholds, limit))
    unpacked = Trail(signals, depth, decisions, policy).signals()
    network, router = network_of(family), router_of(case)
    with torch.no_grad():
        streams = list(network.streams(rows_of(family)))
        for i, blocks in enumerate(decisions):
            expected = router.signals[i](network.pool(streams[blocks])).numpy()
            if policy == "exit":
                got_there = depth >= blocks
                assert np.isnan(unpacked[~got_there, i]).all()
                np.testing.assert_allclose(unpacked[got_there, i], expected[got_there], rtol=1e-4)
        assert np.isfinite(unpacked[:, 0]).all()
    if policy == "skip":
        assert np.isfinite(unpacked).all()


@pytest.mark.parametrize("case", HALF, ids=lambda case: "-".join(case[:3]), indirect=True)
def test_an_fp16_file_is_close_and_finite(case, opened):
    fed = feeds(case, np.inf)
    got = opened(case, "onnx", "fp16").run(fed)
    assert got["probabilities"].dtype == np.float32
    np.testing.assert_allclose(got["probabilities"], eager(case, fed)[0], atol=2e-2)
    fed = feeds(case, *medians(case))
    probabilities, depth, held, _ = eager(case, fed)
    got = opened(case, "onnx", "fp16").run(fed)
    assert np.isfinite(got["probabilities"]).all()
    same = (got["depth_run"] == depth) & (got["held_back"] == held)
    assert same.mean() >= 0.8  # what lies next to a threshold may fall to either side
    np.testing.assert_allclose(got["probabilities"][same], probabilities[same], atol=2e-2)


def test_a_row_is_answered_alike_alone_and_in_a_batch(case, format, opened):
    model = opened(case, format, "fp32")
    thresholds, limit = medians(case)
    # Each row has thresholds and a limit of its own.
    rng = np.random.default_rng(4)
    fed = feeds(case, thresholds, limit)
    fed["thresholds"] = fed["thresholds"] * rng.choice(
        np.float32([0.9, 1.0, 1.1]), fed["thresholds"].shape
    )
    fed["thresholds"][::5] = np.inf
    fed["thresholds"][1::5] = -np.inf
    fed["guard_limit"][::2] = np.inf
    batch = model.run(fed)
    assert len(set(batch["depth_run"].tolist())) > 1
    for i in range(ROWS):
        single = model.run({name: values[i : i + 1] for name, values in fed.items()})
        assert single["depth_run"][0] == batch["depth_run"][i]
        assert single["held_back"][0] == batch["held_back"][i]
        np.testing.assert_allclose(single["probabilities"][0], batch["probabilities"][i], atol=1e-6)
    clear = batch["depth_run"] == eager(case, fed)[1]
    assert clear.all()


def test_the_guard_holds_back_every_row_or_none(case, format, opened):
    model = opened(case, format, "fp32")
    held = model.run(feeds(case, -np.inf, -1.0))
    assert held["held_back"].all()
    assert held["depth_run"].tolist() == [DEPTH] * ROWS
    free = model.run(feeds(case, -np.inf, np.inf))
    assert not free["held_back"].any()
    assert free["depth_run"].tolist() == [case[3][0]] * ROWS


def test_a_distilled_head_agrees_with_the_last_more_often_than_the_shared_one():
    case = CASES[-1]
    network, router = network_of("mlp"), router_of(case)
    rows = torch.randn(2_000, 2, generator=torch.Generator().manual_seed(5)) * 2 + 1
    with torch.no_grad():
        final = network(rows).argmax(dim=1)
        streams = list(network.streams(rows))
        for head, blocks in zip(router.heads, router.decisions, strict=True):
            pooled = network.pool(streams[blocks])
            shared = (network.head(pooled).argmax(dim=1) == final).float().mean()
            own = (head(pooled).argmax(dim=1) == final).float().mean()
            assert own >= shared, f"after {blocks} blocks {own:.1%}, the shared head {shared:.1%}"


def test_distilled_heads_are_for_rows_that_leave():
    with pytest.raises(ValueError, match="needs policy = 'exit'"):
        RouterConfig(policy="skip", exit_heads="distilled")


def test_a_plain_network_cannot_be_routed():
    config = {"family": "mlp", "inputs": [2], "classes": 2, "depth": 4, "width": 8}
    network = build_network(parse_network({**config, "connection": "plain"}))
    router = router_of(CASES[0])
    with pytest.raises(ConfigError, match="nothing to skip"):
        RoutedNetwork(network, router)


@pytest.mark.parametrize("decisions", [(), (0, 1), (1, 4), (2, 1), (1, 1), (-1, 2)])
def test_decisions_outside_the_network_or_out_of_order_are_refused(decisions):
    network, fitted = network_of("mlp"), router_of(CASES[0])
    with pytest.raises(ConfigError, match="must increase"):
        RoutedNetwork(network, Router(decisions, [Norm() for _ in decisions], fitted.guard))


@pytest.mark.parametrize("decisions", [[], [0, 1], [1, 4]])
def test_a_router_is_not_fitted_outside_the_network(decisions):
    rows = rows_of("mlp")
    with pytest.raises(ConfigError, match=r"router.stages must lie in 2 … 4"):
        fit_router(RouterConfig(), network_of("mlp"), decisions, rows, rows)


def test_routing_leaves_the_network_as_it_was():
    network = network_of("mlp")
    before = copy.deepcopy(network.state_dict())
    RoutedNetwork(network, router_of(CASES[1]), torch.float16)
    for name, value in network.state_dict().items():
        assert value.dtype == before[name].dtype
        assert torch.equal(value, before[name])


def test_signals_of_a_large_fp16_stream_are_finite_fp32():
    head = copy.deepcopy(network_of("mlp").head).half()
    pooled = torch.full((3, WIDTH), 200.0, dtype=torch.float16)
    pooled[1] *= -1
    assert not torch.isfinite(pooled.square().sum(dim=1)).any()
    for signal in (
        Norm(),
        ProjectedNorm(torch.eye(WIDTH), torch.zeros(WIDTH)),
        Confidence(head),
        Margin(head),
    ):
        with torch.no_grad():
            values = signal(pooled)
        assert values.dtype == torch.float32
        assert values.shape == (3,)
        assert torch.isfinite(values).all()
    torch.testing.assert_close(Norm()(pooled), torch.full((3,), 200 * WIDTH**0.5))


def test_an_fp16_file_decides_by_norms_beyond_256(tmp_path):
    network = copy.deepcopy(network_of("mlp"))
    with torch.no_grad():
        for part in network.stem.parameters():
            part *= 400
        for part in network.head.parameters():
            part /= 400
    rows = rows_of("mlp")
    with torch.no_grad():
        stream = list(network.streams(rows))[1]
    router = Router((1,), [Norm()], fit_guard(network, stream), "skip")
    norms = stream.norm(dim=1).numpy()
    file = tmp_path / "model.fp16.onnx"
    write_model(network, "onnx", "fp16", file, router)
    threshold = np.float32(np.median(norms))
    assert threshold > 256
    got = OnnxRuntime(file).run(
        {
            "inputs": rows.numpy(),
            "thresholds": np.full((ROWS, 1), threshold),
            "guard_limit": np.full(ROWS, np.inf, dtype=np.float32),
        }
    )
    clear = np.abs(norms / threshold - 1) > 0.01
    assert clear.sum() > ROWS / 2
    expected = np.where(norms >= threshold, 1, DEPTH)
    np.testing.assert_array_equal(got["depth_run"][clear], expected[clear])
    assert np.isfinite(got["probabilities"]).all()


def export_quietly(exporter, block, stream):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's own, as in write_model
        return exporter.export(block, stream, "stream")


def answers(model, rows, tmp_path, name):
    onnx.save(model, tmp_path / name)
    (output,) = OnnxRuntime(tmp_path / name).run({"inputs": rows.numpy()}).values()
    return output


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))
def test_parity_asks_every_decision_and_finds_a_broken_one(case):
    network, router = network_of(case[0]), router_of(case)
    generator = torch.Generator().manual_seed(5)
    real = 2 * torch.randn(90, *FAMILIES[case[0]]["inputs"], generator=generator) + 1
    reference = RoutedReference(network, router, real, np.inf)

    def run(routed):
        def call(fed):
            with torch.no_grad():
                answers = routed(*map(torch.from_numpy, fed.values()))
            return dict(zip(NAMES, (one.numpy() for one in answers), strict=True))

        return call

    sound = reference.check(run(RoutedNetwork(network, router).eval()), "fp32", "sound")
    assert sound.equal == 1.0
    for place in range(len(router.decisions)):
        broken = RoutedNetwork(network, router).eval()
        broken.signals[place] = Inverted(broken.signals[place])
        with pytest.raises(ParityError, match="run as deep"):
            reference.check(run(broken), "fp32", "broken")


class Inverted(nn.Module):
    def __init__(self, signal):
        super().__init__()
        self.signal = signal

    def forward(self, pooled):
        return 1 - self.signal(pooled)
