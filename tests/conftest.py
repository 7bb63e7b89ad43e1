"""What the tests share: a small trained network, its artifact and engine; and one with a router."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
import torch
from choosing import pytest_collection_modifyitems, pytest_ignore_collect  # noqa: F401
from collecting import Collector
from command_line import CommandLine
from environments import build_wheel
from hosts import HOSTS
from hypothesis import settings
from logits import Logits
from numpy.typing import NDArray
from once import made_once, shared
from running import ROOT, Running, serving
from small_project import MODELS, ROUTED, build

from skipserve.artifacts.artifact import Artifact, open_artifact
from skipserve.artifacts.export import export_artifact
from skipserve.artifacts.graphs import Precisions
from skipserve.artifacts.torch_files import export_module
from skipserve.building.bring import bring
from skipserve.building.bring_file import BringOptions
from skipserve.networks import parse_network
from skipserve.runtime.engine import Engine
from skipserve.sources.recipe import recipe_origin
from skipserve.training.checkpoint import load_checkpoint, save_checkpoint
from skipserve.training.loop import fit
from skipserve.training.recipes import Recipe, open_recipe

if TYPE_CHECKING:
    from observed import Observed

# Time is measured in benchmarks/, not here.
settings.register_profile("skipserve", deadline=None)
settings.load_profile("skipserve")
# What `make fast` asks for; `make test` draws as many examples as ever.
settings.register_profile("fast", deadline=None, max_examples=20)


# What others say about themselves and we cannot mend; appended, so these win over "error".
IGNORED_WARNINGS = (
    "ignore:`torch.jit:DeprecationWarning",
    # PEFT asks transformers for what transformers has renamed.
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning",
    # TorchServe opens its version.txt and leaves it open.
    "ignore:unclosed file .*version.txt:ResourceWarning",
)


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):
        # What one worker's killed services leave must not be told to the other's. A short one:
        # pytest's own folders may be too long for a socket.
        own = tempfile.mkdtemp(prefix="s.", dir="/tmp")
        os.environ["TMPDIR"] = tempfile.tempdir = own
        config.add_cleanup(lambda: shutil.rmtree(own, ignore_errors=True))
    for line in IGNORED_WARNINGS:
        config.addinivalue_line("filterwarnings", line)


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder for ``TMPDIR``: paths of pytest's own may be too long for a socket in them."""
    with tempfile.TemporaryDirectory(prefix="s.", dir="/tmp") as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def recipe() -> Recipe:
    return open_recipe("two_moons")


@pytest.fixture(scope="session")
def rows(recipe: Recipe) -> NDArray[np.float32]:
    """Real rows [64, 2] that the network was not trained on."""
    return recipe.draw("test").inputs[:64].numpy()


@pytest.fixture(scope="session")
def checkpoint(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoint directory of a residual MLP, trained just enough to answer unevenly."""

    def make(folder: Path) -> None:
        network = {"family": "mlp", "inputs": [2], "classes": 2, "depth": 4, "width": 16}
        training = recipe.training.model_copy(update={"epochs": 2})
        trained, history = fit(parse_network(network), recipe, training)
        save_checkpoint(folder / "small", trained, recipe.name, training, history)

    return made_once(tmp_path_factory, "checkpoints", make) / "small"


@pytest.fixture(scope="session")
def artifact(
    checkpoint: Path, recipe: Recipe, tmp_path_factory: pytest.TempPathFactory
) -> Artifact:
    """The checkpoint as ONNX and TorchScript, each in FP32 and FP16."""

    def make(folder: Path) -> None:
        origin = recipe_origin(load_checkpoint(checkpoint), recipe)
        formats, precisions = ("onnx", "torchscript"), ("fp32", "fp16")
        networks = Precisions(origin.network, origin.expected.rows)
        export_artifact("small", origin, networks, formats, precisions, folder / "small")

    return open_artifact(made_once(tmp_path_factory, "artifacts", make) / "small")


@pytest.fixture(scope="session")
def engine(artifact: Artifact) -> Engine:
    """The FP32 ONNX files on the CPU."""
    return Engine(artifact, provider="cpu")


@pytest.fixture(scope="session")
def routed_project(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A project whose model has a router, and the steps its build took; never changed."""

    def make(folder: Path) -> None:
        root = folder / "project"
        (root / "export").mkdir(parents=True)
        shutil.copytree(ROOT / "handlers", root / "handlers")
        (root / "export" / "small.toml").write_text(ROUTED)
        (folder / "steps.json").write_text(json.dumps(build(root)))

    made = made_once(tmp_path_factory, "routed", make)
    return made / "project", json.loads((made / "steps.json").read_text())


@pytest.fixture(scope="session")
def project(
    routed_project: tuple[Path, list[str]], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A project with models of export/, briefly trained, and the one with a router."""

    def make(folder: Path) -> None:
        root = folder / "project"
        shutil.copytree(routed_project[0], root)
        for name in MODELS:
            text = (ROOT / "export" / f"{name}.toml").read_text()
            text = text.replace("seed = 0", "seed = 0\nepochs = 2")
            if name != "moons_residual":  # whose every file is served
                text = text.replace('["onnx", "torchscript"]', '["onnx"]')
                text = text.replace('["fp32", "fp16"]', '["fp32"]')
            # Small heads: what they are worth is tested elsewhere.
            text += "\n[exits]\nhidden = 0\ncorrupted = false\n"
            (root / "export" / f"{name}.toml").write_text(text)
            build(root, name)

    return made_once(tmp_path_factory, "project", make) / "project"


@pytest.fixture(scope="session", params=HOSTS)
def host(request: pytest.FixtureRequest) -> str:
    """Each host in turn, all tests of one together."""
    chosen: str = request.param
    return chosen


@pytest.fixture(scope="session")
def server(project: Path, host: str) -> Iterator[Running]:
    """Every model of the project; nobody ends its workers."""
    with serving(project, "--batch-size", "16", host=host) as running:
        yield running


@pytest.fixture(scope="session")
def texts_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that networks of texts are brought to (texts.py); never changed otherwise."""
    root = shared(tmp_path_factory, "texts")
    root.mkdir(exist_ok=True)
    return root


@pytest.fixture(scope="session")
def two_models(
    routed_project: tuple[Path, list[str]],
    texts_root: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """Archives of ``small``, of one input of floats, and ``masked``, of two of integers."""
    import texts

    root = tmp_path_factory.mktemp("two")
    (root / "model_store").mkdir()
    texts.build(texts_root, "masked")
    for project, name in ((routed_project[0], "small"), (texts_root, "masked")):
        shutil.copy(project / "model_store" / f"{name}.mar", root / "model_store")
    return root


@pytest.fixture(scope="session")
def observed(
    routed_project: tuple[Path, list[str]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Observed]:
    """That model behind the real server, all of its rows run again at full depth."""
    from observed import Observed

    root = tmp_path_factory.mktemp("observed")
    shutil.copytree(routed_project[0], root, dirs_exist_ok=True)
    file = root / "export" / "small.toml"
    file.write_text(file.read_text().replace("evidence = 0\n", "evidence = 0.5\n"))
    build(root)
    rows = open_recipe("two_moons").draw("test").inputs.numpy()
    with serving(root) as running:
        yield Observed(root, running, rows)


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package as its users get it."""
    made = made_once(tmp_path_factory, "wheel", build_wheel, copied=False)
    (file,) = made.glob("dist/skipserve-*.whl")
    return file


@pytest.fixture(scope="session")
def kserve_packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with KServe's own objects and requests, for a Python of its own to import.

    KServe cannot be installed beside us: it wants psutil < 6. What is asked of it needs none of
    that, only these.
    """

    def make(packages: Path) -> None:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile"]
        asked = ["kserve==0.21.0", "six", "urllib3", "orjson", "pandas<3", "pytz", "tzdata"]
        into = ["--ignore-requires-python", "--target", packages]
        done = subprocess.run([*pip, *into, *asked], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    return made_once(tmp_path_factory, "kserve", make, copied=False)


@pytest.fixture
def command_line(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> CommandLine:
    return CommandLine(monkeypatch, capfd)


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="session")
def brought(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with an ONNX file, rows for it, and what bringing it made; never changed."""

    def make(root: Path) -> None:
        network = load_checkpoint(checkpoint).network.eval()
        model = export_module(Logits(network).eval(), (torch.zeros(2, 2),), ("point",), "logits")
        onnx.save(model, root / "moons.onnx")
        samples = open_recipe("two_moons").draw("certify")
        np.savez(root / "rows.npz", point=samples.inputs.numpy(), label=samples.labels.numpy())
        bring(
            BringOptions(str(root / "moons.onnx"), root / "rows.npz", labels="label", risk=0.05),
            root,
        )

    return made_once(tmp_path_factory, "brought", make)


@pytest.fixture
def points(brought: Path) -> NDArray[np.float32]:
    """The first 200 rows of the project [200, 2]."""
    with np.load(brought / "rows.npz") as arrays:
        return arrays["point"][:200]
