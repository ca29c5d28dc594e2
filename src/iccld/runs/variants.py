"""A recipe's configuration -> those of an experiment's runs: the shared source stage, another method, another budget."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from iccld.assembly.chosen import registered_method
from iccld.assembly.objects import optimisations
from iccld.config import Config, StageConfig
from iccld.errors import ConfigError
from iccld.labels import get_label_space
from iccld.methods.common.protocol import SOURCE
from iccld.runs.source import source_key


def source_run(config: Config, out: Path) -> Config:
    """The run OUT/<key> that trains nothing but the source stage of `config`; equal keys are one run."""
    key = source_key(config, get_label_space(config.label_space).names)
    stages = {SOURCE: config.stages[SOURCE]}
    return _placed(replace(config, method="source_only", settings={}, stages=stages, source_checkpoint=None), out, key)


def adaptation_run(config: Config, out: Path, name: str, source: Path) -> Config:
    """The run OUT/<name> that starts from a trained source stage and trains the rest of `config`'s."""
    return _placed(replace(config, source_checkpoint=str(source)), out, name)


def after_source(config: Config) -> dict[str, int]:
    """The iterations of the method's own stages, those of `source` apart, in order; stages that are left out are left out."""
    own = {name: stage.iterations for name, stage in optimisations(config).items() if name != SOURCE}
    return {name: iterations for name, iterations in own.items() if iterations}


def with_iterations(config: Config, iterations: Mapping[str, int]) -> Config:
    """The same configuration with these stages after `source`, for so many iterations, and no others."""
    own = {name: replace(config.stages.get(name, StageConfig()), iterations=count) for name, count in iterations.items()}
    return replace(config, stages=_only(config.stages, {SOURCE: config.stages[SOURCE], **own}))


def with_method(config: Config, method: str, budget: int) -> Config:
    """Another method on the same recipe, with exactly `budget` iterations after the source stage.

    Its stages keep the recipe's proportions and schedules where the recipe gives them iterations; otherwise they take the shares the method
    declares, and the schedule of the recipe's first stage after `source`.  The recipe's settings are its own method's; others keep their
    published defaults.
    """
    if budget < 1:
        raise ConfigError(f"a budget of {budget} iterations trains nothing; give at least 1")
    shares = registered_method(method).shares
    given = config.stages
    own = {name: given.get(name, StageConfig()) for name in shares}
    weights = {name: float(stage.iterations) for name, stage in own.items()}
    if not any(weights.values()):
        weights = dict(shares) if any(shares.values()) else dict.fromkeys(shares, 1.0)
        first = next((stage for name, stage in given.items() if name != SOURCE and stage.iterations), None)
        own = own if first is None else dict.fromkeys(own, first)
    counts = shared_out(budget, weights)
    stages = {SOURCE: given[SOURCE], **{name: replace(own[name], iterations=count) for name, count in counts.items()}}
    settings = config.settings if method == config.method else {}
    return replace(config, method=method, settings=settings, stages=_only(config.stages, stages))


def shared_out(total: int, weights: Mapping[str, float]) -> dict[str, int]:
    """Whole numbers in proportion to the weights that sum to the total: the largest remainders are rounded up."""
    whole = sum(weights.values())
    exact = {name: total * weight / whole for name, weight in weights.items()}
    counts = {name: int(value) for name, value in exact.items()}
    for name in sorted(exact, key=lambda name: counts[name] - exact[name])[: total - sum(counts.values())]:
        counts[name] += 1
    return counts


def _only(stages: Mapping[str, StageConfig], kept: Mapping[str, StageConfig]) -> dict[str, StageConfig]:
    """These stages, and no iterations for any other."""
    return {name: replace(stage, iterations=0) for name, stage in stages.items()} | dict(kept)


def _placed(config: Config, out: Path, name: str) -> Config:
    return replace(config, name=name, runtime=replace(config.runtime, out=str(out), resume="auto"))
