"""Fine-tuning for exits: they agree more with full depth, which keeps its answers."""

from __future__ import annotations

from pathlib import Path

import foreign
import numpy as np
import pytest
import torch
from small_router import small_router
from torch import nn

from skipserve.artifacts.artifact import open_artifact
from skipserve.building.buildfile import read_build_file
from skipserve.building.steps import run_steps
from skipserve.errors import CheckpointError, ConfigError, CutError, TrainingDiverged
from skipserve.training.tuning.blocks import find_residual_blocks
from skipserve.training.tuning.config import TuningConfig
from skipserve.training.tuning.heads import features
from skipserve.training.tuning.loop import tune
from skipserve.training.tuning.rows import TuningRows
from skipserve.training.tuning.weights import load_tuned, save_tuned

pytestmark = pytest.mark.slow

SOURCE = """
import torch
from torch import nn

class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.into, self.out = nn.Linear(12, 24), nn.Linear(24, 12)

    def forward(self, x):
        return x + self.out(torch.tanh(self.into(x)))

class Network(nn.Module):
    def __init__(self, softmax=False):
        super().__init__()
        torch.manual_seed(3)
        self.stem = nn.Linear(5, 12)
        self.blocks = nn.ModuleList([Block() for _ in range(4)])
        self.head = nn.Linear(12, 3)
        self.softmax = softmax
        with torch.no_grad():
            for block in self.blocks:
                block.into.weight *= 4
                block.out.weight *= 3
            self.head.bias -= self.forward(torch.randn(500, 5)).mean(0)

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        x = 3 * self.head(x)
        return x.softmax(1) if self.softmax else x

def made():
    return Network(), torch.randn(2, 5)
"""
MODEL = (
    """
name = "made"
[source]
module = "tuned_network:made"
[data]
rows = "rows.npz"
"""
    + small_router(0, 1, 2)
    + """\
[tuning]
epochs = 1
harm = 0.5
threads = 1
"""
)
SPACE: dict[str, object] = {}
exec(SOURCE, SPACE)  # the module that the build file names, here too
CONFIG = TuningConfig(epochs=4, learning_rate=3e-3, harm=0.1, threads=1)


def network(**options: bool) -> nn.Module:
    made = SPACE["Network"](**options)  # type: ignore[operator]
    assert isinstance(made, nn.Module)
    return made.eval()


def rows(count: int, seed: int, labelled: nn.Module | None = None) -> TuningRows:
    drawn = torch.randn(count, 5, generator=torch.Generator().manual_seed(seed))
    labels = None
    if labelled is not None:
        with torch.no_grad():
            labels = labelled(drawn).argmax(1)
    return TuningRows((drawn,), labels)


@pytest.mark.parametrize("options", [{}, {"softmax": True}], ids=["logits", "probabilities"])
def test_exits_agree_more_and_full_depth_keeps_its_answers(options: dict[str, bool]) -> None:
    module = network(**options)
    before = {name: one.clone() for name, one in module.state_dict().items()}
    told: list[str] = []
    kept = rows(300, 1, module)
    tuned = tune(module, rows(1000, 0), kept, CONFIG, told.append)
    assert tuned.epoch and tuned.harm <= CONFIG.harm and len(told) == CONFIG.epochs
    first, last = np.array(tuned.exits).T
    assert len(first) == 4 and last.mean() > first.mean() + 0.02
    assert "exits answer" in tuned.sentence()
    for name, one in module.state_dict().items():
        assert torch.equal(one, before[name])  # what was given is as it was
    with torch.no_grad():
        changed = tuned.module(*kept.inputs).argmax(1) != kept.labels
    assert changed.float().mean() == pytest.approx(tuned.harm)
    assert not torch.equal(tuned.module.state_dict()["stem.weight"], before["stem.weight"])


def test_exits_are_held_against_full_depth_as_it_became() -> None:
    module = network()
    config = CONFIG.model_copy(update={"epochs": 30, "learning_rate": 3e-2, "harm": 0.9})
    kept = rows(300, 1, module)
    tuned = tune(module, rows(60, 0), kept, config)
    with torch.no_grad():
        changed = float((tuned.module(*kept.inputs).argmax(1) != kept.labels).float().mean())
    assert tuned.epoch and changed > 0.05
    # The last exit follows a full depth that has moved; the untuned one it cannot meet so often.
    assert tuned.exits[-1][1] > 1 - changed


def test_too_much_harm_leaves_the_network_as_it_was() -> None:
    module = network()
    config = TuningConfig(epochs=2, learning_rate=0.5, harm=0.0, threads=1)
    tuned = tune(module, rows(600, 0), rows(300, 1), config)
    assert tuned.module is module and not tuned.epoch and tuned.harm > 0
    assert "left out" in tuned.sentence()


def test_ten_steps_in_all_are_enough() -> None:
    module = network()
    config = CONFIG.model_copy(update={"epochs": 5})
    assert tune(module, rows(2 * config.batch_size, 0), rows(100, 1), config).epoch


def test_lora_is_merged_and_the_rest_is_frozen() -> None:
    module = network()
    config = CONFIG.model_copy(update={"weights": "lora", "rank": 4, "learning_rate": 1e-2})
    tuned = tune(module, rows(1000, 0), rows(300, 1, module), config)
    assert tuned.epoch
    mine, theirs = tuned.module.state_dict(), module.state_dict()
    assert mine.keys() == theirs.keys()
    for name in theirs:
        same = torch.equal(mine[name], theirs[name])
        assert same == ("blocks" not in name or "bias" in name), name
    difference = mine["blocks.0.into.weight"] - theirs["blocks.0.into.weight"]
    assert torch.linalg.matrix_rank(difference, rtol=1e-3) <= 4
    first, last = np.array(tuned.exits).T
    assert last.mean() > first.mean()


def test_checkpointing_changes_nothing_but_memory() -> None:
    module = network()
    config = CONFIG.model_copy(update={"epochs": 1})
    again = config.model_copy(update={"checkpointing": True})
    kept = rows(200, 1, module)
    found = [tune(module, rows(400, 0), kept, one).module.state_dict() for one in (config, again)]
    for name, one in found[0].items():
        torch.testing.assert_close(found[1][name], one)


def test_bfloat16_tunes_too() -> None:
    module = network()
    config = CONFIG.model_copy(update={"mixed": True})
    tuned = tune(module, rows(800, 0), rows(200, 1, module), config)
    assert tuned.epoch and next(tuned.module.parameters()).dtype == torch.float32


def test_a_loss_that_is_not_finite_is_said() -> None:
    module = network()
    config = CONFIG.model_copy(update={"learning_rate": 1e30})
    with pytest.raises(TrainingDiverged, match="lower tuning"):
        tune(module, rows(800, 0), rows(200, 1), config)


@pytest.mark.parametrize("name", foreign.NAMES)
def test_blocks_of_other_networks_are_found(name: str) -> None:
    module = foreign.network(name)
    example = (torch.rand(2, 3, 32, 32),)
    if name not in ("vit", "resnet"):
        example = (torch.randint(3, 100, (2, 9)), torch.ones(2, 9, dtype=torch.int64))
    found = find_residual_blocks(module, example)
    assert len(found) == (8 if name == "resnet" else foreign.LAYERS)
    kinds = {type(module.get_submodule(one)).__name__ for one in found}
    assert len(kinds) == 1 and kinds.pop().endswith(("Layer", "Block"))


def test_a_chain_without_sums_has_no_blocks() -> None:
    part = [nn.Sequential(nn.Linear(5, 5), nn.ReLU()) for _ in range(3)]
    with pytest.raises(CutError, match="no two residual blocks"):
        find_residual_blocks(nn.Sequential(*part), (torch.rand(2, 5),))


def test_features_leave_padding_out() -> None:
    stream = torch.randn(2, 5, 3)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]])
    short = features(stream[1:, :2], None)
    torch.testing.assert_close(features(stream, mask)[1:], short)
    assert features(torch.randn(2, 4, 7, 5), None).shape == (2, 4 * 6)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    save_tuned(nn.Linear(2, 3), tmp_path / "tuned.safetensors")
    with pytest.raises(CheckpointError, match="does not hold tuned weights"):
        load_tuned(network(), tmp_path / "tuned.safetensors")
    with pytest.raises(CheckpointError, match="build anew"):
        load_tuned(network(), tmp_path / "gone.safetensors")


def test_a_build_tunes_before_it_exports(tmp_path: Path) -> None:
    (tmp_path / "export").mkdir()
    (tmp_path / "tuned_network.py").write_text(SOURCE)
    drawn = np.random.default_rng(0).normal(size=(900, 5)).astype(np.float32)
    np.savez(tmp_path / "rows.npz", x=drawn)
    file = tmp_path / "export" / "made.toml"
    file.write_text(MODEL)
    said: list[str] = []
    build = read_build_file(file)
    run_steps(build, lambda epoch: None, said.append)
    assert any(line.startswith("made: tuned: exits answer") for line in said)
    artifact = open_artifact(build.artifact)
    module = network()
    load_tuned(module, build.tuned)
    with torch.no_grad():
        row = torch.tensor([artifact.manifest.example.inputs["x"]])
        expected, untuned = module(row).softmax(1), network()(row).softmax(1)
    found = torch.tensor([artifact.manifest.example.answer])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert not torch.allclose(found, untuned, atol=1e-5)
    said.clear()
    run_steps(build, lambda epoch: None, said.append)
    assert all("up to date" in line for line in said) and len(said) == 4


def test_what_cannot_be_tuned_is_said(tmp_path: Path) -> None:
    file = tmp_path / "made.toml"
    file.write_text('name = "small"\nrecipe = "two_moons"\n[tuning]\nepochs = 1\n')
    with pytest.raises(ConfigError, match=r"\[tuning\] is for networks that were brought"):
        read_build_file(file)
