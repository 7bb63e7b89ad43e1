"""Rows that propose are kept until they have, and no longer."""

from __future__ import annotations

import numpy as np
import pytest

from skipserve.earning.ladder import Ladder
from skipserve.earning.process_file import folder_of
from skipserve.earning.rows_file import RowsFile, RowsReader
from skipserve.earning.worker_state import WorkerState
from skipserve.runtime.shown import Shown

BINDING = "a" * 64


def shown(rows, seed=0):
    values = np.random.default_rng(seed).random((rows, 2)).astype(np.float32)
    return Shown(values, values, values > 0.5)


@pytest.fixture
def file(tmp_path):
    made = RowsFile(tmp_path, BINDING)
    yield made
    made.close()


def files(folder):
    return [one.name for one in folder_of(folder, BINDING).iterdir()]


def rows_of(folder, *epochs):
    reader = RowsReader(folder, BINDING, 2)
    return [len(reader.read(epoch)) for epoch in epochs]


def test_the_next_epoch_begins_a_file_anew(tmp_path, file):
    sizes = []
    for epoch in range(1, 6):
        for seed in (0, 1):
            file.add(epoch, shown(60, seed))
            file.flush()
        sizes.append(sum(one.stat().st_size for one in folder_of(tmp_path, BINDING).iterdir()))
        assert rows_of(tmp_path, epoch - 1, epoch) == [0, 120]
    assert len(set(sizes)) == 1


def test_they_go_once_their_epoch_proposes_no_more(tmp_path, file):
    file.add(3, shown(60))
    file.flush()
    file.add(3, shown(5))
    file.done(2)
    file.flush()
    assert rows_of(tmp_path, 3) == [65]
    file.done(3)
    file.flush()
    assert files(tmp_path) == []
    file.add(3, shown(5))  # was on its way
    file.flush()
    assert files(tmp_path) == []
    file.add(4, shown(7))
    file.flush()
    assert rows_of(tmp_path, 3, 4) == [0, 7]


def test_a_worker_forgets_them_with_the_first_row_that_is_evidence(tmp_path):
    own = Ladder(np.zeros((1, 2), np.float32), 1.0)
    state, none = WorkerState(tmp_path, BINDING, own), np.zeros(1, np.int64)
    state.show(1, shown(60))
    state.close()
    state = WorkerState(tmp_path, BINDING, own)
    state.show(2, shown(9))
    state.add(2, 1, none, none)
    state.close()
    assert rows_of(tmp_path, 1, 2) == [60, 0]  # those of the first wait for whoever tidies


def test_whoever_tidies_removes_those_of_processes_that_have_ended(tmp_path, file):
    dead = RowsFile(tmp_path, BINDING)
    dead.add(1, shown(60))
    dead.close()
    file.add(1, shown(3))
    file.flush()
    reader = RowsReader(tmp_path, BINDING, 2)
    assert len(reader.read(1)) == 63
    reader.tidy(1)
    assert rows_of(tmp_path, 1) == [63]
    reader.tidy(2)
    assert rows_of(tmp_path, 1) == [3]
