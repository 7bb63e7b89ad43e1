"""The manual as a site: it builds, its links lead somewhere, and it opens from disk."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from playwright.sync_api import sync_playwright
from running import ROOT
from typer.testing import CliRunner

from skipserve.cli import app

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PAGES = [ROOT / "README.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").glob("*.md"))]
# Of an ASGI server, Ray or the tests; a page that shows a command of ours says `skipserve`.
OURS = re.compile(r"^(?:\$ )?(?:\.venv/bin/)?skipserve ([^#\n]*)", re.MULTILINE)


class Page(HTMLParser):
    """What a page of HTML leads to, loads, and can be led to."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.places = {""}
        self.feed(file.read_text())

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        known = {name: value or "" for name, value in attributes}
        if "id" in known:
            self.places.add(known["id"])
        if tag == "a" and "href" in known:
            self.links.append(known["href"])
        if tag in ("img", "script", "source") and "src" in known:
            self.loads.append(known["src"])
        if tag == "link" and known.get("rel") in ("stylesheet", "icon"):
            self.loads.append(known["href"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, as `make docs` builds it."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", folder],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    # mkdocs makes 404.html for a server's root; from disk nobody gets there.
    return {file: Page(file) for file in site.rglob("*.html") if file.name != "404.html"}


def test_every_link_and_anchor_leads_somewhere(pages: dict[Path, Page]) -> None:
    broken = []
    for file, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme:
                assert parts.scheme in ("http", "https", "mailto"), link
                continue
            target = (file.parent / unquote(parts.path)).resolve() if parts.path else file
            known = pages[target].places if target in pages else {""}
            if not target.is_file() or unquote(parts.fragment) not in known:
                broken.append(f"{file.name}: {link}")
    assert broken == []


def test_pages_load_nothing_from_elsewhere(pages: dict[Path, Page]) -> None:
    for file, page in pages.items():
        for load in page.loads:
            assert not urlsplit(load).netloc, f"{file.name} loads {load}"
            assert (file.parent / urlsplit(load).path).is_file(), f"{file.name} loads {load}"


def test_search_finds_a_page_from_disk(site: Path) -> None:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox"]
        )
        page = chromium.new_page(viewport={"width": 1280, "height": 900})
        hosts = set[str]()
        page.on("request", lambda request: hosts.add(urlsplit(request.url).netloc))
        page.goto((site / "decisions" / "0005-router.html").as_uri())
        page.click(".md-search__input")
        page.keyboard.type("kustomize")
        found = page.locator(".md-search-result__link").first.get_attribute("href")
        chromium.close()
    assert found is not None and found.split("?")[0] == (site / "kubernetes.html").as_uri()
    assert hosts == {""}


def test_every_page_is_in_the_navigation(pages: dict[Path, Page], site: Path) -> None:
    reached = {(site / urlsplit(link).path).resolve() for link in pages[site / "index.html"].links}
    shown = {page for page in pages if "repository" not in page.relative_to(site).parts}
    assert shown <= reached
    assert len(shown) > 40


def test_measured_tables_and_drawings_are_as_their_sources_say() -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    script = ROOT / "benchmarks" / "pages.py"
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_a_table_that_a_benchmark_prints_is_taken_into_its_json(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import pages  # type: ignore[import-not-found]

    for file in sorted((ROOT / "docs" / "measured").glob("*.json")):
        measured = json.loads(file.read_text())
        copy = tmp_path / file.name
        copy.write_text(pages.as_text({**measured, "rows": measured["rows"][:1]}))
        printed = f"warming up\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n{pages.table(measured)}"
        pages.take(copy, printed, "another machine")
        taken = json.loads(copy.read_text())
        assert taken["machine"] == "another machine"
        as_before = {key: measured[key] for key in ("machine", "date")}
        assert pages.table({**taken, **as_before}) == pages.table(measured), file.name
    with pytest.raises(ValueError, match="no table of 6 columns begins with 'true rate'"):
        pages.take(tmp_path / "alarm.json", "| true rate |\n|---|\n| 1 |\n", "another machine")


def test_drawings_are_as_their_script_draws_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "docs" / "site")
    import drawings  # type: ignore[import-not-found]

    for name, draw in drawings.DRAWINGS.items():
        assert (ROOT / "docs" / "figures" / f"{name}.svg").read_text() == str(draw()), name


def commands() -> list[tuple[str, str]]:
    """Page and command, for each of ours in a block for a shell."""
    found = []
    for page in PAGES:
        for block in re.findall(r"^```(?:sh)?\n(.*?)^```", page.read_text(), re.M | re.S):
            lines = OURS.findall(block.replace("\\\n", " "))
            found += [(page.name, line.split(";")[0].strip()) for line in lines]
    return sorted(set(found))


@pytest.mark.parametrize(("page", "command"), commands())
def test_each_command_is_one_that_exists(page: str, command: str) -> None:
    called = shlex.split(re.split(r"\s[>&|]", command)[0])
    names = [word for word in called if re.fullmatch(r"[a-z]+", word)]
    # A group has commands of its own: as many names as the help knows.
    shown = CliRunner().invoke(app, [names[0], "--help"])
    assert shown.exit_code == 0, shown.output
    for option in (word.split("=")[0] for word in called if word.startswith("--")):
        assert option in shown.output, f"{page}: {names[0]} has no {option}"


def test_a_list_begins_after_an_empty_line() -> None:
    """A forge shows other lists, too; the site runs their items together."""
    wrong = []
    for page in [*PAGES, ROOT / "CONTRIBUTING.md", *(ROOT / "docs" / "decisions").glob("*.md")]:
        text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
        begun = r"^(?![-#|<\s]|\d+\. ).+\n(?:- |\d+\. |\|).*"
        wrong += [f"{page.name}: {found}" for found in re.findall(begun, text, re.MULTILINE)]
    assert wrong == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_each_script_and_target_that_a_page_names_exists(page: Path) -> None:
    text = page.read_text()
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:`|^)make (\w+)", text, re.MULTILINE)) <= targets
    for script in re.findall(r"(?:python |`)((?:benchmarks|deploy|docs)/[\w/]+\.(?:py|sh))", text):
        assert (ROOT / script).exists(), script


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_each_extra_that_a_page_installs_exists(page: Path) -> None:
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for asked in re.findall(r"pip install '\.?[\w]*\[([\w,]+)\]'", page.read_text()):
        assert set(asked.split(",")) <= set(known["optional-dependencies"]), asked
