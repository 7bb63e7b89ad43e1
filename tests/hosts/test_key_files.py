"""API keys in a file, and how many requests each may make."""

from __future__ import annotations

from pathlib import Path

import pytest
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from key_files import FIRST, SECOND, write

from skipserve.address import Address
from skipserve.errors import ConfigError
from skipserve.hosts.config import HostConfig
from skipserve.hosts.keys import Keys, read_keys, shown_key, warn_of_readers
from skipserve.hosts.rates import SLOTS, Rates


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "cannot be read (No such file or directory)"),
        (b"", "has no key"),
        (b"# only words\n", "has no key"),
        (b"0123456789abcdef\nshort\n", "line 2 is no key"),
        (b"0123456789 abcdef\n", "line 1 is no key"),
        (b"\xff\xfe0123456789abcdef", "line 1 is no key"),
        (b"a" * 513, "line 1 is no key"),
    ],
)
def test_a_file_that_holds_no_keys_is_one_line(
    tmp_path: Path, content: bytes | None, says: str
) -> None:
    file = tmp_path / "keys"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError) as told:
        read_keys(file)
    assert says in str(told.value)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("keys", "limit", "says"),
    [
        (None, 5.0, "name their file with --keys"),
        (Path("keys"), 0.0, "--rate-limit is 0.0; expected requests"),
        (Path("keys"), float("nan"), "--rate-limit is nan; expected requests"),
    ],
)
def test_a_rate_is_one_of_keys(keys: Path | None, limit: float, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        HostConfig(Address(), keys=keys, rate_limit=limit)


def test_what_others_may_read_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "keys"
    write(file, FIRST)
    warn_of_readers(file)
    assert not caplog.records
    file.chmod(0o644)
    warn_of_readers(file)
    assert "chmod 600" in caplog.text


def test_a_file_that_comes_later_lets_nobody_in_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("skipserve.hosts.keys.LOOK_S", 0.0)
    keys = Keys(tmp_path / "keys")
    assert keys.find(FIRST) is None
    write(tmp_path / "keys", FIRST)
    assert keys.find(FIRST) is not None
    assert keys.find(FIRST) != keys.find(SECOND)


@given(st.dictionaries(st.sampled_from(["authorization", "x-api-key"]), st.text(max_size=30)))
@settings(max_examples=examples(50))
def test_any_header_is_a_key_or_none(headers: dict[str, str]) -> None:
    shown = shown_key(headers)
    assert shown is None or shown in " ".join(headers.values())


@given(
    per_s=st.floats(0.1, 1000),
    gaps=st.lists(st.floats(0, 2), min_size=1, max_size=200),
)
@settings(max_examples=examples(50))
def test_never_more_than_the_limit_and_a_second_ahead(per_s: float, gaps: list[float]) -> None:
    rates, now_s, let_in = Rates(per_s), 1000.0, list[float]()
    for gap in gaps:
        now_s += gap / per_s
        wait_s = rates.wait_s(b"12345678", now_s)
        if not wait_s:
            let_in.append(now_s)
        else:  # who waits as long as is said is let in
            now_s += wait_s * 1.001
            assert not rates.wait_s(b"12345678", now_s)
            let_in.append(now_s)
    burst = max(per_s, 1.0)
    for i, first in enumerate(let_in):
        for j in range(i, len(let_in)):
            assert j - i + 1 <= burst + (let_in[j] - first) * per_s + 1.001


def test_processes_share_the_count_and_keys_do_not(tmp_path: Path) -> None:
    one, other = Rates(2.0, tmp_path / "rates"), Rates(2.0, tmp_path / "rates")
    assert [rates.wait_s(b"a" * 8, 5.0) for rates in (one, other)] == [0.0, 0.0]
    assert one.wait_s(b"a" * 8, 5.0) == pytest.approx(0.5)
    assert other.wait_s(b"a" * 8, 5.0) == pytest.approx(0.5)
    assert not other.wait_s(b"b" * 8, 5.0)
    assert not other.wait_s(b"a" * 8, 5.51)


def test_more_keys_than_there_is_room_for_are_still_limited() -> None:
    rates = Rates(1.0)
    for i in range(1, SLOTS + 10):
        rates.wait_s(i.to_bytes(8, "little"), 1.0)
    name = (SLOTS + 5).to_bytes(8, "little")
    assert rates.wait_s(name, 1.0) > 0
