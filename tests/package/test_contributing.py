"""CONTRIBUTING.md names the rooms and files that are there, and no others."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "skipserve"
TEXT = (ROOT / "CONTRIBUTING.md").read_text()


def test_the_map_names_every_room_of_the_package_and_no_other() -> None:
    named = re.findall(r"^\| `(\w+)/` \| It .+\. \|$", TEXT, re.M)
    rooms = {file.parent.name for file in PACKAGE.glob("*/__init__.py")}
    assert sorted(named) == sorted(rooms)


def test_tests_stand_in_rooms_of_the_package() -> None:
    rooms = {one.name for one in PACKAGE.iterdir()}
    rooms |= {"package", "support", "benchmarks", "deploy", "docs"}
    assert {file.parent.name for file in (ROOT / "tests").glob("*/*.py")} <= rooms


@pytest.mark.parametrize("file", sorted(set(re.findall(r"`?\b([\w/]+/[\w/]+\.(?:py|md))", TEXT))))
def test_files_it_names_are_there(file: str) -> None:
    assert (PACKAGE / file).is_file() or (ROOT / file).is_file()


@pytest.mark.parametrize(
    ("word", "file"),
    [
        ("SignalName", "tasks/task.py"),
        ("Kind", "tasks/task.py"),
        ("KINDS", "tasks/__init__.py"),
        ("AnyTask", "tasks/__init__.py"),
        ("FAMILIES", "networks/config.py"),
        ("FAMILIES", "sources/hugging_face/reading.py"),
        ("ServerName", "hosts/config.py"),
        ("PANELS", "cli.py"),
        ("RawRequest", "protocols/messages.py"),
    ],
)
def test_names_to_touch_are_there(word: str, file: str) -> None:
    assert f"`{word}`" in TEXT
    assert re.search(rf"^(class )?{word}\b", (PACKAGE / file).read_text(), re.M)
