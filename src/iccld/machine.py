"""What this process may use of the machine."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from iccld.errors import ConfigError

BF16_SWITCH = "ICCLD_BF16"


def available_cores() -> int:
    """CPU cores that this process may run on, at least 1: a container often has fewer than the machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def forced_bf16() -> bool | None:
    """What the environment variable ICCLD_BF16 says that this CPU has, whatever is true: on, off, or auto (and unset) for the truth, None.

    PyTorch computes in bf16 on every CPU, only slower where the instructions are missing.  ConfigError for another value.
    """
    value = os.environ.get(BF16_SWITCH, "auto")
    if value not in ("on", "off", "auto"):
        raise ConfigError(f"{BF16_SWITCH} is {value!r}; use on, off or auto")
    return None if value == "auto" else value == "on"


def free_memory_gib() -> float:
    """Memory that can be taken without swapping, in GiB, within the limit of the container."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit, used = _cgroup_bytes("memory.max"), _cgroup_bytes("memory.current")
    if limit is not None and used is not None:
        free = min(free, max(limit - used, 0))
    return free / 2**30


def _cgroup_bytes(name: str) -> int | None:
    try:
        text = Path("/sys/fs/cgroup", name).read_text(encoding="ascii").strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None


def memory_gib(field: str) -> float:
    """What /proc/self/status says of this process in GiB: VmRSS, held now, or VmHWM, the most so far; 0 where there is none."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        lines = []
    return next((int(line.split()[1]) / 2**20 for line in lines if line.startswith(f"{field}:")), 0.0)


def cpu_name() -> str:
    """The processor's model, or the machine's architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
