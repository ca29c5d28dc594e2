"""What this process may use of the machine."""

from __future__ import annotations

import os

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
