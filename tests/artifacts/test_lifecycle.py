"""Versions of a model in a store: which are kept, which is in force, and what is never opened."""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from pathlib import Path

import pytest
from archived import flip, remade
from click.testing import Result
from hypothesis import given, settings
from hypothesis import strategies as st
from running import ROOT
from small_project import build
from typer.testing import CliRunner

from skipserve.artifacts.archive import opened, unpack
from skipserve.artifacts.archive_names import ABOUT
from skipserve.artifacts.manifest import MANIFEST
from skipserve.artifacts.serving import ServingConfig
from skipserve.artifacts.versions import (
    KEPT,
    archives_in,
    put,
    roll_back,
    version_in,
    versions_of,
)
from skipserve.cli import app
from skipserve.errors import ArtifactError, ConfigError
from skipserve.hosts.torchserve.packaging import package

HANDLER = ROOT / "handlers" / "torchserve_handler.py"


@pytest.fixture(scope="module")
def archive(routed_project: tuple[Path, list[str]]) -> Path:
    return routed_project[0] / "model_store" / "small.mar"


@pytest.fixture
def store(archive: Path, tmp_path: Path) -> Path:
    """A store with versions 1 to 3, the last in force."""
    (tmp_path / "store").mkdir()
    for number in (1, 2, 3):
        put(remade(archive, tmp_path / "fresh.mar", number), tmp_path / "store", "small")
    return tmp_path / "store"


def numbers(store: Path) -> list[tuple[int, bool]]:
    return [(one.number, one.in_force) for one in versions_of(store, "small")]


def test_packaging_keeps_what_was_and_makes_no_version_of_the_same(
    routed_project: tuple[Path, list[str]], tmp_path: Path
) -> None:
    artifact = routed_project[0] / "artifacts" / "small"
    for rows in (10, 10, 20):
        made = package(artifact, HANDLER, ServingConfig(max_rows=rows), tmp_path)
        assert made == tmp_path / "small.mar"
    assert numbers(tmp_path) == [(2, True), (1, False)]
    found = {one.number: one.archive for one in versions_of(tmp_path, "small")}
    for number, rows in ((1, 10), (2, 20)):
        with tempfile.TemporaryDirectory() as scratch:
            unpacked = unpack(found[number], Path(scratch), {})
            assert (unpacked.version, unpacked.serving.max_rows) == (str(number), rows)


def test_only_so_many_are_kept(archive: Path, tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    count = KEPT + 3
    for number in range(1, count + 1):
        put(remade(archive, tmp_path / "fresh.mar", number), tmp_path / "store", "small")
    kept = [(number, number == count) for number in range(count, count - KEPT - 1, -1)]
    assert numbers(tmp_path / "store") == kept


def test_the_commands_list_and_go_back(store: Path) -> None:
    def run(*arguments: str) -> Result:
        return CliRunner().invoke(app, [*arguments, "--model-store", str(store)])

    lines = run("versions", "small").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["*", "2", "1"]
    assert lines[0].split()[1] == "3"
    assert all("disagreement 0.05 certified" in line for line in lines)
    assert run("rollback", "small").stdout.startswith("small: version 2 is in force (was 3)")
    assert (
        str(run("rollback", "small", "9").exception)
        == f"{store} has no version 9 of small, only 3, 2, 1"
    )


def test_going_back_twice_goes_back_further_and_forward_by_number(store: Path) -> None:
    assert roll_back(store, "small") == (3, 2)
    assert roll_back(store, "small") == (2, 1)
    with pytest.raises(ConfigError, match="no version of small before 1"):
        roll_back(store, "small")
    assert roll_back(store, "small", 3) == (1, 3)
    with pytest.raises(ConfigError, match="version 3 of small is in force already"):
        roll_back(store, "small", 3)
    assert numbers(store) == [(3, True), (2, False), (1, False)]


def test_a_build_stays_where_somebody_went_back_to(
    routed_project: tuple[Path, list[str]], tmp_path: Path
) -> None:
    root = Path(shutil.copytree(routed_project[0], tmp_path / "project"))
    file, store = root / "export" / "small.toml", root / "model_store"
    file.write_text(f"{file.read_text()}max_rows = 99\n")
    assert build(root) == ["package"]
    assert numbers(store) == [(2, True), (1, False)]
    roll_back(store, "small")
    assert build(root) == []
    assert numbers(store) == [(2, False), (1, True)]
    (store / "small.mar").unlink()
    assert build(root) == ["package"]
    assert numbers(store) == [(3, True), (2, False)]


def test_what_is_in_force_and_damaged_can_be_left(store: Path) -> None:
    (store / "small.mar").write_bytes(b"no archive")
    assert numbers(store) == [(2, False), (1, False), (0, True)]
    assert roll_back(store, "small") == (0, 2)
    assert numbers(store) == [(2, True), (1, False)]


def test_a_damaged_version_is_not_put_in_force(store: Path) -> None:
    before = (store / "small.mar").read_bytes()
    file = store / "small.versions" / "1.mar"
    flip(file, "plain.fp32.onnx")
    with pytest.raises(ArtifactError, match="damaged"):
        roll_back(store, "small", 1)
    assert (store / "small.mar").read_bytes() == before
    assert numbers(store) == [(3, True), (2, False), (1, False)]


def test_a_file_that_holds_another_version_is_refused(store: Path, tmp_path: Path) -> None:
    others = store / "small.versions"
    shutil.copy(others / "1.mar", others / "2.mar")
    with pytest.raises(ArtifactError, match="holds version 1 of small, not 2"):
        roll_back(store, "small", 2)
    with pytest.raises(ArtifactError, match="holds version 1 of small, not 2"):
        unpack(others / "2.mar", tmp_path / "run", {})


@settings(max_examples=15)
@given(st.lists(st.none() | st.integers(1, 6), max_size=6))
def test_one_is_in_force_whatever_is_done(
    tmp_path_factory: pytest.TempPathFactory, archive: Path, steps: list[int | None]
) -> None:
    """``None`` packages another, a number goes back or forth to it."""
    root = tmp_path_factory.mktemp("steps")
    store = root / "store"
    store.mkdir()
    put(remade(archive, root / "fresh.mar", 1), store, "small")
    made, now = 1, 1
    for step in steps:
        if step is None:
            made, now = made + 1, made + 1
            put(remade(archive, root / "fresh.mar", made), store, "small")
        elif step in range(1, made + 1) and step != now:
            assert roll_back(store, "small", step) == (now, step)
            now = step
        else:
            with pytest.raises(ConfigError):
                roll_back(store, "small", step)
        expected = [(number, number == now) for number in range(made, 0, -1)]
        assert [one for one in numbers(store) if one[0] >= made - KEPT] == expected[: KEPT + 1]
        assert version_in(store / "small.mar") == now
    shutil.rmtree(root)


def members(archive: Path) -> list[str]:
    with zipfile.ZipFile(archive) as content:
        return content.namelist()


def test_a_flipped_bit_in_any_file_of_an_archive_is_refused(archive: Path, tmp_path: Path) -> None:
    names = members(archive)
    assert {MANIFEST, "certificates.json", "model-config.yaml", HANDLER.name, ABOUT} < set(names)
    for name in names:
        damaged = Path(shutil.copy(archive, tmp_path))
        flip(damaged, name)
        with pytest.raises(ArtifactError):
            unpack(damaged, tmp_path / "run", {})
        assert not list((tmp_path / "run").glob("*")), name


def test_a_model_file_that_was_exchanged_is_refused_by_its_hash(
    archive: Path, tmp_path: Path
) -> None:
    """Put into the archive with a good checksum, or into the folder a worker opens."""
    files = [name for name in members(archive) if Path(name).suffix in (".onnx", ".bin", ".pt")]
    assert {Path(name).suffix for name in files} >= {".onnx", ".pt"}
    whole = unpack(archive, tmp_path / "run", {})
    for name in files:

        def changed(other: str, content: bytes, name: str = name) -> bytes:
            return content[:-1] + bytes([content[-1] ^ 1]) if other == name else content

        (tmp_path / "fresh").mkdir(exist_ok=True)
        fresh = remade(archive, tmp_path / "fresh" / "small.mar", 1, changed)
        with pytest.raises(ArtifactError, match=f"{name} is not the file the manifest describes"):
            unpack(fresh, tmp_path / "other", {})
        file = whole.directory / name
        content = file.read_bytes()
        file.write_bytes(changed(name, content))
        with pytest.raises(ArtifactError, match=f"{name} is not the file the manifest describes"):
            opened(whole.directory)
        file.write_bytes(content)
    assert opened(whole.directory).version == "1"


@pytest.mark.parametrize("version", ["9" * 5_000, "²", "x", "-1"])
def test_what_is_no_number_of_a_version_is_one_line(tmp_path: Path, version: str) -> None:
    (tmp_path / "a.mar").write_bytes(b"")
    with pytest.raises(ConfigError, match="expected NAME or NAME@VERSION, such as a@1"):
        archives_in(tmp_path, [f"a@{version}"])
