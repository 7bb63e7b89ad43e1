"""docs/scaling.md says what benchmarks/scaling.py computes; the operations are counted rightly."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import foreign
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from skipserve.artifacts.torch_files import export_module, plain_graph
from skipserve.building.buildfile import read_build_file
from skipserve.graph.prepare import prepare, read_graph
from skipserve.networks import build_network

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"

sys.path.insert(0, str(BENCHMARKS))
flops = importlib.import_module("flops")
scaling = importlib.import_module("scaling")
fashion = importlib.import_module("fashion")

PAPER, REASONS = scaling.read({})
NETWORKS = PAPER.networks


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    script = [sys.executable, BENCHMARKS / "scaling.py", *arguments]
    return subprocess.run(script, capture_output=True, text=True)


def test_the_page_is_what_the_script_prints():
    done = command()
    assert done.returncode == 0, done.stderr
    _, mark, below = scaling.PAGE.read_text().partition(scaling.MARK)
    assert mark
    assert below.lstrip("\n") == done.stdout, "run python benchmarks/scaling.py --write"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--assume", "vcpu_price=1"], "there is no assumption vcpu_price; there are connections,"),
        (["--assume", "vcpu_hour=cheap"], "'vcpu_hour=cheap' is not NAME=NUMBER"),
        (["--assume", "vcpu_hour"], "'vcpu_hour' is not NAME=NUMBER"),
        (
            ["--assume", "connections=3"],
            "no run of moons_residual behind skipserve with the",
        ),
        (["--assume", "use=0.5", "--write"], "docs/scaling.md holds what scaling.toml says"),
    ],
)
def test_an_assumption_that_makes_no_sense_is_refused(arguments, says):
    done = command(*arguments)
    assert done.returncode != 0
    assert says in done.stderr


def test_a_price_of_the_readers_own_is_in_the_tables():
    told = command("--assume", f"vcpu_hour={2 * PAPER.assumed['vcpu_hour']}").stdout
    core_s = PAPER.request_core_s("mnist1d_resnet", "on")
    (row,) = (line for line in told.splitlines() if line.startswith("| `mnist1d_resnet` | on |"))
    assert row.split(" | ")[-1] == f"{2 * PAPER.cpu_cost(core_s):.3f} |"


# --- what a request costs ---


@given(
    rate=st.floats(1, 1e6),
    more=st.floats(1, 10),
    name=st.sampled_from(sorted(NETWORKS)),
    router=st.sampled_from(["off", "on"]),
)
def test_replicas_carry_the_rate_with_one_of_them_lost(rate, more, name, router):
    core_s = PAPER.request_core_s(name, router)
    replicas = PAPER.replicas(rate, core_s)
    each = PAPER.assumed["use"] / core_s
    assert (replicas - PAPER.assumed["spare"]) * each >= rate * (1 - 1e-9)
    assert (replicas - PAPER.assumed["spare"] - 1) * each < rate * (1 + 1e-9)
    assert PAPER.replicas(rate * more, core_s) >= replicas


def test_a_request_costs_what_was_measured_where_it_was():
    (measured,) = {PAPER.measured("mnist1d_resnet", "on")}
    core_s = PAPER.request_core_s("mnist1d_resnet", "on")
    assert PAPER.assumed["measured_cores"] / core_s == pytest.approx(measured)
    # At full depth the computed figure is the measured one: it was fitted to it.
    full = PAPER.computed_s(NETWORKS["mnist1d_resnet"], "off")
    assert full == pytest.approx(PAPER.request_core_s("mnist1d_resnet", "off"))


@given(
    name=st.sampled_from(sorted(NETWORKS)),
    rows=st.integers(1, 4096),
    precision=st.sampled_from(["fp32", "fp16"]),
)
def test_a_t4_is_no_faster_than_its_roofline(name, rows, precision):
    network = NETWORKS[name]
    full_s, routed_s, gathered_s = PAPER.ways_s(network, rows, precision)
    assumed = PAPER.assumed
    assert full_s >= rows * network.flops / assumed[f"t4_{precision}_flops"]
    moved = full_s * assumed["t4_bytes"]
    assert rows * network.flops / moved <= network.intensity(rows, precision)
    assert full_s >= network.kernels * assumed["launch"]
    # Launches and weights are shared by more rows: gathering never costs more.
    assert gathered_s <= routed_s * (1 + 1e-9)


def test_what_bounds_a_t4():
    network = NETWORKS["minilm"]
    assert PAPER.gpu_s(network, 1, "fp16")[1] == "launches"
    assert PAPER.gpu_s(network, 4096, "fp32")[1] == "compute"
    assert PAPER.ridge("fp16") == pytest.approx(203, abs=0.2)
    assert PAPER.ridge("fp32") == pytest.approx(25.3, abs=0.1)


# --- what a row costs ---


@pytest.fixture(scope="module", params=["mnist1d_resnet", "fashion"])
def counted(request):
    """A network of scaling.toml with random weights, one row for it, and what was counted."""
    if request.param == "fashion":
        network, shape = fashion.make_network().eval(), (1, 28, 28)
        torch.manual_seed(0)
        for part in network.modules():
            if isinstance(part, torch.nn.BatchNorm2d):  # equal biases would be stored as one
                part.running_mean.normal_()
        rows = torch.zeros(2, *shape)
        graph = export_module(network, (rows,), ("image",), "logits")
    else:
        build = read_build_file(ROOT / "export/mnist1d_resnet.toml")
        network = build_network(build.trained.network).eval()
        shape = tuple(network.config.inputs)
        graph = plain_graph(network)
    return request.param, network, torch.zeros(1, *shape), flops.count(graph)


def test_operations_are_as_torch_counts_them(counted):
    _, network, row, work = counted
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(row)
    assert sum(work.blocks) + work.outside == counter.get_total_flops()


def test_scaling_toml_has_what_is_counted(counted):
    name, _, _, work = counted
    told = NETWORKS[name]
    assert (len(work.blocks), sum(work.blocks)) == (told.blocks, told.block_flops)
    assert (work.outside, work.weights) == (told.outside_flops, told.weights)
    assert (work.activations, work.kernels) == (told.activations, told.kernels)


@pytest.fixture(scope="module")
def bert(tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("bert") / "bert.onnx"
    foreign.export("bert", "script", file)
    return file


@pytest.mark.parametrize("length", [9, 64])
def test_operations_of_an_encoder_by_its_formula(bert, length):
    work = flops.count(prepare(read_graph(bert)), {"length": length})
    width, inner, classes = foreign.SMALL["hidden_size"], foreign.SMALL["intermediate_size"], 5
    attention = 4 * length * width**2 + 2 * length**2 * width
    forward = 2 * length * width * inner
    assert work.blocks == (2 * attention, 2 * forward) * foreign.LAYERS
    assert work.outside == 2 * (width**2 + width * classes)  # pooler and head read one token


def test_a_length_that_nobody_gave_is_named(bert):
    done = subprocess.run(
        [sys.executable, BENCHMARKS / "flops.py", bert],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.strip() == "the size of 'length' is free; add --size length=NUMBER"
