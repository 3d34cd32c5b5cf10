"""The environment of a run: versions of packages, machine, code."""

from __future__ import annotations

import platform
import subprocess
import sys
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

PACKAGES = (
    "generalist-bench",
    "torch",
    "torchvision",
    "numpy",
    "scipy",
    "pillow",
    "pyautoattack",
    "scikit-learn",
)


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
        # An installed copy may be inside the repository of another project.
        git("ls-files", "--error-unmatch", Path(__file__).name)
        dirty = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "HEAD") + ("+" if dirty else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _processor(device: str) -> str:
    """The model of the GPU or CPU."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        return platform.processor()


def environment(device: str, threads: int) -> dict[str, Any]:
    """The record of the environment. It has no host or user name, since records are published."""
    return {
        "python": sys.version.split()[0],
        **package_versions(),
        "platform": platform.system(),
        "machine": platform.machine(),
        "device": device,
        "processor": _processor(device),
        "threads": threads,
        "git": _commit(),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
