"""The first line of a report: who won, and what a model lacks."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest
from reports import DEPTH, FIGURES, quiet

from skipserve.artifacts.certificates_file import CERTIFICATES
from skipserve.intervals import rate, upper_bound
from skipserve.reporting.cost import Cost
from skipserve.reporting.model import find_model
from skipserve.reporting.page import draw_figures
from skipserve.reporting.report import measure
from skipserve.reporting.sample import take_sample
from skipserve.reporting.words import first_line, promise

pytestmark = pytest.mark.slow


def test_the_class_that_suffers_most_has_a_bound_of_its_own(found):
    by_class = ((0, rate(2, 300)), (1, rate(3, 30)))
    routed = replace(found.routed, by_class=by_class)
    assert routed.worst == (1, by_class[1][1], upper_bound(3, 30, 0.95))
    line = first_line(replace(found, routed=routed))
    assert "The class that suffers most is 1: 3 of 30 of its rows are answered otherwise" in line
    # Where nothing differs, the one that least is known of.
    none = replace(found.routed, by_class=((0, rate(0, 300)), (1, rate(0, 30))))
    assert none.worst[0] == 1


@pytest.mark.parametrize(
    ("confidence", "said"), [(0.95, "95%"), (0.975, "97.5%"), (0.995, "99.5%"), (0.9996, "99.96%")]
)
def test_a_promise_is_as_sure_as_its_certificate_and_no_more(found, confidence, said):
    point = found.points[0]
    made = point.certificate.model_copy(update={"confidence": confidence})
    told = promise(replace(point, certificate=made), found)
    assert told[1].startswith(f"We are {said} sure of that.")


def costs(router, fixed, cut=None):
    """Milliseconds of a measurement that came out so, for a batch of 1 and of 8."""
    return tuple(
        Cost(size, 1.0, {1: 0.3, 2: ms, 3: 0.9}, {2: cut or ms}, {0.02: mine, 0.05: mine})
        for size, mine, ms in zip((1, 8), router, fixed, strict=True)
    )


@pytest.mark.parametrize(
    ("run_rate", "measured", "says"),
    [
        (0.3, costs((0.4, 0.4), (0.5, 0.5)), "The router beats every fixed depth: "),
        (0.3, costs((0.6, 0.6), (0.5, 0.5)), "A fixed depth beats the router in time, though"),
        (0.3, costs((0.6, 0.4), (0.5, 0.5)), "The router beats every fixed depth in blocks, but "),
        (0.3, costs((0.4, 0.4), (0.5, 0.5), cut=0.2), "A fixed depth beats the router in time, th"),
        (0.6, costs((0.4, 0.4), (0.5, 0.5)), "A fixed depth beats the router: "),
        (0.5, costs((0.4, 0.4), (0.5, 0.5)), "A fixed depth beats the router: "),
    ],
)
def test_the_first_line_says_who_won(found, run_rate, measured, says):
    points = tuple(
        replace(one, certificate=one.certificate.model_copy(update={"run_rate": run_rate}))
        for one in found.points
    )
    line = first_line(replace(found, points=points, costs=measured, fixed={0.02: 2, 0.05: 2}))
    assert line.startswith(says)
    assert f"at a certified risk of 2% the router runs {run_rate:.1%} of the blocks" in line
    assert "stopping every row after block 2 runs 50.0%" in line
    assert "ms a row against" in line


def test_where_no_fixed_depth_holds_the_rival_is_the_network_itself(found):
    whole = {0.02: DEPTH, 0.05: DEPTH}
    for ms, says in (
        (0.5, "The network without a router beats"),
        (2.0, "The router beats the net"),
    ):
        slow = tuple(replace(one, cut_ms={DEPTH: ms}, full_ms=ms) for one in costs((1, 1), (1, 1)))
        line = first_line(replace(found, costs=slow, fixed=whole))
        assert line.startswith(says)
        assert "no fixed depth below the whole network can be certified" in line


def test_a_model_without_a_router_is_told_so_and_how_to_get_one(unrouted):
    assert first_line(unrouted).startswith("small has no router: every row runs all 4 blocks.")
    assert unrouted.inspection.verdict in first_line(unrouted)
    assert any("add [router] to export/small.toml" in note for note in unrouted.notes)
    names = {one.name for one in draw_figures(unrouted)[0]}
    assert names == FIGURES - {"certified", "cost-1", "cost-8", "depth", "risk"}
    assert [cost.batch_size for cost in unrouted.costs] == [1, 8]


def test_a_checkpoint_alone_is_told_what_it_lacks(checkpoint):
    opened = find_model(str(checkpoint))
    alone = measure(opened, take_sample(opened)[:300], 8, say=quiet)
    assert first_line(alone).startswith("small is a checkpoint without an artifact")
    assert not alone.costs
    assert any("No artifact stands at" in note for note in alone.notes)


def test_an_uncertified_router_is_off_and_that_is_said(project, tmp_path):
    shutil.copytree(project / "artifacts", tmp_path / "artifacts")
    (tmp_path / "artifacts" / "small" / CERTIFICATES).unlink()
    opened = find_model("small", tmp_path)
    off = measure(opened, take_sample(opened)[:300], 8, say=quiet)
    assert first_line(off).startswith("The router of small is off")
    assert any("Nothing is certified for the fp32 files on cpu" in note for note in off.notes)
