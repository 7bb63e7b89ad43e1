"""Counts of evidence, in files that several processes share."""

from __future__ import annotations

import resource
import subprocess
import sys
import threading

import pytest
from evidence_files import BINDING, OTHER, array, one_file, read

from skipserve.earning.counts_file import CountsFile, CountsReader
from skipserve.earning.lines import FORMAT, Header, line
from skipserve.earning.process_file import LONG_BYTES, folder_of
from skipserve.errors import StateError


def test_what_is_added_is_read(tmp_path, counts):
    counts.add(1, 10, array(0, 3), array(50, 30))
    counts.add(1, 5, array(1, 1), array(25, 20), dropped=2)
    counts.add(2, 1, array(0, 0), array(5, 2))
    counts.flush()
    found = read(tmp_path)
    assert (found[1].rows, found[1].dropped, found[2].rows) == (15, 2, 1)
    assert found[1].disagreements.tolist() == [1, 4]
    assert found[1].blocks.tolist() == [75, 50]


def test_it_is_written_by_itself(tmp_path, counts):
    counts.add(1, 10, array(0, 3), array(50, 30))
    deadline = threading.Event()
    for _ in range(600):
        if read(tmp_path):
            break
        deadline.wait(0.05)
    assert read(tmp_path)[1].rows == 10


def test_rows_of_no_epoch_count_for_nothing(tmp_path, counts):
    counts.add(0, 10, array(0, 3), array(50, 30))
    counts.close()
    assert read(tmp_path) == {}


def test_replicas_of_one_folder_have_files_of_their_own(tmp_path, counts):
    other = CountsFile(tmp_path, BINDING)
    counts.add(1, 10, array(0, 3), array(50, 30))
    other.add(1, 20, array(1, 4), array(90, 60))
    counts.flush()
    other.close()
    assert len(list(folder_of(tmp_path, BINDING).glob("counts.*"))) == 2
    found = read(tmp_path)[1]
    assert (found.rows, found.disagreements.tolist()) == (30, [1, 7])


def test_another_binding_starts_at_nothing(tmp_path, counts):
    counts.add(1, 10, array(0, 3), array(50, 30))
    counts.flush()
    assert read(tmp_path, OTHER) == {}


def test_a_long_file_is_begun_anew_with_what_counts(tmp_path, counts):
    reader, sizes = CountsReader(tmp_path, BINDING, 2), []
    for _ in range(2_000):
        counts.add(7, 1, array(0, 1), array(5, 2))
        counts.flush()
        sizes.append(one_file(tmp_path).stat().st_size)
    assert max(sizes) < LONG_BYTES + 1_000
    assert sizes[-1] < max(sizes)
    assert reader.read()[7].rows == 2_000


def test_half_a_line_of_a_killed_worker_says_nothing(tmp_path, counts):
    counts.add(1, 10, array(0, 3), array(50, 30))
    counts.flush()
    file = one_file(tmp_path)
    file.write_bytes(file.read_bytes() + b'{"epoch":1,"rows":9')
    assert read(tmp_path)[1].rows == 10


def test_a_killed_process_loses_at_most_what_it_had_not_written(tmp_path):
    code = f"""
import os, pathlib, signal, numpy as np
from skipserve.earning.counts_file import CountsFile
counts = CountsFile(pathlib.Path({str(tmp_path)!r}), {BINDING!r})
some = np.array([0, 1])
counts.add(1, 10, some, some)
counts.flush()
counts.add(1, 10, some, some)
os.kill(os.getpid(), signal.SIGKILL)
"""
    run = subprocess.run([sys.executable, "-c", code], check=False)
    assert run.returncode == -9
    assert read(tmp_path)[1].rows == 10


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (lambda data: data.replace(b'"rows":10', b'"rows":90'), "does not have its checksum"),
        (lambda data: b"x" + data[1:], "does not have its checksum"),
        (lambda data: data + b"\n" * 3, "does not have its checksum"),
        (lambda data: data + line(["no", "counts"]), "a line is none of counts"),
        (lambda data: data + line({"epoch": 1, "rows": 1, "disagreements": [0], "blocks": [1]}),
         "none of 2 candidates"),
        (lambda data: data + line(
            {"epoch": 1, "rows": 1, "disagreements": [0, 2], "blocks": [1, 1]}),
         "none of 2 candidates"),
        (lambda data: line(Header("counts", OTHER)) + data, "of other files or of another kind"),
        (lambda data: line(Header("ledger", BINDING)) + data, "of other files or of another kind"),
        (lambda data: line(Header("counts", BINDING, FORMAT + 1)), "a newer one wrote it"),
    ],
)  # fmt: skip
def test_a_file_that_is_not_what_it_was_is_an_error(tmp_path, counts, harm, says):
    counts.add(1, 10, array(0, 3), array(50, 30))
    counts.flush()
    file = one_file(tmp_path)
    file.write_bytes(harm(file.read_bytes()))
    with pytest.raises(StateError, match=says):
        read(tmp_path)


def test_a_full_disk_loses_nothing(tmp_path, caplog):
    # A limit on the size of files is refused at the same place as a full disk.
    counts = CountsFile(tmp_path, BINDING)
    counts.add(1, 10, array(0, 3), array(50, 30))
    counts.flush()
    size = one_file(tmp_path).stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, hard))
    try:
        counts.add(1, 5, array(0, 0), array(25, 20))
        counts.flush()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "evidence is kept in memory" in caplog.text
    assert one_file(tmp_path).stat().st_size == size
    assert read(tmp_path)[1].rows == 10
    counts.close()
    assert read(tmp_path)[1].rows == 15


def test_what_the_dead_left_goes_once_its_epoch_is_over(tmp_path, counts):
    dead = CountsFile(tmp_path, BINDING)
    for one in (counts, dead):
        one.add(1, 10, array(0, 3), array(50, 30))
        one.flush()
    dead.close()
    reader = CountsReader(tmp_path, BINDING, 2)
    reader.read()
    reader.tidy(1)
    assert reader.read()[1].rows == 20
    reader.tidy(2)
    assert reader.read()[1].rows == 10  # of the one that lives


def test_a_file_that_was_removed_is_made_anew(tmp_path, counts):
    counts.add(1, 10, array(0, 3), array(50, 30))
    counts.flush()
    one_file(tmp_path).unlink()
    counts.add(1, 10, array(0, 3), array(50, 30))
    counts.flush()
    assert read(tmp_path)[1].rows == 20
