"""What tests of sources share: a project that a small BERT was brought to."""

from __future__ import annotations

from pathlib import Path

import pytest
from once import made_once


@pytest.fixture(scope="session")
def moods(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that a small BERT was brought to, with texts and the labels it gives them."""
    import moods

    return made_once(tmp_path_factory, "moods", moods.make)
