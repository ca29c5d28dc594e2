"""What checkpoints cost in a recipe's training: seconds in saves over seconds in steps, stage by stage, in one process.

    python benchmarks/checkpointing.py [--recipe demo] [--rounds 5] [--threads 2] [--out FOLDER]

Networks, optimisers, batch and crop are the recipe's, pictures are noise.  In each round three steps and one save alternate, with
every fsync; medians are printed, and the share that the recipe's own number of saves takes of its steps.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import torch

from iccld.assembly.chosen import method_settings, registered_method
from iccld.assembly.objects import make_parts, optimisations
from iccld.batch import DomainBatch
from iccld.config import Config, load_config, parse_size
from iccld.labels import get_label_space
from iccld.methods.common.protocol import Method
from iccld.training import checkpoint, snapshot
from iccld.training.allocator import keep_freed_memory
from iccld.training.engine import Engine

STEPS = 3


def noise_batch(config: Config, num_classes: int) -> DomainBatch:
    """A batch of the recipe's size."""
    rows, (height, width) = config.batch_size, parse_size(config.size.source)
    images = torch.randint(0, 256, (2, rows, 3, height, width), dtype=torch.uint8)
    labels = torch.randint(0, num_classes, (rows, height // 16, width // 16)).repeat_interleave(16, 1).repeat_interleave(16, 2)
    return DomainBatch(images[0], labels.to(torch.uint8), images[1], torch.arange(rows), torch.arange(rows))


def measure(method: Method, engine: Engine, batch: DomainBatch, folder: Path, rounds: int) -> tuple[float, float, int]:
    """Median seconds of a step and of a save, and the bytes of a checkpoint."""
    steps, saves = [], []
    for number in range(rounds + 1):
        for position in range(STEPS):
            iteration = number * STEPS + position
            draw = engine.draw(engine.generator(0, "benchmark", iteration))
            start = time.perf_counter()
            with engine.autocast():
                method.step(batch, iteration, draw)
            steps.append(time.perf_counter() - start)
        start = time.perf_counter()
        path = checkpoint.save(folder, number + 1, snapshot.take(method, engine.update, 0, {}, {}))
        saves.append(time.perf_counter() - start)
    num_bytes = sum(file.stat().st_size for file in path.iterdir())
    return statistics.median(steps[STEPS:]), statistics.median(saves[1:]), num_bytes


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--recipe", default="demo")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path, help="folder on the disk to be measured (default: the temporary one)")
    arguments = parser.parse_args()
    config = load_config(arguments.recipe)
    space = get_label_space(config.label_space)
    engine = Engine(max_norm=config.runtime.clip_norm, num_threads=arguments.threads, precision="auto", channels_last=False)
    keep_freed_memory()
    batch = engine.to_device(noise_batch(config, space.num_classes))
    stages = registered_method(config.method).stages(make_parts(config, space), method_settings(config), optimisations(config))
    previous: Method | None = None
    in_saves = in_steps = 0.0
    with tempfile.TemporaryDirectory(dir=arguments.out) as folder:
        for stage in stages:
            method = stage.make_method(previous)
            method.setup(engine)
            method.start_round([batch])
            step, save, num_bytes = measure(method, engine, batch, Path(folder) / stage.name, arguments.rounds)
            num_saves = max(1, -(-stage.iterations // config.runtime.checkpoint_every))  # and the last one always
            in_saves += num_saves * save
            in_steps += stage.iterations * step
            share = 100 * num_saves * save / (stage.iterations * step)
            sizes = f"step {1e3 * step:.0f} ms, save {1e3 * save:.0f} ms of {num_bytes / 2**20:.1f} MiB"
            print(f"{stage.name}: {sizes}, {num_saves} saves in {stage.iterations} steps: {share:.2f} %", flush=True)
            previous = method
    print(f"{arguments.recipe}: {in_saves:.1f} s of saves in {in_steps:.0f} s of steps: {100 * in_saves / in_steps:.2f} %")


if __name__ == "__main__":
    main()
