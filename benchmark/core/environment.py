"""What a run was made with: versions, machine, code."""

from __future__ import annotations

import platform
import subprocess
import sys
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("generalist-bench", "torch", "torchvision", "numpy", "pyautoattack", "scikit-learn")


def package_versions() -> dict[str, str]:
    """Installed versions of the packages that results depend on."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def _commit() -> str | None:
    """The git commit of the source checkout, with ``+`` if it has changes; None elsewhere."""
    folder = Path(__file__).resolve().parent

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
        return done.stdout.strip()

    try:
        dirty = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "HEAD") + ("+" if dirty else "")
    except (OSError, subprocess.SubprocessError):
        return None


def environment(device: str, threads: int) -> dict[str, Any]:
    """The record of the surroundings; no host or user name, since records are published."""
    return {
        "python": sys.version.split()[0],
        **package_versions(),
        "platform": platform.system(),
        "machine": platform.machine(),
        "device": device,
        "threads": threads,
        "git": _commit(),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
