"""A training step of each stage, before and after a change: time, the share of convolutions in it, and its loss.

    python benchmarks/training_step.py [--before SRC] [--plain] [--other FLAGS] [--recipe city_to_camvid] [--rounds 15] [--threads 1]
                                       [--sizes 448x608 288x384] [--method cluda --stages adapt]

SRC is `src` of another commit, for example of `git worktree add ../before 23ecd24`.  `--plain` adds this tree with the encoder's layers
left to PyTorch's own convolution and gradients, `--other "--network.encoder_training full"` this tree with other settings.  All take the
very same steps on random pictures, each in a process of its own, step by step in turns, so that other work on the machine burdens all
alike.  Seconds are the processor's over threads; medians are compared, with the first row's.  The share is that of convolutions and
products of matrices in a step, counted operation by operation.  The losses are those of the first step and of the last; all begin with
the same weights and draws.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

STAGES = ("source", "step1")
PRODUCTS = ("convolution", "mm", "linear_pointwise", "gemm")
"""Parts of the names of the operations that count as convolutions and products."""
WARM_UP = 2
PLAIN, OTHER = "plain", "other"
SIZES = ("352x480", "192x256")
"""Working size and windows of every tree alike, whatever its recipe says: `city_to_camvid`'s until scenes of version 11."""


def sized(working: str, crop: str) -> list[str]:
    """The settings of these sizes."""
    return ["--size.source", working, "--size.target", working, "--size.crop", crop]


def of_method(recipe: str, name: str | None) -> list[str]:
    """The method and this tree's settings of it on a recipe that was not made for it, for every tree alike."""
    from iccld.config import load_config
    from iccld.methods import METHODS

    if name is None or load_config(recipe).method == name:
        return []
    return ["--method", name, *(f"--settings.{key}={value}" for key, value in METHODS[name].elsewhere.items())]


def prepared(recipe: str, stage: str, threads: int, flags: Sequence[str]) -> tuple[Any, Any, Any]:
    """The stage's method on fresh weights, a batch, and an engine; flags: settings beside the recipe's."""
    import torch

    from iccld.assembly.chosen import method_settings, registered_method
    from iccld.assembly.objects import make_engine, make_parts, optimisations
    from iccld.batch import DomainBatch
    from iccld.config import load_config, parse_size
    from iccld.labels import get_label_space
    from iccld.training.allocator import keep_freed_memory

    keep_freed_memory()
    config = load_config(recipe, ["--runtime.device", "cpu", "--runtime.threads", str(threads), *flags])
    engine = make_engine(config, max_norm=config.runtime.clip_norm)
    space = get_label_space(config.label_space)
    torch.manual_seed(0)
    stages = registered_method(config.method).stages(make_parts(config, space), method_settings(config), optimisations(config))
    made = {each.name: each for each in stages}
    method = made[stage].make_method(None if stage == "source" else made["source"].make_method(None))
    method.setup(engine)
    height, width = parse_size(config.size.source)
    coarse = torch.randint(0, space.num_classes, (config.batch_size, height // 16, width // 16), dtype=torch.uint8)
    label = coarse.repeat_interleave(16, 1).repeat_interleave(16, 2)
    noise = torch.randint(0, 64, (config.batch_size, 3, *label.shape[1:]), dtype=torch.uint8)
    image = noise + 16 * label[:, None]
    rows = torch.arange(config.batch_size)
    return method, DomainBatch(image, label, image.flip(3), rows, rows), engine


def take(method: Any, batch: Any, engine: Any, stage: str, number: int) -> dict[str, float]:
    """One step at full resolution: seconds of the processor, and the sum of its losses."""
    half_until = int(getattr(method, "half_until", 0))
    engine.seed_global(0, stage, number)
    draw = engine.draw(engine.generator(0, stage, number))
    began = time.process_time()
    with engine.autocast():
        losses = method.step(batch, half_until + number, draw)
    seconds = time.process_time() - began
    return {"seconds": seconds, "loss": sum(float(losses[name]) for name in ("source", "mixed") if name in losses)}


def products(method: Any, batch: Any, engine: Any, stage: str, number: int) -> float:
    """Seconds of the processor that convolutions and products take in one step."""
    from torch.utils._python_dispatch import TorchDispatchMode

    spent: list[float] = []

    class Counting(TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
            began = time.thread_time()
            answer = function(*arguments, **(options or {}))
            if any(part in str(function) for part in PRODUCTS):
                spent.append(time.thread_time() - began)
            return answer

    with Counting():  # type: ignore[no-untyped-call]
        take(method, batch, engine, stage, number)
    return sum(spent)


def serve(recipe: str, stage: str, threads: int, is_plain: bool, flags: Sequence[str]) -> None:
    """Answer each line "step N" or "products N" of the standard input with one line of JSON."""
    if is_plain:
        from encoder_step import autograd  # beside this file
        from iccld.models import efficientnet

        efficientnet.convolution = autograd  # type: ignore[attr-defined]
        efficientnet.ConvNorm.learns = lambda *_: True  # type: ignore[method-assign]  # else some passes take another way
    method, batch, engine = prepared(recipe, stage, threads, flags)
    for line in sys.stdin:
        what, number = line.split()
        work = take if what == "step" else products
        print("answer", json.dumps(work(method, batch, engine, stage, int(number))), flush=True)


class Tree:
    """A process that takes one stage's steps with the package of one tree."""

    def __init__(self, source: str, given: argparse.Namespace, stage: str, name: str) -> None:
        command = [sys.executable, __file__, "--serve", stage, "--recipe", given.recipe, "--threads", str(given.threads)]
        command += ["--plain"] if name == PLAIN else []
        command += [f"--other={given.other}"] if name == OTHER else []
        command += ["--sizes", *given.sizes, f"--flags={' '.join(of_method(given.recipe, given.method))}"]
        environment = {**os.environ, "PYTHONPATH": source, "OMP_NUM_THREADS": str(given.threads)}
        self.process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, line: str) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        for answer in self.process.stdout:
            if answer.startswith("answer "):
                return json.loads(answer.removeprefix("answer "))
        raise SystemExit("a measured process ended early")

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def compared(stage: str, trees: dict[str, str], given: argparse.Namespace) -> None:
    """Print one stage's rows."""
    running = {name: Tree(source, given, stage, name) for name, source in trees.items()}
    steps: dict[str, list[dict[str, float]]] = {name: [] for name in trees}
    for number in range(WARM_UP + given.rounds):
        for name, tree in running.items():
            steps[name].append(tree.ask(f"step {number}"))
    shares: dict[str, list[float]] = {name: [] for name in trees}
    for number in range(WARM_UP + given.rounds, WARM_UP + given.rounds + max(3, given.rounds // 4)):
        for name, tree in running.items():
            shares[name].append(tree.ask(f"products {number}"))
    for tree in running.values():
        tree.close()
    times = {name: [row["seconds"] / given.threads for row in rows[WARM_UP:]] for name, rows in steps.items()}
    base = statistics.median(next(iter(times.values())))
    for name, seconds in times.items():
        middle = statistics.median(seconds)
        share = statistics.median(shares[name]) / given.threads / middle
        first, last = steps[name][0]["loss"], steps[name][-1]["loss"]
        told = f"{1e3 * middle:7.1f} ms  iterations/s x {base / middle:.2f}  products {100 * share:3.0f} %"
        print(f"{stage:7s} {name:7s} {told}  losses {first:.5f} {last:.5f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--before", metavar="SRC", help="`src` of another commit")
    parser.add_argument("--plain", action="store_true", help="this tree, with PyTorch's own convolution in the encoder's layers")
    parser.add_argument("--other", metavar="FLAGS", default="", help="this tree, with these settings beside the recipe's")
    parser.add_argument("--recipe", default="city_to_camvid")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--stages", nargs="+", default=STAGES)
    parser.add_argument("--method", help="another method than the recipe's, as `compare` sets it; its stage is mostly called adapt")
    parser.add_argument("--sizes", nargs=2, metavar=("WORKING", "CROP"), default=SIZES, help="height x width, say 448x608 288x384")
    parser.add_argument("--serve", metavar="STAGE", help=argparse.SUPPRESS)
    parser.add_argument("--flags", default="", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        flags = [*sized(*given.sizes), *given.flags.split(), *given.other.split()]
        serve(given.recipe, given.serve, given.threads, given.plain, flags)
        return
    own = str(Path(__file__).resolve().parents[1] / "src")
    trees = {PLAIN: own} if given.plain else {}
    trees |= {"before": given.before} if given.before else {}
    trees |= {OTHER: own} if given.other else {}
    trees |= {"now": own}
    sizes = " in windows of ".join(given.sizes)
    print(f"{given.recipe} at {sizes}, {given.threads} thread(s), medians of {given.rounds} steps taken in turns")
    for stage in given.stages:
        compared(stage, trees, given)


if __name__ == "__main__":
    main()
