"""What an iteration of step 2 costs beside one of step 1, on a CPU at the sizes of a recipe, as ratios from one run.

    python benchmarks/step2_iteration.py [--recipe city_to_camvid] [--rounds 15] [--threads 1] [--network.denoiser_patch 1]

Random pictures of the recipe's sizes, its networks and batch, with whatever overrides of it are given; reading and decoding of files is in
no figure. Variants live in one process and take turns, so that other work on the machine burdens all alike; seconds are the process' own
(CPU seconds over threads), medians are compared. "fresh" draws, encodes and trains on a new view, of target pictures whose labels of
several views are known; "kept" trains on a view that is there; "labels of a batch" are those of its target pictures, paid once for each
picture, and left out where the recipe's step 2 has labels of its own average.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from iccld.assembly.chosen import method_settings, registered_method
from iccld.assembly.objects import make_parts, optimisations
from iccld.batch import DomainBatch
from iccld.config import load_config
from iccld.labels import get_label_space
from iccld.measure.steps import one_step, random_batch
from iccld.methods.common.iccld_step2 import Step2
from iccld.methods.common.protocol import Method
from iccld.training.allocator import keep_freed_memory
from iccld.training.engine import Engine

VARIANTS: dict[str, tuple[str, dict[str, object]]] = {
    "step 1": ("step1", {}),
    "step 1, labels of the same views": ("step1", {"teacher_scales": [1.0, 1.25, 1.5], "teacher_flip": True}),
    "step 2, fresh": ("step2", {}),
    "step 2, kept": ("step2", {"kept_views": 1}),
    "decoder alone, fresh": ("step2", {"fill": "mean", "mask_ratio": 0.0}),
    "decoder alone, kept": ("step2", {"fill": "mean", "mask_ratio": 0.0, "kept_views": 1}),
    "step 2, encoder trained too": ("step2", {"train_encoder": True}),
    "step 2 with an adversary, kept": ("step2", {"adversarial_weight": 1e-3, "kept_views": 1}),
}
"""Title: stage, and its settings beside the recipe's."""


def made(recipe: str, overrides: list[str], stage: str, settings: dict[str, object]) -> tuple[Method, DomainBatch, Engine]:
    """A method that is ready to step, and a batch."""
    config = load_config(recipe, ["--stages.step1.iterations", "1000", "--stages.step2.iterations", "1000", *overrides])
    config.settings.update(settings)
    engine = Engine(accelerator="cpu", precision="auto", max_norm=1.0)
    engine.channels_last = engine.precision == "bf16"
    space = get_label_space(config.label_space)
    torch.manual_seed(0)
    stages = registered_method("iccld").stages(make_parts(config, space), method_settings(config), optimisations(config))
    batch = random_batch(config, space.num_classes)
    method = next(each for each in stages if each.name == stage).make_method(None)
    method.setup(engine)
    method.start_round([batch])
    return method, batch, engine


def labelling(method: Method, batch: DomainBatch, engine: Engine) -> Callable[[int], None]:
    """Labels the batch's target pictures as if they had never come before."""
    assert isinstance(method, Step2)

    def label(iteration: int) -> None:
        method.labels.forget()
        with engine.autocast():
            method.labels.of(batch)

    return label


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--recipe", default="city_to_camvid")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    arguments, overrides = parser.parse_known_args()
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    runs: dict[str, Callable[[int], None]] = {}
    for title, (stage, settings) in VARIANTS.items():
        method, batch, engine = made(arguments.recipe, overrides, stage, settings)
        runs[title] = lambda iteration, m=method, b=batch, e=engine: one_step(m, b, e, iteration)  # type: ignore[misc]
        if title == "step 2, fresh" and isinstance(method, Step2) and method.labeller is not None:
            runs["labels of a batch"] = labelling(method, batch, engine)
    seconds: dict[str, list[float]] = {title: [] for title in runs}
    for round_ in range(arguments.rounds + 2):
        for title, run in runs.items():
            start = time.process_time()
            run(round_)
            if round_ >= 2:  # the first ones set up, and encode what is kept
                seconds[title].append((time.process_time() - start) / arguments.threads)
    base = seconds["step 1"]
    for title, values in seconds.items():
        ratios = sorted(value / other for value, other in zip(values, base, strict=True))
        quarter = len(ratios) // 4
        spread = f"{ratios[quarter]:.2f}-{ratios[-1 - quarter]:.2f}"
        print(f"{title:34s} {statistics.median(values):.3f} s   {statistics.median(ratios):.2f} of step 1 ({spread})")
    told = f"batch {len(batch.source_image)}, {engine.precision}, {arguments.threads} threads, {arguments.rounds} rounds"
    print(" ".join([f"recipe {arguments.recipe}, {told}", *overrides]))


if __name__ == "__main__":
    main()
