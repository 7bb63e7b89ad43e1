"""Python files that a ``module:function`` is made of, found without running any.

Python's own ``modulefinder`` finds no packages without ``__init__.py``, and stops at a file that
does not parse.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path


def code_of(name: str, root: Path) -> list[Path]:
    """The files of a module and of what it imports beside it, sorted.

    Of the project that is everything that is imported from there; of an installed package, what is
    imported from the same package. Other packages are known by their version, as the rest is.

    Args:
        name: ``module:function``.
        root: Folder that is looked in first.

    Returns:
        No file for a module that is not there, or is built in.
    """
    module = name.partition(":")[0]
    first = module.partition(".")[0]
    base, inside = root, ""
    if not any(_files(first, root)):
        try:
            spec = find_spec(first) if first.isidentifier() else None
        except ValueError:  # of what runs, such as __main__
            return []
        if spec is None or not spec.origin or not spec.has_location:
            return []
        file = Path(spec.origin)
        base = file.parent.parent if spec.submodule_search_locations else file.parent
        inside = first
    found: set[Path] = set()
    waiting = [module]
    while waiting:
        one = waiting.pop()
        if inside and one.partition(".")[0] != inside:
            continue
        for place, file in _files(one, base):
            if file not in found:
                found.add(file)
                waiting += _imports(file, place)
    return sorted(found)


def _files(module: str, base: Path) -> Iterator[tuple[str, Path]]:
    """The files that are run when a module of a folder is imported, each with its package."""
    parts = module.split(".")
    if not all(part.isidentifier() for part in parts):
        return
    for i in range(1, len(parts) + 1):
        stem = base.joinpath(*parts[:i])
        if (stem / "__init__.py").is_file():
            yield ".".join(parts[:i]), stem / "__init__.py"
        elif stem.with_name(f"{stem.name}.py").is_file():
            yield ".".join(parts[: i - 1]), stem.with_name(f"{stem.name}.py")


def _imports(file: Path, package: str) -> Iterator[str]:
    """Modules that a file may import; a name may also be of something in a module."""
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError):  # whoever imports it will say so
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (one.name for one in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            parts = [*(above if node.level else ()), *([node.module] if node.module else [])]
            of = ".".join(one for one in parts if one)
            yield of
            yield from (f"{of}.{one.name}" if of else one.name for one in node.names)
