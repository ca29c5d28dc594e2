"""What this machine is and what it can do: versions, device, bf16, free space, speed.  Imports PyTorch only when asked to measure."""

from __future__ import annotations

import platform
import re
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import TYPE_CHECKING

from iccld import __version__
from iccld.errors import ConfigError
from iccld.machine import BF16_SWITCH, available_cores, forced_bf16, free_memory_gib

if TYPE_CHECKING:
    import torch

PACKAGES = ("torch", "lightning-fabric", "diffusers", "transformers", "kornia_rs", "numpy", "pillow", "safetensors", "huggingface_hub")
GIB = 2**30
PROBE_SECONDS = 0.5
"""Length of one speed probe; fp32 and bf16 together take about a second."""


@dataclass(frozen=True)
class Findings:
    """What `examine` found; every field is plain JSON."""

    iccld: str
    python: str
    packages: dict[str, str]
    """Installed versions; `missing` for a package that is not there."""
    torchvision: str
    """`absent` and `matches` are both good; anything else is the problem in one line."""
    device: str
    cpu: str
    cores: int
    """Cores that this process may use."""
    threads: int
    """Threads that PyTorch uses."""
    bf16: str
    """Whether the hardware multiplies bfloat16, and how that is known."""
    memory_free_gib: float
    disk_free_gib: float
    speed_gflops: dict[str, float]
    """Convolutions forward and backward, billions of operations a second, by precision."""
    recipes: dict[str, dict[str, float]] = field(default_factory=dict)
    """Recipe -> {"iterations", "seconds", "iterations_an_hour"}; estimates."""
    problems: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        return asdict(self)


def torchvision_mismatch(installed: Callable[[str], str] = version, needs: Callable[[str], list[str] | None] = requires) -> str | None:
    """One line with the remedy when the installed torchvision was built for another PyTorch; None when it fits or is absent.

    torchvision pins the PyTorch it was built for (`torch==X`) in its own metadata.
    """
    try:
        vision, torch_version = installed("torchvision"), installed("torch")
    except PackageNotFoundError:
        return None
    pins = [match[1] for line in needs("torchvision") or [] if (match := re.match(r"torch\s*\(?==\s*([\w.]+)", line))]
    if pins and pins[0].split("+")[0] != torch_version.split("+")[0]:
        return _mismatch_line(f"torchvision {vision} was built for torch {pins[0]}, but torch {torch_version} is installed")
    return None


def _mismatch_line(what: str) -> str:
    return f"{what}; iccld needs no torchvision: pip uninstall torchvision"


def mismatch_behind(error: BaseException) -> str | None:
    """The torchvision mismatch behind an import error, as one line with its remedy; None for any other error.

    diffusers and transformers wrap `operator torchvision::nms does not exist` in errors of their own.
    """
    link: BaseException | None = error
    while link is not None:
        if "torchvision::" in str(link):
            return torchvision_mismatch() or _mismatch_line("the installed torchvision does not fit the installed torch")
        link = link.__cause__ or link.__context__
    return None


def require_matching_torchvision() -> None:
    """ConfigError when an installed torchvision would break the imports of diffusers and transformers."""
    mismatch = torchvision_mismatch()
    if mismatch is not None:
        raise ConfigError(mismatch)


def free_disk_gib(folder: Path) -> float:
    """Free space in GiB where `folder` is, or would be made."""
    folder = folder.absolute()
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free / GIB


def cpu_name() -> str:
    """Model name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def bf16_support(device: torch.device) -> tuple[bool, str]:
    """(whether bfloat16 products are done in hardware, how that is known)."""
    import torch

    if device.type == "cuda":
        has = torch.cuda.is_bf16_supported(including_emulation=False)
        return has, "the accelerator multiplies bf16" if has else "the accelerator emulates bf16"
    forced = forced_bf16()
    if forced is not None:
        return forced, f"{BF16_SWITCH} says so"
    try:
        flags = set(re.findall(r"\b(amx_bf16|avx512_bf16|bf16)\b", Path("/proc/cpuinfo").read_text(encoding="utf-8")))
    except OSError:
        flags = set()
    return bool(flags), f"CPU flags: {', '.join(sorted(flags))}" if flags else "the CPU has no bf16 instructions"


def measure_gflops(device: torch.device, dtype: torch.dtype, seconds: float = PROBE_SECONDS) -> float:
    """Speed of a small channels_last convolution stack, forward and backward, in billions of multiply and add operations a second."""
    import torch
    from torch import nn

    channels, side, batch = 48, 64, 4
    layers = [nn.Conv2d(channels, channels, 3, padding=1, bias=False) for _ in range(4)]
    network = nn.Sequential(*layers).to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    pictures = torch.ones(batch, channels, side, side, device=device).to(memory_format=torch.channels_last)
    operations = 3 * 2 * 9 * channels * channels * side * side * batch * len(layers)  # backward costs twice the forward

    def step() -> None:
        with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
            network(pictures).square().mean().backward()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    step()  # the first call chooses kernels
    start, steps = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        step()
        steps += 1
    return operations * steps / (time.perf_counter() - start) / 1e9


def examine(out: Path = Path("runs"), probe_seconds: float = PROBE_SECONDS) -> Findings:
    """Look at this machine; takes about two seconds, most of them the speed probe."""
    import torch

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    has_bf16, bf16 = bf16_support(device)
    mismatch = torchvision_mismatch()
    packages = {name: _version_of(name) for name in PACKAGES}
    dtypes = {"fp32": torch.float32} | ({"bf16": torch.bfloat16} if has_bf16 else {})
    memory, disk = free_memory_gib(), free_disk_gib(out)
    problems = [mismatch] if mismatch else []
    problems += [f"{name} is missing; pip install {name}" for name, found in packages.items() if found == "missing"]
    problems += [f"{memory:.1f} GiB of memory is free; the demo wants 2"] if memory < 2 else []
    problems += [f"{disk:.1f} GiB of disk is free; the demo wants 1"] if disk < 1 else []
    return Findings(
        iccld=__version__,
        python=platform.python_version(),
        packages=packages,
        torchvision=mismatch or ("absent" if _version_of("torchvision") == "missing" else "matches"),
        device=torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        cpu=cpu_name(),
        cores=available_cores(),
        threads=torch.get_num_threads(),
        bf16=f"{'yes' if has_bf16 else 'no'}: {bf16}",
        memory_free_gib=memory,
        disk_free_gib=disk,
        speed_gflops={name: measure_gflops(device, dtype, probe_seconds) for name, dtype in dtypes.items()},
        problems=problems,
    )


def hour_plan(estimates: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Estimates by recipe ({"iterations", "seconds"}) with the iterations that an hour holds."""
    plan = {}
    for name, estimate in estimates.items():
        seconds, iterations = float(estimate["seconds"]), float(estimate["iterations"])
        plan[name] = {
            "iterations": iterations,
            "seconds": seconds,
            "iterations_an_hour": 3600 * iterations / seconds if seconds > 0 else 0.0,
        }
    return plan


def _version_of(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"
