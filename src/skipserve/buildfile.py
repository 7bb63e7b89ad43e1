"""The build file: one TOML in export/ says what becomes of one model."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from skipserve.artifacts.manifest import Format, Precision
from skipserve.errors import ConfigError
from skipserve.networks import NetworkConfig, parse_network
from skipserve.routing.config import RouterConfig
from skipserve.schema import Record, parse
from skipserve.serving.config import ServingConfig
from skipserve.training.config import TrainingConfig
from skipserve.training.recipes import Recipe, open_recipe

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

HANDLER = Path(__file__).parent / "serving" / "handler.py"


class ExportConfig(Record):
    """Which files an artifact holds."""

    formats: Annotated[tuple[Format, ...], Field(min_length=1)] = ("onnx", "torchscript")
    precisions: Annotated[tuple[Precision, ...], Field(min_length=1)] = ("fp32", "fp16")


class _Sections(Record):
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_]*$", max_length=64)]
    recipe: str
    network: dict[str, Any] = Field(default_factory=dict)
    training: dict[str, Any] = Field(default_factory=dict)
    export: ExportConfig = ExportConfig()
    router: RouterConfig | None = None
    serving: ServingConfig = ServingConfig()


@dataclass(frozen=True)
class BuildFile:
    """A model from data to archive, with every default filled in.

    Attributes:
        path: The TOML it was read from.
        name: Of the model, its checkpoint, its artifact and its archive.
        recipe: Data and training defaults.
        network: What is trained.
        training: How it is trained.
        export: What the artifact holds.
        router: The router inside it, or ``None``.
        serving: How it is served.
    """

    path: Path
    name: str
    recipe: Recipe
    network: NetworkConfig
    training: TrainingConfig
    export: ExportConfig
    router: RouterConfig | None
    serving: ServingConfig

    @property
    def root(self) -> Path:
        """The project the file belongs to: the folder that holds export/, else its own folder."""
        folder = self.path.parent.resolve()
        return folder.parent if folder.name == "export" else folder

    @property
    def checkpoint(self) -> Path:
        return self.root / "checkpoints" / self.name

    @property
    def shipped(self) -> Path:
        """Weights that come with the file; there need be none."""
        return self.path.resolve().parent / "weights" / f"{self.name}.safetensors"

    @property
    def artifact(self) -> Path:
        return self.root / "artifacts" / self.name

    @property
    def archive(self) -> Path:
        return self.root / "model_store" / f"{self.name}.mar"

    @property
    def handler(self) -> Path:
        """The project's own, else the package's."""
        own = self.root / "handlers" / "torchserve_handler.py"
        return own if own.is_file() else HANDLER


def read_build_file(path: Path, training: dict[str, Any] | None = None) -> BuildFile:
    """Read a build file.

    Args:
        path: The TOML.
        training: Overrides of its [training] section.

    Raises:
        ConfigError: If it is missing, is not TOML, or holds an unknown key or a wrong value.
    """
    try:
        values = tomllib.loads(path.read_text())
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from None
    sections = parse(_Sections, values, str(path))
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
    return BuildFile(
        path=path,
        name=sections.name,
        recipe=recipe,
        network=network,
        training=parse(
            TrainingConfig,
            {**defaults, **sections.training, **(training or {})},
            f"{path}: training",
        ),
        export=sections.export,
        router=sections.router,
        serving=sections.serving,
    )
