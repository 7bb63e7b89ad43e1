"""Files of evidence counts in a folder, and what is read of them."""

from __future__ import annotations

import numpy as np

from skipserve.earning.counts_file import CountsReader
from skipserve.earning.process_file import folder_of

BINDING, OTHER = "a" * 64, "b" * 64


def array(*values):
    return np.array(values, dtype=np.int64)


def read(folder, binding=BINDING):
    return CountsReader(folder, binding, 2).read()


def one_file(folder, binding=BINDING):
    (file,) = folder_of(folder, binding).glob("counts.*")
    return file
