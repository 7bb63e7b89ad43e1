#!/usr/bin/env python3
"""Runs an image that build.sh made as an orchestrator would, and predicts through it.

The OCI runtime is crun: read-only root file system, /tmp a small tmpfs without exec, user and
command as the image says, no capabilities, no new privileges, own PID and mount namespaces. The
network is the host's. Needs root; `deploy/image/try.py [slim|cpu|gpu] [MODEL …]` after
`deploy/image/build.sh`, with every model the image holds by default. `--certify ROWS` certifies the
first model inside, too, on a file of rows (a copy of it: what the image holds is read-only).
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any, BinaryIO

ROOT = Path(__file__).resolve().parents[2]
STORAGE = Path(os.environ.get("STORAGE", ROOT / ".image"))
PORT = int(os.environ.get("SKIPSERVE_PORT", "8080"))
METRICS_PORT = int(os.environ.get("SKIPSERVE_METRICS_PORT", "9464"))
NAME = f"skipserve-try-{os.getpid()}"
LEFT_BEHIND = ("gcc", "cc", "c++", "make", "pip", "pip3", "curl", "wget", "git")


def buildah(*arguments: str) -> str:
    storage = ("--root", f"{STORAGE}/root", "--runroot", f"{STORAGE}/run")
    command = ["buildah", "--storage-driver", "vfs", *storage, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def crun(bundle: Path, *arguments: str) -> list[str]:
    # crun wants to know the host's cgroups and refuses mixed ones; here it needs none.
    hide = 'mount -t tmpfs none /sys/fs/cgroup && exec "$@"'
    state = ("--root", str(bundle / "state"), "--cgroup-manager=disabled")
    return ["unshare", "--mount", "sh", "-c", hide, "sh", "crun", *state, *arguments]


def configure(bundle: Path, root: str, image: dict[str, Any], models: list[str]) -> None:
    """Write the bundle's config.json: what the image says, under the strictest settings."""
    subprocess.run(["crun", "spec"], cwd=bundle, check=True)
    file = bundle / "config.json"
    spec = json.loads(file.read_text())
    user, group = (int(part) for part in image["User"].split(":"))
    ports = (f"SKIPSERVE_PORT={PORT}", f"SKIPSERVE_METRICS_PORT={METRICS_PORT}")
    spec["root"] = {"path": root, "readonly": True}
    spec["process"] |= {
        "terminal": False,
        "user": {"uid": user, "gid": group},
        "args": [*image["Entrypoint"], *image["Cmd"], *models],
        "env": [*image["Env"], *ports],
        "cwd": image["WorkingDir"],
        "noNewPrivileges": True,
        "capabilities": {kind: [] for kind in spec["process"]["capabilities"]},
    }
    kept = [n for n in spec["linux"]["namespaces"] if n["type"] not in ("network", "cgroup")]
    spec["linux"] = {"namespaces": kept, "maskedPaths": spec["linux"]["maskedPaths"]}
    options = ["nosuid", "nodev", "noexec", "mode=1777", "size=256m"]
    tmp = {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": options}
    spec["mounts"] = [m for m in spec["mounts"] if m["type"] != "cgroup"] + [tmp]
    file.write_text(json.dumps(spec))


def inside(
    bundle: Path, *command: str, user: str = "0:0", stdin: BinaryIO | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        crun(bundle, "exec", "--user", user, NAME, *command),
        stdin=stdin,
        capture_output=True,
        text=True,
        timeout=600,
    )


def certify(bundle: Path, user: str, model: str, rows: Path) -> list[dict[str, Any]]:
    """The certificates that the image makes of a model on rows."""
    there = f"/tmp/{rows.name}"
    with rows.open("rb") as file:
        done = inside(bundle, "sh", "-c", f"cat > {shlex.quote(there)}", user=user, stdin=file)
    assert done.returncode == 0, done.stderr
    archive = f"/tmp/{model}.mar"
    inside(bundle, "cp", f"/models/{model}.mar", archive, user=user)
    done = inside(bundle, "skipserve", "certify", archive, "--data", there, "--json", user=user)
    assert done.returncode == 0, done.stderr
    made: list[dict[str, Any]] = json.loads(done.stdout)["certified"]
    return made


def predict(model: str, manifest: dict[str, Any]) -> bool:
    """Whether the model answers its own example at full depth."""
    inputs = {name: [row] for name, row in manifest["example"]["inputs"].items()}
    request = urllib.request.Request(
        f"http://127.0.0.1:{PORT}/predictions/{model}",
        json.dumps({"inputs": inputs, "parameters": {"router": "off"}}).encode(),
        {"Content-Type": "application/json"},
    )
    # Whatever proxy the machine has for the world outside.
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(request, timeout=30) as reply:
        answer = manifest["example"]["answer"]
        return json.load(reply)["outputs"][0]["label"] == answer.index(max(answer))


def wait_until_healthy(bundle: Path, image: dict[str, Any], running: subprocess.Popen[str]) -> None:
    """Until the image's own health check says so, run inside as a daemon runs it."""
    check = image["Healthcheck"]["Test"][1:]
    deadline = time.monotonic() + 120
    while inside(bundle, *check, user=image["User"]).returncode != 0:
        if running.poll() is not None or time.monotonic() > deadline:
            raise SystemExit("the container did not become healthy; its log is above")
        time.sleep(0.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", nargs="?", default="cpu", choices=("slim", "cpu", "gpu"))
    parser.add_argument("models", nargs="*")
    parser.add_argument("--certify", type=Path, metavar="ROWS")
    options = parser.parse_args()
    target = options.target
    described = json.loads(buildah("inspect", "--type", "image", f"skipserve:{target}"))
    image = described["Docker"]["config"]
    container = buildah("from", f"skipserve:{target}")
    bundle = Path(tempfile.mkdtemp(prefix="skipserve-image."))
    log = (bundle / "log").open("w")
    running = None
    try:
        root = buildah("mount", container)
        models = options.models or sorted(a.stem for a in Path(root, "models").glob("*.mar"))
        configure(bundle, root, image, models)
        size = sum(f.lstat().st_size for f in Path(root).rglob("*") if not f.is_dir())
        checks: dict[str, object] = {"image": f"skipserve:{target}", "files_mb": round(size / 1e6)}
        start = time.monotonic()
        running = subprocess.Popen(crun(bundle, "run", "-b", str(bundle), NAME), stderr=log)
        wait_until_healthy(bundle, image, running)
        checks["healthy_after_s"] = round(time.monotonic() - start, 1)
        for model in models:
            manifest = json.loads((ROOT / f"artifacts/{model}/manifest.json").read_text())
            assert predict(model, manifest), f"{model} misses its own example"
        checks["answer_their_example"] = models
        if options.certify:
            checks["certified"] = certify(bundle, image["User"], models[0], options.certify)
        status = inside(bundle, "cat", "/proc/1/status").stdout
        said = dict(line.split(":\t", 1) for line in status.splitlines())
        checks["user"] = said["Uid"].split()[0]
        checks["capabilities"] = said["CapEff"]
        checks["process_1"] = inside(bundle, "cat", "/proc/1/comm").stdout.strip()
        # As root, whom nothing but a read-only mount keeps from writing.
        for place in ("/", "/opt/skipserve", "/models", "/etc"):
            done = inside(bundle, "touch", f"{place}/written")
            assert "Read-only file system" in done.stderr, f"{place} can be written"
        checks["read_only_root"] = True
        found = [tool for tool in LEFT_BEHIND if inside(bundle, "which", tool).returncode == 0]
        assert not found, f"build tools in the last stage: {found}"
        start = time.monotonic()
        subprocess.run(crun(bundle, "kill", NAME, "TERM"), check=True)
        checks["exit_status_on_sigterm"] = running.wait(30)
        checks["stopped_after_s"] = round(time.monotonic() - start, 1)
        lines = (bundle / "log").read_text().splitlines()
        checks["log_lines_all_json"] = len([json.loads(line) for line in lines])
        print(json.dumps(checks))
    finally:
        if running is not None and running.poll() is None:
            running.send_signal(signal.SIGTERM)
            subprocess.run(crun(bundle, "delete", "--force", NAME), capture_output=True)
            running.wait(30)
        log.close()
        sys.stderr.write((bundle / "log").read_text())
        buildah("rm", container)
        shutil.rmtree(bundle, ignore_errors=True)


if __name__ == "__main__":
    main()
