"""A file of evidence counts, for every file that reads it."""

from __future__ import annotations

import pytest
from evidence_files import BINDING

from skipserve.earning.counts_file import CountsFile


@pytest.fixture
def counts(tmp_path):
    made = CountsFile(tmp_path, BINDING)
    yield made
    made.close()
