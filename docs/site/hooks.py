"""What mkdocs calls while it builds the manual.

Pages link to files of the repository that stand outside of docs/ (SECURITY.md, alerts.yml), as
they do on a forge. Such files become part of the site, under `repository/`. The decisions are
listed in the navigation and on a page of their own, so that a new one needs no other file. The
page of the HTTP API is made of the package.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path, PurePosixPath
from typing import Any

import http_api  # beside this file, which mkdocs puts on the path
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
OUTSIDE = "repository"
# The theme asks another host for what lets search run from disk; ours stands here.
SHIM, WORKER = "https://unpkg.com/iframe-worker/shim", "assets/worker.js"
LINK = re.compile(r"(\]\()([^)\s#:]+)((?:#[^)\s]*)?\))")
INDEX, HTTP_API = "decisions/index.md", "http-api.md"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """List the decisions in the navigation, and at its end what it does not name."""
    assert config.nav is not None
    named = set(re.findall(r"[\w/-]+\.md", repr(config.nav)))
    (section,) = [entry for entry in config.nav if "Decisions" in entry]
    section["Decisions"] = [INDEX, *(f"decisions/{file.name}" for file in decisions())]
    if others := sorted({file.name for file in DOCS.glob("*.md")} - named):
        config.nav.append({"More": others})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Take in the index of decisions, and what pages link to outside of docs/."""
    files.append(File.generated(config, INDEX, content=index()))
    files.append(File.generated(config, HTTP_API, content=http_api.page()))
    files.append(File.generated(config, WORKER, abs_src_path=str(DOCS / "site" / "worker.js")))
    left = [file for file in files if file.is_documentation_page() and file.abs_src_path]
    while left:
        page = left.pop()
        text = Path(str(page.abs_src_path)).read_text()
        for _, link, _ in LINK.findall(text):
            target = place_of(page.src_uri, link)
            if target.startswith(f"{OUTSIDE}/") and files.get_file_from_path(target) is None:
                source = ROOT / target.removeprefix(f"{OUTSIDE}/")
                if source.is_file():
                    taken = File.generated(config, target, abs_src_path=str(source))
                    files.append(taken)
                    left += [taken] if target.endswith(".md") else []
    return files


def on_page_markdown(markdown: str, page: Any, config: MkDocsConfig, files: Files) -> str:
    """Lead links to where their files are on the site."""
    here = page.file.src_uri

    def led(found: re.Match[str]) -> str:
        target = place_of(here, found[2])
        return found[1] + posixpath.relpath(target, posixpath.dirname(here) or ".") + found[3]

    return LINK.sub(led, markdown)


def on_post_page(output: str, page: Any, config: MkDocsConfig) -> str:
    """Load our own script in place of another host's."""
    up = "../" * page.url.count("/")
    return output.replace(SHIM, f"{up}{WORKER}")


def place_of(page: str, link: str) -> str:
    """Where the target of a link is on the site, by the page's place there."""
    if page.startswith(f"{OUTSIDE}/"):
        folder = PurePosixPath(page.removeprefix(f"{OUTSIDE}/")).parent
    else:
        folder = PurePosixPath("docs") / PurePosixPath(page).parent
    target = posixpath.normpath(str(folder / link))
    if target.startswith("docs/"):
        return target.removeprefix("docs/")
    return f"{OUTSIDE}/{target}"


def decisions() -> list[Path]:
    return sorted(file for file in (DOCS / "decisions").glob("*.md") if file.name != "index.md")


def index() -> str:
    """A page with a line for each decision."""
    lines = [f"- [{title(file)}]({file.name})" for file in decisions()]
    words = "Each page names the context, the choice, its price, and what would change it."
    return "\n".join(["# Decisions", "", words, "", *lines, ""])


def title(file: Path) -> str:
    return file.read_text().splitlines()[0].lstrip("# ")
