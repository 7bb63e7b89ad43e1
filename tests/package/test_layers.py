"""Imports point one way, and a library is known only where the design says so."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE, BENCHMARKS = ROOT / "src" / "skipserve", ROOT / "benchmarks"
# What serves points down: hosts, service, protocols, runtime, artifacts. What makes a router stands
# beside them, and may know what runs files; what makes an artifact stands above all of these,
# commands on top.
# A layer may import from itself, from those named here, and from the top-level helpers.
BESIDE = {"graph", "routing", "certification"}
BELOW = {
    "networks": set(),
    "training": {"networks"},
    # What an artifact says needs the field's words; making one (export.py, graphs.py) needs all.
    "artifacts": {"certification", "graph", "networks", "preprocessing", "routing", "runtime"},
    "preprocessing": {"artifacts"},
    "runtime": {"artifacts", "preprocessing", "routing"},
    "protocols": {"artifacts", "preprocessing", "runtime"},
    "telemetry": {"artifacts", "earning", "protocols", "runtime", "safety"},
    # The alarm reads what the workers counted; what they count, it knows nothing of.
    "safety": {"artifacts", "earning", "runtime", "telemetry"},
    # What rows prove is arithmetic and files of counts; who serves them, it knows nothing of.
    "earning": {"artifacts", "routing", "runtime"},
    "service": {"artifacts", "earning", "protocols", "runtime", "safety", "telemetry"},
    "hosts": {"artifacts", "earning", "protocols", "runtime", "safety", "service", "telemetry"},
    "graph": {"routing", "runtime"},
    "routing": {"graph", "networks", "runtime"},
    "certification": {"artifacts", "earning", "routing", "runtime"},
    "sources": {*BESIDE, "artifacts", "networks", "preprocessing", "runtime", "training"},
    "tasks": set(),
    "watching": set(),  # knows a service by what it answers alone
    "loadtest": {"artifacts", "runtime", "hosts", "sources", "training", "watching"},
}
BELOW["building"] = {*BESIDE, "artifacts", "networks", "runtime", "hosts", "sources", "training"}
BELOW["building"] |= {"plots", "preprocessing"}
BELOW["reporting"] = {*BELOW["building"], "building", "samples"} - {"hosts", "plots"}
BELOW["commands"] = {*BELOW, "plots", "samples"}
HELPERS = {
    *(
        "address",
        "cores",
        "direct",
        "errors",
        "extras",
        "files",
        "intervals",
        "schema",
        "signature",
        "slices",
        "style",
        "tasks",
        "versions",
    ),
}
ONLY_IN = {
    "prometheus_client": {
        "telemetry/series.py",
        "telemetry/metrics.py",
        "telemetry/exposition.py",
        "telemetry/counts.py",
        "telemetry/earning.py",
        "telemetry/holding.py",
        "telemetry/process.py",
        "watching/scrape.py",
    },
    "onnxruntime": {
        "runtime/backends.py",
        *(f"graph/{name}.py" for name in ("memory", "precision", "prepare", "probe")),
    },
    "opentelemetry": {"telemetry/tracing.py"},
    "PIL": {f"preprocessing/{name}.py" for name in ("decoding", "pictures")},
    "tokenizers": {"preprocessing/text.py"},
    "ts": {"hosts/torchserve/worker.py"},
    "granian": {"hosts/granian/__main__.py"},
    "ray": {f"hosts/ray/{name}.py" for name in ("deploy", "front", "metrics", "health", "remote")}
    | {"hosts/ray/__init__.py"},
    "asyncio": {
        *("hosts/asgi.py", "hosts/client.py", "hosts/models.py", "hosts/rsgi.py"),
        *("hosts/granian/worker.py",),
        *("hosts/ray/front.py", "hosts/ray/health.py"),
        *("service/batcher.py", "service/deferred.py", "service/turns.py"),
    },
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


# Importing these opens what serves; a service has neither torch nor onnx.
SERVING = ("skipserve.service.service", "skipserve.runtime.engine")
HEAVY = {"torch", "onnx", "scipy", "sklearn", "matplotlib", "skipserve.graph", "skipserve.sources"}


@pytest.mark.parametrize("module", SERVING)
def test_what_serves_needs_no_library_to_make_models_with(module):
    code = f"import sys, {module}; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not HEAVY & set(run.stdout.split())


def test_the_package_knows_nothing_of_benchmarks():
    for file in FILES:
        assert not {"laboratory", "benchmarks"} & {one.partition(".")[0] for one in imports(file)}


def test_benchmarks_import_what_is_there():
    # They are not run by the tests, and their names would go stale unseen.
    missing = []
    for file in sorted(BENCHMARKS.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("skipserve"):
                missing += [
                    f"{file.name}: {node.module} has no {alias.name}"
                    for alias in node.names
                    if not _is_there(node.module, alias.name)
                ]
    assert not missing


def _is_there(module: str, name: str) -> bool:
    if hasattr(importlib.import_module(module), name):
        return True
    try:
        importlib.import_module(f"{module}.{name}")
    except ModuleNotFoundError:
        return False
    return True


def test_no_file_shadows_a_library():
    libraries = {"onnx", "onnxruntime", "torch", "locust", "prometheus_client", "numpy", "ts"}
    assert not libraries & {file.stem for file in FILES}
