"""The section [task] of a build file: what is wrong with it is one line."""

from __future__ import annotations

import re

import numpy as np
import pytest

from skipserve.errors import ConfigError
from skipserve.schema import parse
from skipserve.tasks import MultiLabel, Regress, TaskConfig


@pytest.mark.parametrize(
    ("section", "says"),
    [
        ({"kind": "regress"}, "regress needs a tolerance"),
        ({"kind": "embed", "tolerance": 1.0}, "tolerance belongs to regress and score, not to emb"),
        ({"kind": "score", "tolerance": -1.0}, "tolerance = -1.0"),
        ({"kind": "ranking"}, "kind = 'ranking'"),
        ({"kind": "classify", "cosine": 0.9}, "cosine belongs to embed"),
        ({"decide": {"label": "spam", "at": 1.5}}, "at = 1.5"),
        ({"tolerence": 1.0}, "did you mean 'tolerance'"),
    ],
)
def test_a_wrong_section_is_one_line(section, says):
    with pytest.raises(ConfigError, match=re.escape(says)):
        parse(TaskConfig, section, "task")


def test_a_decision_for_a_class_that_is_not_there_is_refused():
    config = parse(
        TaskConfig, {"names": ["ham", "spam"], "decide": {"label": "eggs", "at": 0.9}}, ""
    )
    with pytest.raises(ConfigError, match=r"no class is named 'eggs'; there are ham, spam"):
        config.task(2)


def test_labels_belong_to_tasks_that_decide_for_some():
    sets = MultiLabel(count=2)
    assert sets.truth(np.array([[0, 1], [1, 1]]), 2, "m").tolist() == [[0, 1], [1, 1]]
    with pytest.raises(ConfigError, match=r"row 1 is \[2, 0\], m takes a 0 or a 1"):
        sets.truth(np.array([[0, 1], [2, 0]]), 2, "m")
    with pytest.raises(ConfigError, match="no label makes right or wrong"):
        Regress(values=1, tolerance=1).truth(np.zeros(2, int), 2, "m")
