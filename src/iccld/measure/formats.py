"""The fastest number format, measured: fp32 and bf16, weights channels first and last, on the very step or picture.

What a CPU's flags promise is not what a network gets: of two on one machine, one was fastest in fp32 with channels last and the other in
bf16 with channels first.  A choice is kept in the cache folder by machine, threads, PyTorch, network and size, and in the
run, which goes on in it whatever is measured later: numbers depend on the format, and must not on the noise of a clock.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from iccld.assembly.objects import make_engine, optimisations, with_layout
from iccld.config import Config, parse_size
from iccld.data.check import cache_folder
from iccld.errors import is_out_of_memory
from iccld.evaluation.evaluate import device_of, evaluation_mode
from iccld.files import read_json, write_json
from iccld.machine import cpu_name, forced_bf16
from iccld.measure.steps import one_step, ready_stages
from iccld.predictor import Predictor
from iccld.progress import say
from iccld.training.engine import Engine, NumberFormat, bf16_is_fast, usual_format

CACHE = "formats.json"
"""In the cache folder: what was measured, by the digest of what it was measured on."""
LEAST_WORK = 40e6
"""Pixels of training crops that a run steps on, below which it takes about a minute at most and nothing is timed: the demo has 64e6."""
LEAST_PICTURE = 128 * 128
"""Pixels that a network sees of a picture, below which nothing is timed either."""
TIMED_SECONDS = 0.25
"""Least time of the timed steps of one format."""
TIMED_STEPS = 2
"""Least number of them; one comes before, for set-up."""
CLEARLY = 0.93
"""Share of the usual format's time that another must not exceed to be chosen instead: clocks are noisy."""


def training_format(config: Config, engine: Engine, run: Path | None = None, times: bool = True) -> NumberFormat:
    """The number format that the run's networks train in.  engine: made for the configuration.

    A precision that is named, `runtime.precision fp32`, `bf16` or `native`, is the engine's own; so it is where nothing is timed: on a GPU,
    with several devices, networks that are not small, a run of less than about a minute, and ICCLD_BF16=on.  A `run` that has begun goes on
    as it began.  Otherwise what was measured here before is taken, or, if it `times`, measured now.
    """
    runtime, usual = config.runtime, engine.format
    if runtime.precision in ("fp32", "bf16"):
        return usual
    if run is not None and runtime.resume == "auto" and (kept := _kept(run)) is not None:
        if kept.precision != "bf16" or bf16_is_fast(engine.device):
            return with_layout(kept, runtime.layout)
        say(f"note: {run} was begun in bf16, which this {engine.device.type} does not multiply; it goes on in {usual}")
        return usual
    is_one = runtime.devices == 1 and int(os.environ.get("WORLD_SIZE", "1")) == 1
    if runtime.precision == "native" or engine.device.type != "cpu" or not is_one or not config.network.is_small:
        return usual
    if _work(config) < LEAST_WORK or forced_bf16():
        return usual
    stage = max(_trained(config), key=lambda name: _trained(config)[name])
    seen = {name: asdict(getattr(config, name)) for name in ("network", "size", "augmentation")}
    about = {"train": config.method, "settings": config.settings, "stage": stage, "batch": config.batch_size, **seen}
    candidates = _candidates(engine.device, runtime.layout)
    return _fastest(about, usual, candidates, lambda wanted: _step_seconds(config, stage, wanted), times)


def predicting_format(predictor: Predictor, size: tuple[int, int] = (512, 1024)) -> NumberFormat:
    """The fastest format in which the predictor answers with one thread; size: (H, W) of a picture where it has no working size.

    Its precision by the CPU's flags where nothing is timed: on a GPU, at small sizes, and with ICCLD_BF16=on.
    """
    device = device_of(predictor)
    usual = usual_format("bf16" if bf16_is_fast(device) else "fp32")
    shown = predictor.prepared_size(*(predictor.working_size or size))
    if device.type != "cpu" or shown[0] * shown[1] < LEAST_PICTURE or forced_bf16():
        return usual
    weights = [(name, list(tensor.shape)) for name, tensor in predictor.state_dict().items()]
    about = {"predict": weights, "size": shown, "window": predictor.window, "noise": predictor.noise_channels}
    with _as_it_was(predictor):
        return _fastest(about, usual, _candidates(device, "auto"), lambda wanted: _picture_seconds(predictor, shown, wanted), True)


def _trained(config: Config) -> dict[str, int]:
    """Iterations of the stages that the run trains itself."""
    iterations = {name: stage.iterations for name, stage in optimisations(config).items()}
    names = list(iterations)
    if config.source_checkpoint is not None and config.checkpoint_stage in names:
        names = names[names.index(config.checkpoint_stage) + 1 :]
    return {name: iterations[name] for name in names if iterations[name]}


def _work(config: Config) -> float:
    height, width = parse_size(config.size.crop)
    return sum(_trained(config).values()) * config.batch_size * height * width


def _kept(run: Path) -> NumberFormat | None:
    """What a run began in; earlier releases kept the precision alone."""
    told = read_json(run / "environment.json")
    return _read(told.get("precision"), told.get("channels_last", told.get("precision") == "bf16"))


def _read(precision: object, channels_last: object) -> NumberFormat | None:
    if isinstance(precision, str) and precision in ("fp32", "bf16") and isinstance(channels_last, bool):
        return NumberFormat(precision, channels_last)
    return None


def _candidates(device: torch.device, layout: str) -> list[NumberFormat]:
    precisions = ("fp32", "bf16") if bf16_is_fast(device) else ("fp32",)
    return list(dict.fromkeys(with_layout(NumberFormat(p, last), layout) for p in precisions for last in (False, True)))


def _fastest(
    about: Mapping[str, Any],
    usual: NumberFormat,
    candidates: list[NumberFormat],
    seconds: Callable[[NumberFormat], float],
    times: bool,
) -> NumberFormat:
    """The candidate that is on record for all this on this machine, or else timed as the fastest and recorded."""
    machine = [cpu_name(), torch.get_num_threads(), torch.__version__, candidates]
    key = hashlib.blake2s(json.dumps([about, machine], sort_keys=True, default=str).encode()).hexdigest()[:24]
    path = cache_folder() / CACHE
    known = read_json(path)
    entry = known.get(key)
    found = _read(entry.get("precision"), entry.get("channels_last")) if isinstance(entry, dict) else None
    if found in candidates or not times:
        return found if found in candidates else usual
    took = {wanted: _or_never(seconds, wanted) for wanted in candidates}
    best = min(took, key=lambda wanted: took[wanted])
    if usual in took and took[best] > CLEARLY * took[usual]:
        best = usual
    milliseconds = {str(wanted): round(1000 * each, 1) for wanted, each in took.items() if each < float("inf")}
    say(f"number format: {best} ({'; '.join(f'{name}: {each:g} ms' for name, each in milliseconds.items())})")
    entry = {"precision": best.precision, "channels_last": best.channels_last, "milliseconds": milliseconds}
    with suppress(OSError):  # a cache that cannot be written: the run keeps the choice
        write_json(path, {**read_json(path), key: entry}, is_shared=True)
    return best


def _or_never(seconds: Callable[[NumberFormat], float], wanted: NumberFormat) -> float:
    try:
        return seconds(wanted)
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            return float("inf")
        raise


def _step_seconds(config: Config, stage: str, wanted: NumberFormat) -> float:
    """Of a step of the stage on random pictures."""
    engine = make_engine(config)
    engine.format = wanted
    _, method, batch = next(ready for ready in ready_stages(config, engine) if ready[0].name == stage)
    return _least_seconds(lambda iteration: one_step(method, batch, engine, iteration))


def _picture_seconds(predictor: Predictor, size: tuple[int, int], wanted: NumberFormat) -> float:
    """Of a random picture of the size that the network sees, with one thread."""
    layout = torch.channels_last if wanted.channels_last else torch.contiguous_format
    predictor.to(memory_format=layout)  # type: ignore[call-overload]
    predictor.precision = wanted.precision
    picture = torch.randint(0, 256, (1, 3, *size), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with evaluation_mode(predictor), torch.inference_mode():
            return _least_seconds(lambda _: predictor.view_logits(picture))
    finally:
        torch.set_num_threads(threads)


def _least_seconds(work: Callable[[int], object]) -> float:
    """The least time of a call, of a few and of a quarter of a second at least, after another one; the processor's, which other processes
    change less than the clock's: threads that wait for each other count, since they keep their cores."""
    seconds: list[float] = []
    while len(seconds) < 1 + TIMED_STEPS or sum(seconds[1:]) < TIMED_SECONDS:
        start = time.process_time()
        work(len(seconds))
        seconds.append(time.process_time() - start)
    return min(seconds[1:])


@contextmanager
def _as_it_was(predictor: Predictor) -> Iterator[None]:
    precision = predictor.precision
    try:
        yield
    finally:
        predictor.precision = precision
        predictor.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
