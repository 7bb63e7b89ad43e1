"""The control state that the launcher tells the workers: read as written, or nothing is skipped."""

from __future__ import annotations

import pytest
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from skipserve.safety.switch import ControlState, Switch

STATES = st.sampled_from(["on", "fell_back", "disabled"])
PLACES = st.none() | st.lists(st.none() | st.integers(0, 99), max_size=8).map(tuple)


@pytest.mark.parametrize("proposals", [(), ("a" * 32, ""), ("", "b" * 32)])
def test_ladders_are_told_with_the_places_that_are_of_them(switch, proposals):
    told = ControlState("on", 2, (3, None), False, proposals, "c" * 32, proposing=True)
    switch.write(told)
    assert switch.control() == told
    assert told.places == ((3, proposals[0] if proposals else ""), None)


@given(STATES, st.integers(0, 10**9), PLACES, st.booleans())
@settings(max_examples=examples(50))
def test_what_is_told_is_read(tmp_path_factory, state, epoch, in_force, eager):
    file = tmp_path_factory.mktemp("switch") / "model"
    told, seen = Switch(file), Switch(file)
    control = ControlState(state, epoch, in_force, eager)
    told.write(control)
    assert seen.control() == control == told.control()
    told.close(), seen.close()


@given(st.integers(0, 30), st.integers(0, 255))
@settings(max_examples=examples(50))
def test_a_damaged_control_state_lets_nothing_be_skipped(tmp_path_factory, place, byte):
    file = tmp_path_factory.mktemp("switch") / "model"
    switch = Switch(file)
    control = ControlState("on", 7, (3, None, 12))
    switch.write(control)
    line = bytearray(file.read_bytes())
    before, line[place] = line[place], byte
    file.write_bytes(line)
    found = switch.control()
    assert found == control if byte == before else found.state == "disabled" or found == control
    switch.close()
