"""Archives that were damaged or made to do harm: refused with their name, nothing written."""

from __future__ import annotations

import json
import random
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from skipserve.artifacts.archive import ABOUT, MODEL_CONFIG, opened, unpack
from skipserve.artifacts.certificates_file import CERTIFICATES
from skipserve.artifacts.manifest import MANIFEST
from skipserve.errors import ArtifactError, ConfigError, SkipserveError
from skipserve.files import sha256_of
from skipserve.runtime.engine import Engine

Change = Callable[[dict[str, bytes]], None]


@pytest.fixture(scope="module")
def good(routed_project: tuple[Path, list[str]]) -> dict[str, bytes]:
    """What an archive holds, by name."""
    with zipfile.ZipFile(routed_project[0] / "model_store" / "small.mar") as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder in which an archive lies alone, beside a secret."""
    (tmp_path / "here").mkdir()
    (tmp_path / "secret.bin").write_bytes(np.ones(4096, np.float32).tobytes())
    return tmp_path / "here"


def refusal(archive: Path) -> str:
    """The line that an archive is refused with; nothing is left of it, and nothing elsewhere."""
    before = set(archive.parent.parent.rglob("*"))
    store = archive.parent / "store"
    with pytest.raises(SkipserveError) as told:
        Engine(unpack(archive, store, {}).artifact, provider="cpu")
    line = str(told.value)
    assert "\n" not in line
    assert "Traceback" not in line
    new = set(archive.parent.parent.rglob("*")) - before
    assert all(one == store or store in one.parents for one in new), new
    return line


def written(folder: Path, content: dict[str, bytes]) -> Path:
    archive = folder / "small.mar"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in content.items():
            file.writestr(name, data)
    return archive


def test_the_good_one_is_taken(folder: Path, good: dict[str, bytes]) -> None:
    unpacked = unpack(written(folder, good), folder / "store", {})
    Engine(unpacked.artifact, provider="cpu")
    assert opened(unpacked.directory).name == "small"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("../evil", "outside of its folder"),
        ("a/../../evil", "outside of its folder"),
        ("/tmp/evil", "outside of its folder"),
        ("..\\evil", "outside of its folder"),
        ("C:evil", "outside of its folder"),
        ("./manifest.json", "outside of its folder"),
        ("a//b", "outside of its folder"),
    ],
)
def test_nothing_is_written_elsewhere(
    folder: Path, good: dict[str, bytes], name: str, says: str
) -> None:
    line = refusal(written(folder, {**good, name: b"evil"}))
    assert says in line
    assert "small.mar" in line
    assert not (folder / "store").exists() or not list((folder / "store").iterdir())


def test_a_link_is_not_followed_nor_made(folder: Path, good: dict[str, bytes]) -> None:
    archive = written(folder, good)
    with zipfile.ZipFile(archive, "a") as file:
        link = zipfile.ZipInfo("link.bin")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        file.writestr(link, "../../../secret.bin")
    assert "'link.bin' is neither a file nor a folder" in refusal(archive)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_what_is_in_it_twice_is_refused(folder: Path, good: dict[str, bytes]) -> None:
    archive = written(folder, good)
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr(MANIFEST, good[MANIFEST])
    assert f"'{MANIFEST}' is in it twice" in refusal(archive)


def test_a_bomb_is_not_unpacked(folder: Path, good: dict[str, bytes]) -> None:
    archive = folder / "small.mar"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(ABOUT, good[ABOUT])
        with file.open("bomb", "w") as bomb:
            for _ in range(64):
                bomb.write(bytes(1 << 20))
    assert "more than 100 times its own size" in refusal(archive)
    assert not (folder / "store").exists()


def test_a_size_that_lies_is_damage(folder: Path, good: dict[str, bytes]) -> None:
    """A central directory that says less than there is."""
    archive = written(folder, {**good, "zeros": bytes(1 << 20)})
    content = bytearray(archive.read_bytes())
    place = content.rindex(b"PK\1\2", 0, content.rindex(b"zeros"))
    content[place + 24 : place + 28] = (100).to_bytes(4, "little")
    archive.write_bytes(content)
    assert "is damaged" in refusal(archive)


@pytest.mark.parametrize("region", range(24))
def test_damage_in_any_region_is_noticed_or_harmless(
    folder: Path, routed_project: tuple[Path, list[str]], region: int
) -> None:
    content = bytearray((routed_project[0] / "model_store" / "small.mar").read_bytes())
    pick = random.Random(region)
    size = len(content) // 24
    kind = region % 3
    place = region * size + pick.randrange(size)
    if kind == 0:
        content[place : place + 64] = bytes(len(content[place : place + 64]))
    elif kind == 1:
        content[place] ^= 1 << pick.randrange(8)
    else:
        del content[place:]
    archive = folder / "small.mar"
    archive.write_bytes(content)
    try:
        Engine(unpack(archive, folder / "store", {}).artifact, provider="cpu")
    except (ArtifactError, ConfigError) as error:
        assert "small" in str(error)
        assert "\n" not in str(error)
    else:
        assert kind == 1  # a time stamp or an attribute


def swapped(content: dict[str, bytes]) -> None:
    graphs = sorted(name for name in content if name.endswith(".onnx"))
    content[graphs[0]], content[graphs[-1]] = content[graphs[-1]], content[graphs[0]]


def manifest(change: Callable[[dict[str, object]], None]) -> Change:
    def made(content: dict[str, bytes]) -> None:
        values = json.loads(content[MANIFEST])
        change(values)
        content[MANIFEST] = json.dumps(values).encode()

    return made


def without(name: str) -> Change:
    return lambda content: content.pop(name)  # type: ignore[return-value]


def put(name: str, data: bytes) -> Change:
    return lambda content: content.update({name: data})


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (swapped, "is not the file the manifest describes"),
        (without("plain.fp32.onnx"), "named in the manifest but missing"),
        (without(MANIFEST), "manifest.json is missing"),
        (without(MODEL_CONFIG), "is not an archive of this skipserve or is damaged"),
        (without(ABOUT), "is not an archive of this skipserve or is damaged"),
        (put(MANIFEST, b"{"), "is not JSON"),
        (put(MANIFEST, b"[" * 200_000), "is not JSON"),
        (put(MANIFEST, b"\xff\xfe"), "is not JSON"),
        (put(MANIFEST, b"null"), "manifest_version is None"),
        (put(MODEL_CONFIG, b"!!python/object/apply:os.system ['x']"), "damaged"),
        (put(MODEL_CONFIG, b'{"skipserve": {"batch_size": 1e99}}'), "batch_size"),
        (put(MODEL_CONFIG, b'{"skipserve": {"run": "x"}}'), "not known here ('run')"),
        (put(CERTIFICATES, b"{"), "certificates.json"),
        (put(CERTIFICATES, b'{"certificates": [{"risk": 5}]}'), "certificates.json"),
        (manifest(lambda m: m["files"][0].update(path="../x")), "expected a file beside it"),  # type: ignore[index]
        (manifest(lambda m: m["files"][0].update(path="/etc/passwd")), "expected a file beside it"),  # type: ignore[index]
        (manifest(lambda m: m["files"][0].update(path="x" * 999)), "expected a file beside it"),  # type: ignore[index]
        (manifest(lambda m: m["files"][0].update(path="\0")), "named in the manifest but missing"),  # type: ignore[index]
        (manifest(lambda m: m["files"][0].update(sha256="0" * 64)), "is not the file"),  # type: ignore[index]
        (manifest(lambda m: m.update(name="../x")), "name"),
        (manifest(lambda m: m.update(depth=-1)), "depth"),
    ],
)
def test_parts_that_do_not_fit_are_named(
    folder: Path, good: dict[str, bytes], change: Change, says: str
) -> None:
    content = dict(good)
    change(content)
    assert says in refusal(written(folder, content))


def test_an_archive_of_another_skipserve_says_so_once(folder: Path, good: dict[str, bytes]) -> None:
    content = dict(good)
    values = json.loads(content[MODEL_CONFIG])
    values["skipserve"] |= {"shadow": 0.1, "shadow_budget_ms": 5}
    content[MODEL_CONFIG] = json.dumps(values).encode()
    archive = written(folder, content)
    assert refusal(archive) == (
        f"{archive} was made by another skipserve: it has settings that are not known here "
        "('shadow', 'shadow_budget_ms'); build it again with `skipserve build export/small.toml`"
    )
    assert not (folder / "store" / "small").exists()


@pytest.mark.parametrize("location", ["../../../secret.bin", "/etc/passwd", "/proc/self/environ"])
def test_weights_elsewhere_are_not_read(
    folder: Path, good: dict[str, bytes], location: str
) -> None:
    """By whoever made the archive on purpose: its hashes fit."""
    content = dict(good)
    values = json.loads(content[MANIFEST])
    for entry in values["files"]:
        if not entry["path"].endswith(".onnx"):
            continue
        model = onnx.load_from_string(content[entry["path"]])
        for one in model.graph.initializer:
            if one.data_location == TensorProto.EXTERNAL:
                for item in one.external_data:
                    if item.key == "location":
                        item.value = location
        content[entry["path"]] = model.SerializeToString()
        scratch = folder / "hashed"
        scratch.write_bytes(content[entry["path"]])
        entry["sha256"] = sha256_of(scratch)
    content[MANIFEST] = json.dumps(values).encode()
    line = refusal(written(folder, content))
    assert "cannot be loaded" in line or "outside" in line
