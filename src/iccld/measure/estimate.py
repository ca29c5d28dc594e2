"""Time, memory and disk of a run, measured on a few real steps before it starts."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import torch

from iccld.assembly.domains import open_domain
from iccld.assembly.objects import make_engine
from iccld.assembly.scoring import scoring_predictor
from iccld.batch import DomainBatch
from iccld.config import Config, DomainConfig, parse_size
from iccld.labels import get_label_space
from iccld.measure.alignment import GAP_ROWS, PICTURES
from iccld.measure.cost import seconds_per_picture
from iccld.measure.formats import training_format
from iccld.measure.steps import one_step, ready_stages
from iccld.methods.common.protocol import SOURCE, DiffusionMethod, Method, Stage
from iccld.training.allocator import keep_freed_memory
from iccld.training.engine import Engine

TIMED_STEPS = 2
"""Steps timed after the first, whose time is spent on set-up."""

WARMUP_STEPS = 5
"""Steps before the timed ones where a budget is fixed by time."""

REST_SHARE = 0.05
"""Time for checkpoints, pictures and the report, on top of steps and scores."""

BYTES_PER_PIXEL = 1.9
"""A generated scene on disk, image and label, in bytes per pixel."""


def estimate(config: Config) -> dict[str, float]:
    """seconds, scoring_seconds, memory_gib and disk_gib of the training, from a few steps and predictions of each stage on random pictures.

    scoring_seconds is a part of the seconds.  Reading and drawing of data is in neither; memory is this process's peak with the pictures
    held in memory.
    """
    engine = _engine(config)
    engine.format = training_format(config, engine, times=False)
    splits = _scored_splits(config)
    seconds, scoring, checkpoint_bytes = 0.0, 0.0, 0
    for stage, method, batch in ready_stages(config, engine):
        seconds += stage.iterations * _mean_step_seconds(stage, method, batch, engine)
        scoring += _scoring_seconds(config, stage, method, splits, engine)
        checkpoint_bytes += _checkpoint_bytes(method) * (config.runtime.keep_last + 1)
    scenes = [domain for domain in (config.source, config.target, config.val) if domain.path is None and domain.generate.num]
    scene_bytes = sum(domain.generate.num * BYTES_PER_PIXEL * _area(domain.generate.size) for domain in scenes)
    return {
        "seconds": (seconds + scoring) * (1 + REST_SHARE),
        "scoring_seconds": scoring,
        "memory_gib": engine.peak_memory_gib() + _cached_bytes(config) / 2**30,
        "disk_gib": (checkpoint_bytes + scene_bytes) / 2**30,
    }


def seconds_per_step(config: Config, steps: int = 20) -> dict[str, float]:
    """Mean seconds of a step of each stage after `source`, timed after `WARMUP_STEPS` others, on random pictures."""
    engine = _engine(config)
    found = {}
    for stage, method, batch in ready_stages(config, engine):
        if stage.name != SOURCE:
            found[stage.name] = sum(_step_seconds(method, batch, engine, range(WARMUP_STEPS + steps))[WARMUP_STEPS:]) / steps
    return found


def _engine(config: Config) -> Engine:
    keep_freed_memory()
    return make_engine(config)


def _scored_splits(config: Config) -> dict[str, tuple[int, tuple[int, int]]]:
    """`val` and `source_val` as far as there are any: number of pictures, and the size (H, W) of the first."""
    splits = {}
    domains = {"val": config.val} | ({"source_val": config.source} if config.source.holdout else {})
    for name, domain in domains.items():
        num, size = domain.generate.num, parse_size(domain.generate.size)
        if domain.path is not None:
            usual = "val" if name == "val" else "train"
            dataset = open_domain(domain, get_label_space(config.label_space), labels=True, usual_split=usual)
            assert dataset is not None
            height, width, _ = dataset.read_image(0).shape
            num, size = len(dataset), (height, width)
        if num:
            splits[name] = config.source.holdout if name == "source_val" else num, size
    return splits


def _scoring_seconds(
    config: Config, stage: Stage, method: Method, splits: Mapping[str, tuple[int, tuple[int, int]]], engine: Engine
) -> float:
    """Scoring a stage, at its end and on the way, at the speed of one picture of each split."""
    predictor = scoring_predictor(config, method, method.headline_weights, engine)
    every = config.runtime.evaluate_every
    between = (stage.iterations - 1) // every if every else 0
    at_end = {"val": 2 if method.ema_networks() else 1, "source_val": 1}
    pictures = {name: num * (between + at_end[name]) for name, (num, _) in splits.items()}
    seconds = sum(pictures[name] * seconds_per_picture(predictor, size) for name, (_, size) in splits.items())
    if isinstance(method, DiffusionMethod) and method.samples:
        seconds += (GAP_ROWS + 2 * PICTURES) * seconds_per_picture(predictor, parse_size(config.size.target))
        compared = min(splits["val"][0], config.evaluation.compare_images) if "val" in splits else 0
        for steps in config.evaluation.compare_steps if compared and method.is_stepwise else ():
            sampler = scoring_predictor(config, method, method.headline_weights, engine, steps)
            seconds += compared * seconds_per_picture(sampler, splits["val"][1])
    return seconds


def _area(size: str) -> int:
    height, width = parse_size(size)
    return height * width


def _cached_bytes(config: Config) -> float:
    def held(domain: DomainConfig, size: str, channels: int) -> int:
        return domain.generate.num * _area(size) * channels

    return held(config.source, config.size.source, 4) + held(config.target, config.size.target, 3)


def _step_seconds(method: Method, batch: DomainBatch, engine: Engine, iterations: Sequence[int]) -> list[float]:
    """Seconds of the step at each of these iterations."""
    seconds = []
    for iteration in iterations:
        start = time.perf_counter()
        one_step(method, batch, engine, iteration)
        if engine.device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return seconds


def _mean_step_seconds(stage: Stage, method: Method, batch: DomainBatch, engine: Engine) -> float:
    """Mean of a step at the stage's start, set-up apart, and at its end: the first steps may see smaller pictures."""
    last = [max(0, stage.iterations - 1)] * TIMED_STEPS
    seconds = _step_seconds(method, batch, engine, [*range(TIMED_STEPS + 1), *last])
    return (min(seconds[1 : TIMED_STEPS + 1]) + min(seconds[TIMED_STEPS + 1 :])) / 2


def _checkpoint_bytes(method: Method) -> int:
    def size(network: torch.nn.Module) -> int:
        return sum(p.numel() * p.element_size() for p in network.parameters())

    trained = sum(size(network) for network in method.networks().values())
    averaged = sum(size(network) for network in method.ema_networks().values())
    return 3 * trained + averaged  # the weights and Adam's two moments
