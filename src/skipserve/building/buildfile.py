"""The build file: one TOML in export/ describes one model, from source to archive."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from skipserve.artifacts.asked import Format, Precision
from skipserve.artifacts.manifest import Name
from skipserve.artifacts.serving import ServingConfig
from skipserve.building.checks import check_counted, check_heeded
from skipserve.errors import ConfigError, suggestion
from skipserve.networks import NetworkConfig, parse_network
from skipserve.routing.config import ExitsConfig, RouterConfig
from skipserve.schema import Record, parse
from skipserve.sources.config import Brought, DataConfig, SourceConfig
from skipserve.sources.hugging_face.proposing import task_of
from skipserve.training.config import TrainingConfig
from skipserve.training.recipes import Recipe, open_recipe
from skipserve.training.tuning.config import TuningConfig

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

TUNED = "tuned.safetensors"
HANDLER = Path(__file__).parent.parent / "hosts" / "torchserve" / "handler.py"


class ExportConfig(Record):
    """The section [export]: formats and precisions of an artifact.

    Attributes:
        formats: Of the model files; by default ``onnx`` alone where the network was brought.
        precisions: Of the numbers in them; by default ``fp32`` alone where it was brought. FP16 is
            for GPUs, INT8 for CPUs.
    """

    formats: Annotated[tuple[Format, ...], Field(min_length=1)] = ("onnx", "torchscript")
    precisions: Annotated[tuple[Precision, ...], Field(min_length=1)] = ("fp32", "fp16")


class _Sections(Record):
    name: Name
    recipe: str | None = None
    network: dict[str, Any] = Field(default_factory=dict)
    training: dict[str, Any] = Field(default_factory=dict)
    source: SourceConfig | None = None
    data: DataConfig | None = None
    task: dict[str, Any] | None = None
    tuning: TuningConfig | None = None
    export: dict[str, Any] = Field(default_factory=dict)
    exits: ExitsConfig = ExitsConfig()
    router: RouterConfig | None = None
    serving: ServingConfig = ServingConfig()


@dataclass(frozen=True)
class Trained:
    """A network that is trained by a recipe.

    Attributes:
        recipe: Data and training defaults.
        network: What is trained.
        training: How it is trained.
    """

    recipe: Recipe
    network: NetworkConfig
    training: TrainingConfig


@dataclass(frozen=True)
class BuildFile:
    """A model from source to archive, with every default filled in.

    Attributes:
        path: The TOML it was read from.
        name: Of the model, its checkpoint, its artifact and its archive.
        origin: What it comes from.
        tuning: How it is tuned towards early exits before it is exported, or ``None``.
        export: What the artifact holds.
        exits: Where rows may leave.
        router: The router, or ``None``.
        serving: How it is served.
    """

    path: Path
    name: str
    origin: Trained | Brought
    tuning: TuningConfig | None
    export: ExportConfig
    exits: ExitsConfig
    router: RouterConfig | None
    serving: ServingConfig

    @property
    def trained(self) -> Trained:
        """The recipe, network and training of a model that is trained here.

        Raises:
            ConfigError: If the network was brought.
        """
        if isinstance(self.origin, Trained):
            return self.origin
        raise ConfigError(f"{self.path} has a [source]: its network is not trained here")

    @property
    def brought(self) -> Brought | None:
        """The network that was brought, or ``None`` if it is trained here."""
        return self.origin if isinstance(self.origin, Brought) else None

    @property
    def root(self) -> Path:
        """The project the file belongs to: the folder that holds export/, else its own folder."""
        return root_of(self.path)

    @property
    def checkpoint(self) -> Path:
        return self.root / "checkpoints" / self.name

    @property
    def tuned(self) -> Path:
        """File of the tuned weights of a network that was brought."""
        return self.checkpoint / TUNED

    @property
    def shipped(self) -> Path:
        """Shipped weights beside the build file; they may be absent."""
        return self.path.resolve().parent / "weights" / f"{self.name}.safetensors"

    @property
    def artifact(self) -> Path:
        return self.root / "artifacts" / self.name

    @property
    def archive(self) -> Path:
        return self.root / "model_store" / f"{self.name}.mar"

    @property
    def handler(self) -> Path:
        """The TorchServe handler of the project, else that of the package."""
        own = self.root / "handlers" / "torchserve_handler.py"
        return own if own.is_file() else HANDLER


def root_of(path: Path) -> Path:
    """The project that a build file belongs to."""
    folder = path.parent.resolve()
    return folder.parent if folder.name == "export" else folder


def read_build_file(path: Path, training: dict[str, Any] | None = None) -> BuildFile:
    """Read a build file.

    Args:
        path: The TOML.
        training: Overrides of its [training] section.

    Raises:
        ConfigError: If it is missing, is not TOML, or holds an unknown key or a wrong value.
    """
    try:
        text = path.read_text()
    except FileNotFoundError:
        raise ConfigError(f"{path} is not there; {_build_files(path)}") from None
    except IsADirectoryError:
        raise ConfigError(
            f"{path} is a folder, expected a build file; {_build_files(path)}"
        ) from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not TOML: {error}") from None
    return parse_build_file(text, path, training)


def parse_build_file(text: str, path: Path, training: dict[str, Any] | None = None) -> BuildFile:
    """Read the text of a build file.

    Args:
        text: Its TOML.
        path: Where it stands, or shall stand.
        training: Overrides of its [training] section.

    Raises:
        ConfigError: If it is not TOML, or holds an unknown key or a wrong value.
    """
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not TOML: {error}") from None
    sections = parse(_Sections, values, str(path))
    origin: Trained | Brought
    if sections.source is not None:
        origin = _brought(sections, path)
    else:
        origin = _trained(sections, path, training or {})
    router = _router(sections, origin)
    check_heeded(router, sections.serving, path)
    defaults = {} if isinstance(origin, Trained) else {"formats": ["onnx"], "precisions": ["fp32"]}
    export = parse(ExportConfig, {**defaults, **sections.export}, f"{path}: export")
    serving = sections.serving
    if isinstance(origin, Brought) and origin.task.top is not None:
        if router is not None:
            check_counted(router, export.formats, sections.serving, path)
        serving = serving.model_copy(update={"evidence": 0.0})
    return BuildFile(
        path=path,
        name=sections.name,
        origin=origin,
        tuning=sections.tuning,
        export=export,
        exits=sections.exits,
        router=router,
        serving=serving,
    )


def _build_files(path: Path) -> str:
    """A hint for a path that is no build file: the build files that exist."""
    folder = path.parent if path.parent.name else Path("export")
    return suggestion(
        str(path),
        map(str, folder.glob("*.toml")),
        "write export/NAME.toml, or bring a network with `skipserve bring`",
    )


def _router(sections: _Sections, origin: Trained | Brought) -> RouterConfig | None:
    """The router of a build file, with the default signal of the task."""
    router = sections.router
    if router is None or isinstance(origin, Trained) or "signal" in router.model_fields_set:
        return router
    return router.model_copy(update={"signal": origin.task.signal})


def _brought(sections: _Sections, path: Path) -> Brought:
    assert sections.source is not None
    extra = [key for key in ("recipe", "network", "training") if getattr(sections, key)]
    if extra:
        raise ConfigError(
            f"{path}: {extra[0]} belongs to networks trained here; with [source] leave it out"
        )
    if sections.data is None:
        raise ConfigError(f"{path}: [source] needs [data], with rows = 'FILE'")
    tuned = None if sections.tuning is None else f"checkpoints/{sections.name}/{TUNED}"
    source, data = sections.source, sections.data
    folder = None if source.folder is None else root_of(path) / source.folder
    task = task_of(folder, sections.task or {}, f"{path}: task", pairs=len(data.values) > 1)
    if sections.tuning is not None and task.kind != "classify":
        raise ConfigError(
            f"{path}: [tuning] is for classifiers, and the task is {task.kind}; leave it out"
        )
    return Brought(source=source, data=data, task=task, tuned=tuned)


def _trained(sections: _Sections, path: Path, overrides: dict[str, Any]) -> Trained:
    if sections.recipe is None:
        raise ConfigError(
            f"{path}: name a recipe to train a network here, or a [source] to bring one"
        )
    for key in ("data", "task"):
        if getattr(sections, key) is not None:
            raise ConfigError(f"{path}: [{key}] comes with the recipe; leave it out")
    if sections.tuning is not None:
        raise ConfigError(
            f"{path}: [tuning] is for networks that were brought; see training.exit_loss"
        )
    recipe = open_recipe(sections.recipe)
    for key in ("inputs", "classes"):
        if key in sections.network:
            raise ConfigError(f"{path}: network.{key} comes with the recipe; leave it out")
    network = parse_network(
        {**sections.network, "inputs": recipe.inputs, "classes": recipe.classes},
        f"{path}: network",
    )
    if sections.router is not None and not network.skippable:
        raise ConfigError(
            f"{path}: a plain network has nothing to skip; leave [router] out, or set "
            "network.connection to 'residual' or 'gated'"
        )
    defaults = recipe.training.model_dump()
    training = parse(
        TrainingConfig, {**defaults, **sections.training, **overrides}, f"{path}: training"
    )
    return Trained(recipe, network, training)
