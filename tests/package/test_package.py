"""The public names of `import skipserve`."""

from __future__ import annotations

import builtins

import skipserve


def test_a_star_import_leaves_the_builtin_open_alone():
    scope: dict[str, object] = {}
    exec("from skipserve import *\nopened = open", scope)
    assert scope["opened"] is builtins.open
    assert "open" not in skipserve.__all__


def test_open_is_there_and_opens_an_artifact(artifact):
    engine = skipserve.open(artifact.directory, provider="cpu")
    assert engine.manifest.name == "small"


def test_every_public_name_is_there():
    for name in skipserve.__all__:
        assert getattr(skipserve, name) is not None
