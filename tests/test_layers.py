"""Imports point one way, and a library is known only where the design says so."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "src" / "skipserve"
# A layer may import from itself, from those named here, and from the top-level helpers.
BELOW = {
    "networks": set(),
    "training": {"networks"},
    "routing": {"networks"},
    "artifacts": {"networks", "training", "routing"},
    "runtime": {"artifacts"},
    "serving": {"artifacts", "runtime"},
    "watching": set(),  # knows a service by what it answers alone
    "loadtest": {"artifacts", "runtime", "serving", "training", "watching"},
    "reporting": {"networks", "training", "routing", "artifacts", "runtime"},
}
BELOW["commands"] = {*BELOW, "build", "buildfile", "calibrate", "plots", "samples"}
HELPERS = {"cores", "direct", "errors", "schema", "files", "style", "versions"}
ONLY_IN = {
    "prometheus_client": {
        "serving/series.py",
        "serving/metrics.py",
        "serving/exposition.py",
        "watching/scrape.py",
    },
    "onnxruntime": {"runtime/backends.py"},
    "opentelemetry": {"serving/tracing.py"},
    "ts": {"serving/torchserve_patches.py", "serving/pipeline.py"},
    "sklearn": {"training/recipes.py"},
    "locust": {"loadtest/driver.py", "loadtest/users.py"},
    "gevent": {f"loadtest/{name}.py" for name in ("dispatcher", "driver", "pacer", "users")},
    "hdrh": {"loadtest/histogram.py"},
    "jinja2": {"loadtest/report.py", "reporting/page.py"},
}


def imports(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports_point_down(file):
    place = file.relative_to(PACKAGE)
    for module in imports(file):
        head, _, rest = module.partition(".")
        if head == "skipserve" and len(place.parts) > 1:
            layer = rest.partition(".")[0]
            allowed = BELOW[place.parts[0]] | HELPERS | {place.parts[0]}
            assert layer in allowed, f"{place} imports {module}"
        if head in ONLY_IN:
            assert place.as_posix() in ONLY_IN[head], f"{place} imports {module}"


def test_no_file_shadows_a_library():
    libraries = {"onnx", "onnxruntime", "torch", "locust", "prometheus_client", "numpy", "ts"}
    assert not libraries & {file.stem for file in FILES}
