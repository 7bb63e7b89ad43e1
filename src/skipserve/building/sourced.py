"""Source and rows of a build file, read once and shared by all steps."""

from __future__ import annotations

from functools import cached_property

from skipserve.artifacts.origin import Origin
from skipserve.building.buildfile import BuildFile
from skipserve.errors import ConfigError
from skipserve.sources.splits import Splits
from skipserve.training.checkpoint import load_checkpoint


class Sourced:
    """Origin and rows of a build file.

    Args:
        build: The build file.
    """

    def __init__(self, build: BuildFile) -> None:
        self._build = build

    @cached_property
    def origin(self) -> Origin:
        """The origin of an artifact.

        Raises:
            CheckpointError: If there is no checkpoint, or it is of another recipe.
            CutError: If the graph cannot be read.
            ConfigError: If the rows do not fit it.
        """
        build = self._build
        if build.brought is not None:
            from skipserve.sources.brought import brought_origin

            origin, self.rows = brought_origin(build.brought, build.root)
            return origin
        from skipserve.sources.recipe import recipe_origin

        checkpoint, recipe = load_checkpoint(build.checkpoint), build.trained.recipe
        if checkpoint.run.recipe != recipe.name:
            raise ConfigError(
                f"{build.checkpoint} was trained with recipe {checkpoint.run.recipe!r}, "
                f"{build.path} says {recipe.name!r}; run `skipserve build {build.path}`"
            )
        return recipe_origin(checkpoint, recipe)

    @cached_property
    def rows(self) -> Splits:
        """Rows, split.

        Raises:
            ConfigError: If they do not fit the network.
        """
        build = self._build
        if build.brought is not None:
            from skipserve.sources.brought import brought_rows

            return brought_rows(build.brought, build.root)
        from skipserve.sources.recipe import recipe_splits

        return recipe_splits(build.trained.recipe)

    @cached_property
    def module_weights(self) -> str | None:
        """SHA-256 of the weights of a ``module:function``, which is called; else ``None``.

        Raises:
            ConfigError: If there is no such function, or it returns something else.
        """
        brought = self._build.brought
        if brought is None or brought.source.module is None:
            return None
        from skipserve.sources.module import weights_of

        return weights_of(brought.source.module, self._build.root)
