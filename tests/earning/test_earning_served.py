"""A real server that earns its certificate, keeps it over a restart, and says how far it is."""

from __future__ import annotations

import json
import re
import time

import pytest
from earned_server import Served, remade, verified

from skipserve.errors import StateError
from skipserve.training.recipes import open_recipe

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def archive(routed_project, tmp_path_factory):
    """The small model, as ``certificate = "earned"`` would have made it."""
    root = tmp_path_factory.mktemp("earned")
    return remade(routed_project[0], root, certificate="earned")


def test_it_earns_keeps_exports_takes_over_and_forgets(archive, tmp_path):
    rows = open_recipe("two_moons").draw("certify").inputs.numpy()[:250]
    earned = r"risk 0\.05: candidate (\d+) of \d+ is in force, earned in epoch 1 on 250 rows"
    served = Served(archive)
    with served.server:
        text = served.certificate()
        assert "risk 0.05: nothing is in force that was earned; earning: 0 of about 97 rows" in text
        with pytest.raises(StateError, match="nothing is earned yet"):
            served.certificate("--export", str(tmp_path / "none"))
        assert served.send(rows)["router"] == "off"
        served.until(earned)
        deadline = time.monotonic() + 60
        while served.send(rows[:1])["router"] == "off":
            assert time.monotonic() < deadline
    # At another address: the commands find the service, and ask where it listens.
    again = Served(archive, "127.0.0.2")
    with again.server:
        assert again.send(rows[:1])["router"] == "on"
        file = tmp_path / "earned.jsonl"
        assert again.certificate("--export", str(file)) == f"{file}\n"
        assert "earned in epoch 1, " in verified(again, archive, tmp_path)
        assert "forgotten; epoch 2 begins" in again.certificate("--reset")
        assert "nothing is in force" in again.certificate().splitlines()[2]
        again.certificate("--import", str(file))
        assert re.search(earned, again.certificate())
        found = json.loads(again.certificate("--json"))
        (whole,) = found["slices"]
        assert (found["model"], whole["slice"], whole["earning"]) == ("small", None, True)
        (risk,) = (one for one in whole["risks"] if one["risk"] == 0.05)
        assert risk["candidate_in_force"] >= 1 and risk["earned"]["rows"] == 250
        assert "earned in epoch 1, " in verified(again, archive, tmp_path)
        deadline = time.monotonic() + 60
        while again.send(rows[:1])["router"] == "off":
            assert time.monotonic() < deadline
