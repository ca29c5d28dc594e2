"""What a GPU makes of the real-size recipes, in one process and within a time budget: one JSON and one Markdown table.

    bash benchmarks/gpu.sh OUT [SECONDS]          # or: python benchmarks/gpu.py --out OUT --budget 540

For each stage of each recipe: seconds and peak memory of an iteration at the recipe's real size, the share of the card's measured bf16
peak, and the memory that `iccld` estimates beside the measured one.  Then one and 50 DDIM steps at 2048x1024, `pytest -m gpu`, and a step
with and without torch.compile.  Networks have the published architectures with random weights, on which neither time nor memory
depends; pictures are random.  An item that fails or does not fit into the time left says so in its row.  `--tiny` makes everything
small, so that a test can run it on a CPU.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

RECIPES = (
    "gta5_to_cityscapes_paper",
    "gta5_to_cityscapes",
    "gta5_to_cityscapes_frozen",
    "gta5_to_cityscapes_daformer",
    "gta5_to_cityscapes_hrda",
    "gta5_to_cityscapes_mic",
)
WARM_UP, TIMED = 2, 5
SAMPLED = "gta5_to_cityscapes_paper"
COMPILED = "gta5_to_cityscapes"
PICTURE = (1024, 2048)
GPU_TESTS = ("tests/training/test_method_resume.py", "tests/runs/test_accelerator.py")
TINY = ["--size.crop", "64x64", "--size.source", "64x64", "--size.target", "64x64", "--batch_size", "2", "--evaluation.window", "whole"]
TINY_NETWORK = {
    "ldm": ["--network.widths", "32,32,32,32"],
    "daformer": ["--network.widths", "8,16,24,32", "--network.latent_channels", "32"],
}
COLUMNS = ("recipe", "stage", "s an iteration", "peak GiB", "estimated GiB", "TFLOP", "% of bf16 peak", "note")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--budget", type=float, default=540.0, help="seconds for everything")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--recipes", nargs="+", default=RECIPES)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--skip", nargs="*", default=(), choices=("sampling", "compile", "tests"))
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    bench = Bench(given)
    bench.run()


class Bench:
    """The items in order of interest, each within what is left of the budget; everything measured so far is on disk after each."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given = given
        self.ends = time.monotonic() + given.budget
        is_cuda = given.device != "cpu" and torch.cuda.is_available()
        self.device = torch.device("cuda" if is_cuda else "cpu")
        self.told: dict[str, Any] = {"machine": machine(self.device), "stages": [], "sampling": [], "compile": [], "tests": None}
        self.peak = bf16_peak(self.device, 256 if given.tiny else 8192)
        self.told["machine"]["bf16_tflops"] = round(self.peak / 1e12, 1)

    def run(self) -> None:
        for recipe in self.given.recipes:
            self.item(partial(self.stages, recipe), 150, recipe)
        if "sampling" not in self.given.skip:
            self.item(self.sampling, 120, "sampling")
        if "compile" not in self.given.skip:
            self.item(self.compiled, 120, "compile")
        if "tests" not in self.given.skip:
            self.item(self.tests, 600, "tests")
        print(self.table())

    def item(self, work: Callable[[], None], limit: float, name: str) -> None:
        """Do one item; what goes wrong becomes a row, and the next one has its turn."""
        left = min(limit, self.ends - time.monotonic())
        try:
            if left < 5:
                raise TimeoutError("no time left in the budget")
            with within(left):
                work()
        except Exception as error:  # a benchmark of many items reports every failure and goes on
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            self.told["stages"].append({"recipe": name, "note": reason})
        gc.collect()  # networks and optimisers hold each other, and what is left of one item would count in the next one's peak
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        (self.given.out / "gpu.json").write_text(json.dumps(self.told, indent=1), encoding="utf-8")
        (self.given.out / "gpu.md").write_text(self.table(), encoding="utf-8")

    def stages(self, recipe: str) -> None:
        with ready(recipe, self.device, self.given.tiny) as (config, engine, stages, estimates):
            for stage, method, batch in stages:
                seconds, peak = timed_steps(method, batch, engine)
                with FlopCounterMode(display=False) as counter:
                    step(method, batch, engine, 0)
                flops = float(counter.get_total_flops())
                self.told["stages"].append(
                    {
                        "recipe": recipe,
                        "stage": stage,
                        "crop": config.size.crop,
                        "batch_size": config.batch_size,
                        "precision": engine.precision,
                        "reads_kept_views": method.batch_of(WARM_UP) is None,
                        "seconds": seconds,
                        "peak_gib": peak,
                        "estimated_gib": estimates.get(stage),
                        "tflop": flops / 1e12,
                        "share_of_peak": flops / seconds / self.peak,
                    }
                )

    def sampling(self) -> None:
        with ready(SAMPLED, self.device, self.given.tiny) as (_, engine, stages, _):
            *_, (_, method, _) = stages
            size = (64, 128) if self.given.tiny else PICTURE
            picture = torch.zeros(1, 3, *size, dtype=torch.uint8, device=self.device)
            for steps in (1, 50):
                predictor = method.predictor("ema", steps).eval()
                predictor.precision = engine.precision
                predictor.working_size = size
                reset_peak(self.device)
                with torch.no_grad():
                    predictor.network_logits(picture)
                    seconds = clock(partial(predictor.network_logits, picture), self.device, 2 if steps == 50 else 5)
                self.told["sampling"].append({"steps": steps, "size": size, "seconds": seconds, "peak_gib": engine.peak_memory_gib()})

    def compiled(self) -> None:
        for is_compiled in (False, True):
            with ready(COMPILED, self.device, self.given.tiny) as (_, engine, stages, _):
                stage, method, batch = next(iter(stages))
                began = time.monotonic()
                if is_compiled:
                    method.model.compile()
                step(method, batch, engine, 0)
                first = time.monotonic() - began
                seconds, peak = timed_steps(method, batch, engine)
                told = {"recipe": COMPILED, "stage": stage, "compiled": is_compiled, "first_step": first}
                self.told["compile"].append({**told, "seconds": seconds, "peak_gib": peak})

    def tests(self) -> None:
        log = self.given.out / "pytest.txt"
        command = [sys.executable, "-m", "pytest", "-v", "-m", "gpu", "--tb=short", "-p", "no:cacheprovider", *GPU_TESTS]
        with log.open("w", encoding="utf-8") as file:
            child = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
            try:
                code: int | None = child.wait(max(10, self.ends - time.monotonic()))
            except (TimeoutError, subprocess.TimeoutExpired):
                child.kill()
                code = None
        told = log.read_text(encoding="utf-8", errors="replace")
        counts = ", ".join(f"{told.count(f' {word} ')} {word.lower()}" for word in ("PASSED", "FAILED", "ERROR"))
        closing = counts if code is not None else f"{counts} when the time was over"
        self.told["tests"] = {"exit": code, "closing": closing, "tail": told[-3000:]}

    def table(self) -> str:
        card = self.told["machine"]
        lines = [
            f"{card['device']}, torch {card['torch']}, measured bf16 peak {card.get('bf16_tflops', '–')} TFLOP/s, commit {card['commit']}",
            "",
            f"| {' | '.join(COLUMNS)} |",
            "|---|---|---:|---:|---:|---:|---:|---|",
        ]
        for row in self.told["stages"]:
            if "seconds" not in row:
                lines.append(f"| {row['recipe']} | – | – | – | – | – | – | {row['note']} |")
                continue
            estimated = "–" if row["estimated_gib"] is None else f"{row['estimated_gib']:.1f}"
            share = f"{100 * row['share_of_peak']:.0f}"
            kept = ", kept views" if row["reads_kept_views"] else ""
            note = f"batch {row['batch_size']}, crop {row['crop']}, {row['precision']}{kept}"
            figures = f"{row['seconds']:.3f} | {row['peak_gib']:.1f} | {estimated} | {row['tflop']:.1f} | {share}"
            lines.append(f"| {row['recipe']} | {row['stage']} | {figures} | {note} |")
        for row in self.told["sampling"]:
            height, width = row["size"]
            figures = f"{row['seconds']:.3f} | {row['peak_gib']:.1f} | – | – | –"
            lines.append(f"| {SAMPLED} | {row['steps']} DDIM steps | {figures} | {width}x{height} |")
        for row in self.told["compile"]:
            how = "torch.compile" if row["compiled"] else "eager"
            note = f"first step {row['first_step']:.1f} s"
            lines.append(f"| {row['recipe']} | {row['stage']}, {how} | {row['seconds']:.3f} | {row['peak_gib']:.1f} | – | – | – | {note} |")
        tests = self.told["tests"]
        lines += ["", f"`pytest -m gpu`: {tests['closing'] if tests else 'not run'}"]
        return "\n".join(lines) + "\n"


def machine(device: torch.device) -> dict[str, Any]:
    """What the figures were measured on."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip() or "unknown"
    return {"device": name, "torch": torch.__version__, "python": platform.python_version(), "commit": commit}


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """TimeoutError in the block after so many seconds."""

    def late(*_: Any) -> None:
        raise TimeoutError(f"took more than {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()


def clock(work: Callable[[], Any], device: torch.device, times: int) -> float:
    """Mean seconds of `work`."""
    synchronise(device)
    began = time.perf_counter()
    for _ in range(times):
        work()
    synchronise(device)
    return (time.perf_counter() - began) / times


def bf16_peak(device: torch.device, side: int) -> float:
    """Operations a second of a square bf16 product of random matrices."""
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    for _ in range(3):
        a @ b
    return 2 * side**3 / clock(lambda: a @ b, device, 10)


@contextmanager
def ready(recipe: str, device: torch.device, tiny: bool) -> Iterator[tuple[Any, Any, Iterator[tuple[str, Any, Any]], dict[str, float]]]:
    """The recipe's configuration, an engine, its stages set up one after the other with a batch, and the estimated memory by stage."""
    from iccld.assembly.chosen import method_settings, registered_method
    from iccld.assembly.networks import ARCHITECTURE
    from iccld.assembly.objects import make_parts, optimisations
    from iccld.config import load_config
    from iccld.labels import get_label_space
    from iccld.measure.memory import StageMemory, stage_memory
    from iccld.measure.steps import random_batch
    from iccld.training.engine import Engine

    with TemporaryDirectory() as folder:
        plain = load_config(recipe)
        overrides = ["--runtime.device", device.type]
        if tiny:
            overrides += [*TINY, "--network.denoiser_widths", "32,32", *TINY_NETWORK.get(plain.network.preset, [])]
        if plain.settings.get("kept_views"):
            overrides += ["--settings.kept_views", str(WARM_UP)]  # all of them made before the clock starts
        if plain.network.encoder:
            architecture(plain.network.encoder, tiny).save_pretrained(Path(folder) / ARCHITECTURE)
            overrides += ["--network.encoder", str(Path(folder) / ARCHITECTURE)]
        config = load_config(recipe, overrides)
        engine = Engine(accelerator=device.type, precision="auto")
        space = get_label_space(config.label_space)
        with device:
            parts = make_parts(config, space, run=Path(folder))
            stages = registered_method(config.method).stages(parts, method_settings(config), optimisations(config))
        counted = [] if tiny else stage_memory(config, engine.precision == "bf16")
        estimates = {one.stage: one.expected / 2**30 for one in counted if isinstance(one, StageMemory)}

        def made() -> Iterator[tuple[str, Any, Any]]:
            batch = engine.to_device(random_batch(config, space.num_classes))
            method = None
            for stage in stages:
                with device:
                    method = stage.make_method(method)
                method.setup(engine)
                method.start_round([batch])
                yield stage.name, method, batch

        yield config, engine, made(), estimates


def architecture(name: str, tiny: bool) -> Any:
    """The configuration of a published backbone, so that no hub is needed."""
    from transformers import Dinov2Config, SegformerConfig

    small = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 2, 3, 4]}
    mit = {"hidden_sizes": [64, 128, 320, 512], "depths": [3, 6, 40, 3], "num_attention_heads": [1, 2, 5, 8]}
    vit = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2} if tiny else {}
    if "mit" in name:
        return SegformerConfig(**(small if tiny else mit))
    if "dinov2" in name:
        return Dinov2Config(image_size=518, patch_size=14, **vit)
    raise ValueError(f"{name}: no architecture is written down here")


def step(method: Any, batch: Any, engine: Any, iteration: int) -> None:
    from iccld.measure.steps import one_step

    one_step(method, batch, engine, iteration)


def timed_steps(method: Any, batch: Any, engine: Any) -> tuple[float, float]:
    """Mean seconds of an iteration after the warm-up, and the peak memory in GiB."""
    for iteration in range(WARM_UP):
        step(method, batch, engine, iteration)
    reset_peak(engine.device)
    numbers = iter(range(WARM_UP, WARM_UP + TIMED))
    seconds = clock(lambda: step(method, batch, engine, next(numbers)), engine.device, TIMED)
    return seconds, engine.peak_memory_gib()


if __name__ == "__main__":
    main()
