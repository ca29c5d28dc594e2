"""The paper's recipe at its real size on a CPU: one iteration of each stage, and one 2048x1024 prediction with 1 and with 50 DDIM steps.

    python benchmarks/paper_size.py [--only source step2] [--threads 1] [-- --size.crop 64x64 ...]

Pictures are drawn at the datasets' sizes, 1914x1052 and 2048x1024, once.  Data, networks, stages and engine are those that `iccld adapt`
builds from the recipe; what follows `--` overrides it.  Each item is a process of its own, so that its peak is its own, and starts from
fresh weights, on which neither time nor memory depends.  The scale of step 2's latents is measured on one batch instead of eight, before
the iteration.  Seconds are the wall's; CPU seconds, of all threads, tell how much of them the process had.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

RECIPE = "gta5_to_cityscapes_paper"
SCENES = {"source": "2 sim gta5 1052x1914", "target": "2 camera cityscapes 1024x2048", "val": "1 camera cityscapes 1024x2048"}
ITEMS = ("source", "step1", "step2", "predict-1", "predict-50")
COLUMNS = ("item", "set-up s", "seconds", "CPU s", "peak GiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", default=RECIPE)
    parser.add_argument("--only", nargs="+", choices=ITEMS, default=ITEMS)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--item", choices=ITEMS, help=argparse.SUPPRESS)
    parser.add_argument("overrides", nargs="*", help="settings of the recipe to change, after --")
    given = parser.parse_args()
    if given.item:
        print(json.dumps(measure(given.item, given.recipe, given.threads, given.overrides)))
        return
    print(f"| {' | '.join(COLUMNS)} |\n|---{'|---:' * (len(COLUMNS) - 1)}|", flush=True)
    for item in given.only:
        options = ["--recipe", given.recipe, "--threads", str(given.threads), "--item", item, "--", *given.overrides]
        child = subprocess.run([sys.executable, __file__, *options], stdout=subprocess.PIPE, text=True, check=True)
        told = json.loads(child.stdout)
        print(f"| {item} | {told['setup']:.1f} | {told['wall']:.2f} | {told['cpu']:.2f} | {told['peak']:.2f} |", flush=True)


def measure(item: str, recipe: str, threads: int, overrides: list[str]) -> dict[str, float]:
    """Seconds before and of one item, its CPU seconds, and the peak of this process in GiB."""
    from iccld.assembly.chosen import method_settings, registered_method
    from iccld.assembly.objects import make_parts, open_data, optimisations
    from iccld.config import load_config
    from iccld.training.allocator import keep_freed_memory
    from iccld.training.engine import Engine

    start = time.monotonic()
    keep_freed_memory()
    config = load_config(recipe, [*drawn_scenes(), "--runtime.device", "cpu", "--runtime.threads", str(threads), *overrides])
    runtime = config.runtime
    engine = Engine(accelerator="cpu", precision=runtime.precision, max_norm=runtime.clip_norm, num_threads=runtime.threads)
    engine.channels_last = engine.precision == "bf16"
    data = open_data(config)
    made = registered_method(config.method).stages(make_parts(config, data.label_space), method_settings(config), optimisations(config))
    stages = {stage.name: stage for stage in made}
    name, _, steps = item.replace("predict", "step2").partition("-")
    engine.seed_global(config.seed, name, -1)
    method = stages[name].make_method(None)
    method.setup(engine)
    told: dict[str, float] = {}
    if steps:
        predict(method, int(steps), engine, data, told)
    else:
        iterate(method, name, engine, config, data, told)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # Linux counts in KiB
    return {"setup": told["start"] - start, "wall": told["wall"], "cpu": told["cpu"], "peak": peak}


def drawn_scenes() -> list[str]:
    """Pictures of the datasets' own sizes and layouts."""
    words = []
    for domain, scenes in SCENES.items():
        for key, value in zip(("num", "world", "layout", "size"), scenes.split(), strict=True):
            words += [f"--{domain}.generate.{key}", value]
    return words


def iterate(method: Any, stage: str, engine: Any, config: Any, data: Any, told: dict[str, float]) -> None:
    """The stage's first iteration, as `iccld.training.loop` makes it, on the first batch of the loader."""
    import torch

    from iccld.assembly.objects import pair_dataset
    from iccld.data.pairs import pair_loader

    (batch,) = pair_loader(pair_dataset(config, data), 0, 1)
    method.start_round([batch])
    with timed(told):
        engine.seed_global(config.seed, stage, 0)
        with engine.autocast():
            losses = method.step(batch, 0, engine.draw(engine.generator(config.seed, stage, 0)))
    numbers = {name: round(value.item(), 4) for name, value in losses.items() if value.numel() == 1}
    print(f"{stage}: {json.dumps(numbers)}", file=sys.stderr, flush=True)
    if engine.update.skipped or not all(torch.isfinite(value).all() for value in losses.values()):
        sys.exit(f"{stage}: the iteration made no update; losses {numbers}")


def predict(method: Any, steps: int, engine: Any, data: Any, told: dict[str, float]) -> None:
    """One picture of the validation split, predicted and scored as the recipe evaluates; each denoising step is told as it is done."""
    from iccld.evaluation import evaluate

    predictor = method.predictor(method.headline_weights, steps)
    predictor.precision = engine.precision
    done: list[float] = []

    def tell(*_: Any) -> None:
        done.append(time.monotonic())
        seconds = f"{done[-1] - told['start']:.1f} s ({cpu_seconds() - told['cpu_start']:.1f} of CPU) after the start"
        print(f"predict-{steps}: step {len(done)}, {seconds}", file=sys.stderr, flush=True)

    predictor.network.denoiser.register_forward_hook(tell)
    with timed(told):
        evaluate(predictor, data.val, data.label_space, limit=1)
    if len(done) != steps:
        sys.exit(f"predict-{steps}: the denoiser ran {len(done)} times")


@contextmanager
def timed(told: dict[str, float]) -> Iterator[None]:
    """Note the start, wall seconds and CPU seconds of what happens inside."""
    told["start"], told["cpu_start"] = time.monotonic(), cpu_seconds()
    yield
    told["wall"], told["cpu"] = time.monotonic() - told["start"], cpu_seconds() - told["cpu_start"]


def cpu_seconds() -> float:
    """CPU seconds of this process so far, of all its threads."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
