"""The help: grouped by what a person wants, an example for every command, and all of them parse."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from skipserve.certification.findings import Fault
from skipserve.cli import PANELS, app
from skipserve.commands.examples import EXAMPLES
from skipserve.commands.exits import MEANINGS, ExitCode

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "commands.md").read_text()


def commands() -> dict[str, Any]:
    """Every command by its words, as ``router on``."""
    found: dict[str, Any] = {}
    for name, command in get_command(app).commands.items():  # type: ignore[attr-defined]
        inside = getattr(command, "commands", None)
        found |= {f"{name} {one}": each for one, each in inside.items()} if inside else {}
        if not inside:
            found[name] = command
    return found


COMMANDS = commands()


def shown(*arguments: str) -> str:
    done = CliRunner().invoke(app, [*arguments, "--help"], prog_name="skipserve")
    assert done.exit_code == 0, done.output
    return done.stdout


def test_the_help_groups_the_commands_by_what_a_person_wants() -> None:
    text = shown()
    places = [text.index(f"─ {panel} ─") for panel in PANELS]
    assert places == sorted(places)
    for name in {one.partition(" ")[0] for one in COMMANDS}:
        assert f"│ {name} " in text
    assert "Commands ─" not in text  # where one without a group would stand


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_every_option_is_explained_and_has_examples(name: str) -> None:
    command = COMMANDS[name]
    unexplained = [one.name for one in command.params if not one.help]
    assert not unexplained
    first = command.help.splitlines()[0]
    assert first.endswith((".", ":"))
    text = shown(*name.split())
    assert f"Usage: skipserve {name} " in text
    for line in EXAMPLES[name]:
        assert f" skipserve {line} " in " ".join(text.split()) + " "


@pytest.mark.parametrize("line", [line for lines in EXAMPLES.values() for line in lines])
def test_every_example_is_a_command_line_that_parses(line: str) -> None:
    (name,) = (one for one, lines in EXAMPLES.items() if line in lines)
    words = shlex.split(line)
    assert line.startswith(name)
    COMMANDS[name].make_context(name, words[len(name.split()) :])


def test_no_example_is_of_a_command_that_is_gone() -> None:
    assert set(EXAMPLES) == set(COMMANDS)


def test_exit_codes_are_those_of_the_help_and_of_the_page() -> None:
    text = shown()
    for code, meaning in MEANINGS.items():
        assert f"{code:<6} {meaning}" in text
        assert f"| {code} | {meaning} |" in PAGE
    named = {int(code) for code in MEANINGS if code.isdecimal()}
    assert named == set(ExitCode)
    assert (min(Fault), max(Fault)) == tuple(map(int, ["10", "17"]))
    explained = " ".join(shown("verify").split())
    assert all(f" {fault.value} " in explained for fault in Fault)


def test_the_page_names_every_command_and_those_that_print_json() -> None:
    for name, command in COMMANDS.items():
        assert f"`{name}`" in PAGE, name
        prints = any("--json" in one.opts for one in command.params)
        line = next(line for line in PAGE.splitlines() if f"| `{name}` |" in line)
        assert line.endswith("| yes |" if prints else "| |"), name
