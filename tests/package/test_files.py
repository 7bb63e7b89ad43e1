"""Files that several write at once, or that cannot be written."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import sleep

import pytest

from skipserve.files import held, replace_text, replacing_file

TEXTS = ("a" * 30_000, "b" * 20_000)


def test_of_two_writers_each_writes_a_whole_file(tmp_path: Path) -> None:
    file = tmp_path / "certificates.json"
    replace_text(file, TEXTS[0])

    def write(text: str) -> set[str]:
        found = set()
        for _ in range(150):
            replace_text(file, text)
            found.add(file.read_text())
        return found

    with ThreadPoolExecutor(2) as pool:
        found = set().union(*pool.map(write, TEXTS))
    assert found <= set(TEXTS)
    assert [one.name for one in tmp_path.iterdir()] == [file.name]


def test_a_file_that_cannot_be_written_stays_and_leaves_nothing_behind(tmp_path: Path) -> None:
    file = tmp_path / "certificates.json"
    replace_text(file, "before")
    with pytest.raises(UnicodeEncodeError):
        replace_text(file, "\ud800")
    assert [(one.name, one.read_text()) for one in tmp_path.iterdir()] == [(file.name, "before")]


def test_others_may_read_it_as_any_file_that_is_written_here(tmp_path: Path) -> None:
    replace_text(tmp_path / "one", "")
    (tmp_path / "other").write_text("")
    one, other = (stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("one", "other"))
    assert one == other


def test_who_holds_a_folder_reads_and_writes_in_one_step(tmp_path: Path) -> None:
    file = tmp_path / "count"
    file.write_text("0")

    def count(_: int) -> None:
        for _ in range(50):
            with held(tmp_path):
                replace_text(file, str(int(file.read_text()) + 1))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(count, range(4)))
    assert file.read_text() == "200"


def test_who_has_to_wait_for_a_folder_is_told_once(tmp_path: Path) -> None:
    told: list[str] = []
    with held(tmp_path, lambda: told.append("free")):
        assert told == []

    def wait() -> None:
        with held(tmp_path, lambda: told.append("waiting")):
            told.append("held")

    with ThreadPoolExecutor(1) as pool, held(tmp_path):
        waiting = pool.submit(wait)
        while not told:
            sleep(0.01)
        assert told == ["waiting"]
        assert not waiting.done()
    assert told == ["waiting", "held"]


def test_a_new_file_takes_the_place_of_an_old_one_only_if_it_is_whole(tmp_path: Path) -> None:
    file = tmp_path / "answers.csv"
    file.write_text("before")

    def write(text: str, failing: bool) -> None:
        with replacing_file(file) as fresh:
            assert (fresh.parent, fresh.suffix) == (tmp_path, ".csv")
            fresh.write_text(text)
            if failing:
                raise OSError("full")

    with pytest.raises(OSError, match="full"):
        write("half", failing=True)
    assert [(one.name, one.read_text()) for one in tmp_path.iterdir()] == [(file.name, "before")]
    write("after", failing=False)
    assert [(one.name, one.read_text()) for one in tmp_path.iterdir()] == [(file.name, "after")]
