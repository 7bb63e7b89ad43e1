"""Shell completion of arguments: the models and build files of the working directory."""

from __future__ import annotations

from pathlib import Path

import typer

STORE = Path("model_store")


def model_names(context: typer.Context, incomplete: str) -> list[str]:
    """Names of models that are built here, as artifacts or archives."""
    artifacts = {one.parent.name for one in Path("artifacts").glob("*/manifest.json")}
    return _matching(artifacts | _archived(context), incomplete)


def archived_names(context: typer.Context, incomplete: str) -> list[str]:
    """Names of models that have an archive."""
    return _matching(_archived(context), incomplete)


def build_files(incomplete: str) -> list[str]:
    """Build files of the folder export/."""
    return _matching({str(one) for one in Path("export").glob("*.toml")}, incomplete)


def artifacts(incomplete: str) -> list[str]:
    """Artifact directories and archives."""
    found = {str(one.parent) for one in Path("artifacts").glob("*/manifest.json")}
    return _matching(found | {str(one) for one in STORE.glob("*.mar")}, incomplete)


def _archived(context: typer.Context) -> set[str]:
    store = context.params.get("model_store") or STORE
    return {one.stem for one in Path(store).glob("*.mar")}


def _matching(names: set[str], incomplete: str) -> list[str]:
    return sorted(name for name in names if name.startswith(incomplete))
