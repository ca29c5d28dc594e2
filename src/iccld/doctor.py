"""What this machine is and what it can do: versions, device, bf16, free space, speed, and what of it a bug report needs.

Imports PyTorch only when asked to measure.
"""

from __future__ import annotations

import platform
import re
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from pathlib import Path
from typing import TYPE_CHECKING

from iccld import __version__
from iccld.errors import ConfigError
from iccld.machine import BF16_SWITCH, available_cores, cpu_name, forced_bf16, free_memory_gib

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
    commit: str
    """Of the checkout that the package lies in, `with changes` where files differ from it; empty where it is installed elsewhere."""
    python: str
    platform: str
    """Operating system, its version and the architecture."""
    packages: dict[str, str]
    """Installed versions; `missing` for a package that is not there."""
    extras: dict[str, str]
    """Extras of the package -> `installed`, or the packages that it lacks."""
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
    """Look at this machine; takes about two seconds, most of them the speed probe, which 0 seconds leave out."""
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
        commit=commit_text(),
        python=platform.python_version(),
        platform=platform.platform(),
        packages=packages,
        extras=extras_found(),
        torchvision=mismatch or ("absent" if _version_of("torchvision") == "missing" else "matches"),
        device=torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        cpu=cpu_name(),
        cores=available_cores(),
        threads=torch.get_num_threads(),
        bf16=f"{'yes' if has_bf16 else 'no'}: {bf16}",
        memory_free_gib=memory,
        disk_free_gib=disk,
        speed_gflops={name: measure_gflops(device, dtype, probe_seconds) for name, dtype in dtypes.items() if probe_seconds > 0},
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


def commit_text() -> str:
    """The commit of the checkout that this package lies in, for people; empty outside of one."""
    from iccld.runs.provenance import commit_of

    commit, is_dirty = commit_of(Path(__file__).parent)
    return "" if commit is None else f"{commit[:12]}{' with changes' if is_dirty else ''}"


def extras_found(needs: Callable[[str], list[str] | None] = requires, names: Sequence[str] | None = None) -> dict[str, str]:
    """Extra of the installed package -> `installed`, or `lacks NAME, NAME`; one that refers to others by name is left out.

    needs, names: a distribution's requirements, and its extras where they are not asked of its metadata.
    """
    try:
        extras = metadata("iccld").get_all("Provides-Extra") or [] if names is None else names
        lines = needs("iccld") or []
    except PackageNotFoundError:  # the source alone, by PYTHONPATH
        return {}
    found = {}
    for extra in extras:
        marker = re.compile(rf"""extra\s*==\s*['"]{re.escape(extra)}['"]""")
        packages = [match[0] for line in lines if marker.search(line) and (match := re.match(r"[\w.-]+", line))]
        if packages and "iccld" not in packages:
            missing = [name for name in packages if _version_of(name) == "missing"]
            found[extra] = f"lacks {', '.join(missing)}" if missing else "installed"
    return found


def about() -> str:
    """What `iccld --version` prints: the version alone in the first line, where programs look for it."""
    parts = [commit_text() and f"commit {commit_text()}", f"Python {platform.python_version()}", f"torch {_version_of('torch')}"]
    said = ", ".join(part for part in (*parts, platform.platform()) if part)
    return f"iccld {__version__}\n{said}\nFor a bug report: iccld doctor --markdown"


def bug_report(findings: Findings) -> str:
    """What is worth telling of an installation and its machine, as Markdown to be pasted."""
    rows = {
        "iccld": ", ".join(filter(None, (findings.iccld, findings.commit and f"commit {findings.commit}"))),
        "Python": findings.python,
        "platform": findings.platform,
        "device": findings.device,
        "CPU": f"{findings.cpu}, {findings.cores} cores, {findings.threads} threads in PyTorch",
        "bf16": findings.bf16,
        "free": f"{findings.memory_free_gib:.1f} GiB of memory, {findings.disk_free_gib:.1f} GiB of disk",
        "packages": ", ".join(f"{name} {found}" for name, found in findings.packages.items()),
        "extras": ", ".join(name for name, found in findings.extras.items() if found == "installed") or "none",
        "torchvision": findings.torchvision,
        "problems": "; ".join(findings.problems) or "none",
    }
    table = "\n".join(f"| {name} | {' '.join(value.split()).replace('|', '/')} |" for name, value in rows.items())
    return f"| iccld doctor | |\n|---|---|\n{table}"


def _version_of(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"
