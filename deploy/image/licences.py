#!/usr/bin/env python3
"""Prints the licence of each package of a lock file, as the environment that runs this has it."""

from __future__ import annotations

import re
import sys
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

HERE = Path(__file__).parent


def licence(name: str) -> str:
    """As the package says it: an expression, a classifier, or the first line of its text."""
    try:
        told = metadata(name)
    except PackageNotFoundError:
        return "not in this environment"
    if expression := told.get("License-Expression"):
        return expression
    classifiers = told.get_all("Classifier") or []
    named = [one.rpartition(" :: ")[2] for one in classifiers if one.startswith("License :: ")]
    text = (told.get("License") or "").strip().partition("\n")[0]
    return ", ".join(named) or text or "not said"


def main() -> None:
    target = sys.argv[1] if len(sys.argv) > 1 else "slim"
    lines = (HERE / f"requirements-{target}.txt").read_text()
    print("| package | version | licence |\n|---|---|---|")
    for name, version in re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", lines, re.MULTILINE):
        print(f"| {name} | {version} | {licence(name)} |")


if __name__ == "__main__":
    main()
