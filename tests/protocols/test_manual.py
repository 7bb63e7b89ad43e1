"""The tables of docs/protocols.md: codes, statuses, headers and probes are those of the code."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from running import ROOT

from skipserve.hosts.access import OPEN
from skipserve.hosts.cross_origin import EXPOSED
from skipserve.hosts.openapi import document
from skipserve.hosts.routes import routes_of
from skipserve.protocols.deadline import HEADERS
from skipserve.protocols.messages import DEPTH_HEADER, STATUSES
from skipserve.slices import HEADER as SLICE_HEADER

PACKAGE = ROOT / "src" / "skipserve"
# Of Python's interface alone.
NOT_OVER_HTTP = {"wrong_thresholds"}
# Makes errors, with the code as its first word.
MAKERS = {"InputError", "refused", "_refused"}


def table(heading: str, number: int = 0) -> list[list[str]]:
    """The cells of a table below a heading of the page, without its first row."""
    text = (ROOT / "docs" / "protocols.md").read_text()
    _, _, below = text.partition(f"\n## {heading}\n")
    found = re.findall(r"(?:^\|.*\n)+", below.partition("\n## ")[0], re.MULTILINE)[number]
    return [
        [cell.strip() for cell in line.strip("|").split("|")] for line in found.splitlines()[2:]
    ]


def named(cell: str) -> list[str]:
    """What stands in code marks."""
    return re.findall(r"`([^`]+)`", cell)


def codes_in(file: Path) -> set[str]:
    """Codes of the errors that a file makes."""
    found = set()
    for call in ast.walk(ast.parse(file.read_text())):
        if isinstance(call, ast.Call):
            name = getattr(call.func, "id", getattr(call.func, "attr", ""))
            words = [one.value for one in call.args if isinstance(one, ast.Constant)]
            if name in MAKERS:
                found |= {word for word in words[:1] if re.fullmatch("[a-z_]+", str(word))}
    return found


def test_every_code_has_its_status_and_a_line() -> None:
    told = {code: int(status) for status, codes, _ in table("Error codes") for code in named(codes)}
    codes = set().union(*map(codes_in, PACKAGE.rglob("*.py"))) | STATUSES.keys()
    assert told == {code: STATUSES.get(code, 400) for code in codes - NOT_OVER_HTTP}


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> dict:
    """Models as the manual's page of the HTTP API describes them."""
    monkeypatch.syspath_prepend(ROOT / "docs" / "site")
    import http_api  # type: ignore[import-not-found]

    models: dict = http_api.models()
    return models


def names(number: int) -> set[str]:
    return {
        one.partition(":")[0].lower() for cell, _ in table("Headers", number) for one in named(cell)
    }


def test_headers_of_the_page_are_those_of_the_code(known: dict) -> None:
    told = document(list(routes_of(known, lambda: True)), known, keyed=True)["components"]
    asked = {one["name"].lower() for one in told["parameters"].values()}
    asked |= {*HEADERS, SLICE_HEADER, told["securitySchemes"]["key"]["name"].lower()}
    assert asked <= names(0)
    replied = {*map(str.lower, told["headers"]), DEPTH_HEADER, *EXPOSED.split(", ")}
    assert replied <= names(1)
    code = "\n".join(file.read_text().lower() for file in PACKAGE.rglob("*.py"))
    for header in names(0) | names(1):
        assert f'"{header}"' in code or header in EXPOSED, header


def test_probes_of_the_page_are_those_of_the_code(known: dict) -> None:
    routes = [route for route in routes_of(known, lambda: True) if route.method == "GET"]
    probes = [one for one in routes if 503 in one.statuses or "live" in one.path]
    paths = {re.sub("/models/[^/]+", "/models/{model}", one.path) for one in probes}
    told = [named(route)[0].removeprefix("GET ") for route, _ in table("Probes")]
    assert sorted(told) == sorted(path for path in paths if "/versions/" not in path)
    assert set(told) >= OPEN
