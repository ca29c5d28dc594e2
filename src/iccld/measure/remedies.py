"""What to change when memory runs out (fault 21); prediction helps itself, see `iccld.predict.memory`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from iccld.config import Config
from iccld.errors import ConfigError, is_out_of_memory
from iccld.training.engine import Engine, bf16_is_fast


@contextmanager
def memory_explained(remedies: Callable[[], str]) -> Iterator[None]:
    """Turn a lack of memory in the block into a ConfigError that says what to change."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise ConfigError(remedies()) from error


def training_remedies(config: Config, engine: Engine) -> str:
    """What did not fit into a training step, and three ways to make it smaller."""
    is_bf16_left = engine.precision == "fp32" and bf16_is_fast(engine.device)
    third = "--runtime.precision bf16" if is_bf16_left else "narrower networks (network.*)"
    return (
        f"out of memory on {engine.device} with batch_size {config.batch_size}, size.crop {config.size.crop} and {engine.precision}; "
        f"use a smaller batch_size, a smaller size.crop, or {third}"
    )


def scoring_remedies() -> str:
    """What to change when the validation pictures do not fit."""
    return (
        "out of memory while scoring; predict in windows (--evaluation.window 256x512), predict at a smaller size.target, or free memory; "
        "--resume auto goes on from the last checkpoint"
    )
