"""Where a number comes from: versions, machine, commit."""

from __future__ import annotations

import platform
import shlex
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import iccld
from iccld.machine import available_cores, cpu_name

PACKAGES = (
    "torch", "diffusers", "kornia_rs", "numpy", "pillow", "opencv-python-headless", "lightning-fabric", "safetensors",
    "transformers", "peft",
)  # fmt: skip


def environment(device: str, precision: str, channels_last: bool) -> dict[str, Any]:
    """What environment.json holds."""
    import torch

    commit, is_dirty = commit_of(Path(iccld.__file__).parent)
    return {
        "iccld": iccld.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "packages": {name: _version(name) for name in PACKAGES},
        "device": device,
        "precision": precision,
        "channels_last": channels_last,
        "cpu": cpu_name(),
        "threads": torch.get_num_threads(),
        "cores": available_cores(),
        "command": shlex.join(["iccld", *sys.argv[1:]]) if Path(sys.argv[0]).stem in ("iccld", "__main__") else None,
        "commit": commit,
        "dirty": is_dirty,
    }


def commit_of(folder: Path) -> tuple[str | None, bool | None]:
    """The commit of the checkout that `folder` lies in and whether files differ from it; (None, None) outside of one.

    A virtual environment inside somebody's checkout is outside of it: its files are not tracked.
    """
    try:
        ask = ["git", "-C", str(folder)]
        subprocess.run([*ask, "ls-files", "--error-unmatch", "."], capture_output=True, timeout=10, check=True)
        commit = subprocess.run([*ask, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=True).stdout.strip()
        changed = subprocess.run([*ask, "status", "--porcelain", "-uno"], capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None, None
    return commit, bool(changed.strip())


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
