"""Training in small: residual connections keep gradients alive, and curves are written."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from skipserve.errors import CheckpointError, ConfigError, TrainingDiverged
from skipserve.networks import parse_network
from skipserve.plots import plot_runs
from skipserve.training.checkpoint import load_checkpoint, save_checkpoint
from skipserve.training.loop import accuracy, fit
from skipserve.training.recipes import open_recipe
from skipserve.training.signals_1d import draw_signals

pytestmark = pytest.mark.slow

MOONS = open_recipe("two_moons")


def network(connection: str, **options):
    return parse_network(
        {"family": "mlp", "inputs": [2], "classes": 2, "connection": connection, **options}
    )


def training(**changes):
    return MOONS.training.model_copy(update=changes)


def test_residual_trains_at_depth_twenty_where_plain_does_not():
    ends = {}
    for connection in ("plain", "residual"):
        _, history = fit(network(connection), MOONS, training(epochs=10))
        ends[connection] = history[-1]
    first = {name: next(iter(end.gradients.values())) for name, end in ends.items()}
    assert first["plain"] < 1e-6
    assert 1e-3 < first["residual"] < 10
    assert ends["residual"].accuracy > 0.9
    assert ends["plain"].accuracy < 0.6


def test_the_gated_variant_trains_too():
    _, history = fit(network("gated", depth=8, width=32), MOONS, training(epochs=15))
    assert history[-1].accuracy > 0.85


def test_the_recipe_without_clipping_diverges_and_says_where():
    with pytest.raises(TrainingDiverged, match=r"epoch 1: .*clip_norm = 1\.0"):
        fit(network("residual"), MOONS, training(clip_norm=0.0))


def test_the_same_seed_gives_the_same_weights():
    small = network("residual", depth=2, width=8)
    first, _ = fit(small, MOONS, training(epochs=1))
    again, _ = fit(small, MOONS, training(epochs=1))
    other, _ = fit(small, MOONS, training(epochs=1, seed=1))
    for name, weight in first.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name]), name
    assert not torch.equal(first.head.weight, other.head.weight)


def test_four_steps_in_all_are_enough():
    config = training(epochs=4, schedule="one_cycle", batch_size=len(MOONS.draw("train")))
    _, history = fit(network("residual", depth=2, width=8), MOONS, config)
    assert len(history) == 4 and np.isfinite([one.loss for one in history]).all()


def test_the_splits_share_no_row_and_never_change():
    splits = [MOONS.draw(name).inputs for name in ("train", "test", "propose", "certify")]
    rows = [{tuple(row) for row in split.tolist()} for split in splits]
    assert len(set().union(*rows)) == sum(map(len, rows))
    assert torch.equal(open_recipe("two_moons").draw("certify").inputs, splits[-1])
    assert len(splits[0]) == 1_400 and len(splits[1]) == 600


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    directory = tmp_path_factory.mktemp("runs") / "small"
    trained, history = fit(network("residual", depth=3, width=8), MOONS, training(epochs=2))
    save_checkpoint(directory, trained, "two_moons", training(epochs=2), history)
    return directory, trained


def test_a_checkpoint_round_trips(run):
    directory, trained = run
    loaded = load_checkpoint(directory)
    assert loaded.network.config == trained.config
    rows = MOONS.draw("test")
    with torch.no_grad():
        assert torch.equal(loaded.network(rows.inputs), trained(rows.inputs))
    assert loaded.run.accuracy == accuracy(trained, rows)
    assert not any(file.suffix in (".pt", ".pkl", ".pth") for file in directory.iterdir())


def test_a_run_leaves_the_gradient_norm_of_every_layer_and_epoch(run):
    directory, _ = run
    with (directory / "gradients.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    layers = ["stem.1", "blocks.0.inner.0", "blocks.1.inner.0", "blocks.2.inner.0", "head"]
    assert [(row["epoch"], row["layer"]) for row in rows] == [
        (epoch, layer) for epoch in "12" for layer in layers
    ]
    assert all(float(row["grad_norm"]) > 0 for row in rows)


def test_the_figure_is_a_picture(run, tmp_path):
    plot_runs([run[0]], tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(CheckpointError, match="holds no curve"):
        plot_runs([tmp_path], tmp_path / "figure.png")


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("checkpoint.safetensors", None, "is missing"),
        ("config.json", None, "is missing"),
        ("checkpoint.safetensors", b"\x08\0\0\0\0\0\0\0{}", "damaged"),
        ("config.json", b"{", "cannot be read"),
        ("config.json", b'{"recipe": "two_moons"}', "key 'network' is missing"),
    ],
)
def test_a_damaged_checkpoint_is_a_clear_error(run, tmp_path, file, content, says):
    for good in run[0].iterdir():
        (tmp_path / good.name).write_bytes(good.read_bytes())
    if content is None:
        (tmp_path / file).unlink()
    else:
        (tmp_path / file).write_bytes(content)
    with pytest.raises(CheckpointError, match=says):
        load_checkpoint(tmp_path)


def test_weights_of_another_network_are_refused(run, tmp_path):
    for good in run[0].iterdir():
        (tmp_path / good.name).write_bytes(good.read_bytes())
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace('"depth": 3', '"depth": 4'))
    with pytest.raises(CheckpointError, match="does not hold the network"):
        load_checkpoint(tmp_path)


def test_an_unknown_recipe_names_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'two_moons'"):
        open_recipe("two_moon")


@settings(max_examples=5)
@given(count=st.integers(1, 8).map(lambda tens: 10 * tens), seed=st.integers(0, 2**32 - 1))
def test_mnist1d_is_drawn_as_its_package_draws_it(count, seed):
    import mnist1d.data

    options = mnist1d.data.get_dataset_args()
    options.num_samples, options.seed, options.train_split = count, seed, 1.0
    made = mnist1d.data.make_dataset(options)
    signals, labels = draw_signals(count, seed)
    np.testing.assert_array_equal(signals, made["x"])
    np.testing.assert_array_equal(labels, made["y"])
