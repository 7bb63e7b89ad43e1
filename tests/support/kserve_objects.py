"""Holds KServe objects against the models of KServe's own package; run by test_kserve.py.

Apart from the tests, as KServe asks for another psutil than we do, and for all that its server
needs; the models need neither. Reads a JSON list of objects, writes a list of faults for each.
Types of Kubernetes' own inside them are left to Kubernetes' schemas.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import re
import sys
import types
from collections.abc import Iterator
from typing import Any

PLAIN = {"str": str, "int": int, "bool": bool, "float": float, "object": object}


def load() -> types.ModuleType:
    """`kserve.models`, without the server that `import kserve` starts to load."""
    package = types.ModuleType("kserve")
    package.__path__ = list(importlib.util.find_spec("kserve").submodule_search_locations)
    sys.modules["kserve"] = package
    return importlib.import_module("kserve.models")


def faults(models: types.ModuleType, value: Any, kind: str, place: str = "") -> Iterator[str]:
    """What of `value` is not as the type with the name `kind` has it, as `place: what`."""
    if match := re.fullmatch(r"list\[(.+)\]", kind):
        if not isinstance(value, list):
            yield f"{place}: {value!r} is not a list"
            return
        for index, item in enumerate(value):
            yield from faults(models, item, match[1], f"{place}.{index}")
    elif match := re.fullmatch(r"dict\(str, (.+)\)", kind):
        if not isinstance(value, dict):
            yield f"{place}: {value!r} is not a map"
            return
        for name, item in value.items():
            yield from faults(models, item, match[1], f"{place}.{name}")
    elif kind in PLAIN:
        if not isinstance(value, PLAIN[kind]) or (kind == "int" and isinstance(value, bool)):
            yield f"{place}: {value!r} is not of type {kind}"
    elif model := getattr(models, kind, None):
        yield from model_faults(models, value, model, place)


def model_faults(models: types.ModuleType, value: Any, model: Any, place: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{place}: {value!r} is not a map"
        return
    attributes = {key: attribute for attribute, key in model.attribute_map.items()}
    for key, item in value.items():
        here = f"{place}.{key}".lstrip(".")
        if key in attributes:
            yield from faults(models, item, model.openapi_types[attributes[key]], here)
        else:
            yield f"{here}: there is no such field in {model.__name__}"
    given = {attributes[key]: item for key, item in value.items() if key in attributes}
    try:
        model(**given)  # knows what is required
    except ValueError as error:
        yield f"{place or 'object'}: {error}"


def main() -> None:
    models = load()
    found = []
    for manifest in json.load(sys.stdin):
        version = manifest["apiVersion"].rpartition("/")[2]
        kind = f"V{version[1:]}{manifest['kind']}"
        if hasattr(models, kind):
            found.append(list(faults(models, manifest, kind)))
        else:
            found.append([f"object: KServe has no {manifest['kind']} in {manifest['apiVersion']}"])
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
