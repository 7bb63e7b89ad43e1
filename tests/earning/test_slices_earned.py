"""A real server whose traffic is sliced: where one slice drifts, the other goes on skipping."""

from __future__ import annotations

import json
import re
import time
from urllib.request import Request, urlopen

import numpy as np
import pytest
from earned_server import Served, remade, verified

from skipserve.errors import ConfigError
from skipserve.hosts.control import find_router
from skipserve.slices import Slices
from skipserve.training.recipes import open_recipe

pytestmark = pytest.mark.server
TENANTS = Slices(parameter="tenant", values=("acme", "globex"))


@pytest.fixture(scope="module")
def archive(routed_project, tmp_path_factory):
    """The small model, as ``certificate = "earned"`` and two slices would have made it."""
    root = tmp_path_factory.mktemp("sliced")
    return remade(routed_project[0], root, certificate="earned", slices=TENANTS)


class Tenants(Served):
    """A client of several tenants."""

    def asks(self, tenant, rows, **headers):
        body = {"inputs": rows.tolist()}
        if tenant is not None:
            body["parameters"] = {"tenant": tenant}
        sent = {"Content-Type": "application/json", **headers}
        url = self.server.url(self.server.manifests[0])
        with urlopen(Request(url, json.dumps(body).encode(), sent), timeout=60) as reply:
            return json.loads(reply.read())["router"], reply.headers["X-Skipserve-Risk"]

    def until_it_is(self, state, tenant, rows):
        deadline = time.monotonic() + 120
        while self.asks(tenant, rows)[0] != state:
            assert time.monotonic() < deadline, self.certificate()
            time.sleep(0.2)


def test_two_tenants_of_which_one_drifts(archive, tmp_path):
    moons = open_recipe("two_moons").draw("certify").inputs.numpy()[:1000]
    # They pass the guard, and about one in five is answered otherwise when it skips.
    drifted = np.float32(moons / 2 + moons.mean(0) / 2)
    served = Tenants(archive)
    with served.server:
        assert served.asks("acme", moons[:1]) == ("off", None)
        for part in np.split(moons, 4):
            for tenant in ("acme", "globex"):
                served.asks(tenant, part)
        for tenant in ("acme", "globex"):
            served.until_it_is("on", tenant, moons[:1])
        assert served.asks(None, moons[:1]) == ("off", None)
        assert served.asks("acme", moons[:1])[1] == "0.05"
        headers = {"X-Skipserve-Slice": "acme"}
        assert served.asks(None, moons[:1], **headers)[0] == "on"
        said = verified(served, archive, tmp_path)
        assert "acme: disagreement at most 0.05" in said
        assert "globex: disagreement at most 0.05" in said and "other:" not in said
        for part in np.split(drifted, 10):
            served.asks("acme", part)
        served.until_it_is("off", "acme", moons[:1])
        assert served.asks("globex", moons[:1])[0] == "on"
        assert find_router(served.metrics_port, "small").fell_back() == ["acme"]
        text = served.certificate()
        acme, globex, other = re.split(r"^small for \w+: ", text, flags=re.MULTILINE)[1:]
        assert "epoch 2 began: the alarm was raised" in acme
        assert "risk 0.05: candidate" in globex and "withdrawn" not in globex
        assert "risk 0.05: nothing is in force" in other
        assert served.certificate("--slice", "globex").count("small for") == 1
        with pytest.raises(ConfigError, match="has no slice 'initech': only acme, globex, other"):
            served.certificate("--slice", "initech")
        with pytest.raises(ConfigError, match="name one with --slice"):
            served.certificate("--export", str(tmp_path / "all"))
        file = tmp_path / "globex.jsonl"
        served.certificate("--export", str(file), "--slice", "globex")
    again = Tenants(archive)
    with again.server:
        assert again.asks("globex", moons[:1])[0] == "on"
        assert again.asks("acme", moons[:1])[0] == "off"
