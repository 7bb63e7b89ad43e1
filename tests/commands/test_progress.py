"""Progress of long commands, with and without a terminal."""

from __future__ import annotations

import io
import re
import shutil

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from skipserve.artifacts.artifact import open_artifact
from skipserve.building.buildfile import read_build_file
from skipserve.building.products import train
from skipserve.certification.certifying import certify_artifact
from skipserve.commands.progress import EVERY_S, Watch, watching
from skipserve.training.history import Epoch
from skipserve.training.recipes import open_recipe


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def paper() -> Console:
    return Console(file=io.StringIO(), width=100, force_terminal=False)


def printed(out: Console) -> list[str]:
    assert isinstance(out.file, io.StringIO)
    return out.file.getvalue().splitlines()


def test_it_says_step_epoch_and_time_left():
    clock, out = Clock(), paper()
    watch = Watch(out, "starting", clock=clock)
    watch.progress("m: train", None)
    clock.now = 10.0  # of imports, which are no measure of the steps
    watch.progress("m: train, epoch 1 of 8", 0.05)
    clock.now = 30.0
    watch.epoch(Epoch(1, 0.51234, 0.873, {}))
    watch.progress("m: train, epoch 2 of 8", 0.25)
    watch.look()
    assert printed(out) == [
        "m: train, epoch 2 of 8, loss 0.5123, test accuracy 87.3%, 30 s so far, about 75 s left"
    ]
    watch.progress("m: export", None)
    for after, told in ((15, "15 s"), (100.2, "1 min 40 s"), (599, "9 min 59 s"), (630, "10 min")):
        clock.now = 30.0 + after
        watch.look()
        assert printed(out)[-1] == f"m: export, {told} so far"


@given(st.lists(st.tuples(st.floats(0.01, 3), st.booleans()), max_size=200))
def test_it_is_never_silent_for_ten_seconds_and_speaks_once_in_a_silence(steps):
    clock, out = Clock(), paper()
    watch = Watch(out, "m: export", clock=clock)
    last, lines = 0.0, 0
    for seconds, says in steps:
        clock.now += seconds
        if says:
            watch.say("something")
        else:
            watch.look()
        if len(printed(out)) > lines:
            assert len(printed(out)) == lines + 1
            assert says or clock.now - last >= EVERY_S
            last, lines = clock.now, lines + 1
        # Looked at every three seconds at most here, twice a second in truth.
        assert clock.now - last < EVERY_S + 3
    assert EVERY_S + 0.5 < 10


def test_what_it_is_told_is_printed_as_it_is():
    out = paper()
    Watch(out, "starting").say("export/m.toml has no [router] section")
    assert printed(out) == ["export/m.toml has no [router] section"]


def test_a_certification_says_how_far_it_is(routed_project, tmp_path):
    shutil.copytree(routed_project[0] / "artifacts" / "small", tmp_path / "small")
    samples = open_recipe("two_moons").draw("certify").inputs.numpy()[:500]
    told: list[tuple[str, float | None]] = []
    certify_artifact(
        tmp_path / "small",
        {"inputs": samples},
        [0.05],
        on_progress=lambda doing, share: told.append((doing, share)),
    )
    of = len(open_artifact(tmp_path / "small").certificates.candidates)
    begun = ["running 500 rows at full depth", "reading every exit of 500 rows"]
    assert told[:2] == [(f"small: {doing}", None) for doing in begun]
    places = range(len(told) - 2)
    assert told[2:] == [(f"small: testing candidate {i + 1} of {of}", i / of) for i in places]
    assert 2 < len(told) <= 2 + of


def test_a_training_is_watched_to_its_end(tmp_path):
    file = tmp_path / "export" / "small.toml"
    file.parent.mkdir()
    file.write_text(
        'name = "small"\nrecipe = "two_moons"\n[network]\ndepth = 3\nwidth = 8\n'
        "[training]\nepochs = 20\n"
    )
    out = paper()
    with watching(out=out, every_s=0.01) as watch:
        train(read_build_file(file), tmp_path / "made", watch.epoch, watch.progress)
    said = [line for line in printed(out) if line.startswith("small: train")]
    form = r"small: train, epoch (\d+) of 20(, loss [\d.]+, test accuracy [\d.]+%)?, \d+ s so far"
    found = [re.fullmatch(form + "(, about .* left)?", line) for line in said]
    assert said and all(found), said
    epochs = [int(one[1]) for one in found if one]
    assert epochs == sorted(epochs)
    assert 1 <= epochs[0] <= epochs[-1] <= 20
