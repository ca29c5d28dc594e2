"""A recipe's configuration -> those of an experiment's runs: the shared source stage, another method, budget or network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from iccld.assembly.chosen import registered_method
from iccld.assembly.networks import build_networks, keep_architecture
from iccld.assembly.objects import optimisations
from iccld.config import Config, NetworkConfig, Optimisation
from iccld.errors import ConfigError
from iccld.labels import get_label_space
from iccld.methods.common.protocol import SOURCE
from iccld.runs.source import source_key

MATCH = 0.02
"""Largest difference in parameters, as a share, of two networks that are called equally large."""


def source_run(config: Config, out: Path) -> Config:
    """The run OUT/<key> that trains nothing but the source stage of `config`; equal keys are one run."""
    key = source_key(config, get_label_space(config.label_space).names)
    stages = {SOURCE: config.stages[SOURCE]}
    return _placed(replace(config, method="source_only", settings={}, stages=stages, source_checkpoint=None), out, key)


def adaptation_run(config: Config, out: Path, name: str, source: Path, stage: str = SOURCE) -> Config:
    """The run OUT/<name> that starts from a trained stage, by default `source`, and trains the rest of `config`'s."""
    return _placed(replace(config, source_checkpoint=str(source), checkpoint_stage=stage), out, name)


def after_source(config: Config) -> dict[str, int]:
    """The iterations of the method's own stages, those of `source` apart, in order; stages that are left out are left out."""
    own = {name: stage.iterations for name, stage in optimisations(config).items() if name != SOURCE}
    return {name: iterations for name, iterations in own.items() if iterations}


def to_train(config: Config) -> dict[str, int]:
    """The iterations of the stages that a run of this configuration trains itself, in order."""
    if config.source_checkpoint is None:
        return {SOURCE: config.stages[SOURCE].iterations}
    own = {SOURCE: config.stages[SOURCE].iterations, **after_source(config)}
    return dict(list(own.items())[list(own).index(config.checkpoint_stage) + 1 :])


def with_iterations(config: Config, iterations: Mapping[str, int]) -> Config:
    """The same configuration with these stages after `source`, for so many iterations, and no others."""
    own = {name: replace(config.stages.get(name, Optimisation()), iterations=count) for name, count in iterations.items()}
    return replace(config, stages=_only(config.stages, {SOURCE: config.stages[SOURCE], **own}))


def with_method(config: Config, method: str, budget: int) -> Config:
    """Another method on the same recipe, with exactly `budget` iterations after the source stage.

    Its stages keep the recipe's proportions and schedules where the recipe gives them iterations; otherwise they take the shares the method
    declares, and the schedule of the recipe's first stage after `source`.  The recipe's settings are its own method's; others keep their
    published defaults, and what they take on other methods' recipes (`Registered.elsewhere`).
    """
    if budget < 1:
        raise ConfigError(f"a budget of {budget} iterations trains nothing; give at least 1")
    registered = registered_method(method)
    shares = registered.shares
    given = config.stages
    own = {name: given.get(name, Optimisation()) for name in shares}
    weights = {name: float(stage.iterations) for name, stage in own.items()}
    if not any(weights.values()):
        weights = dict(shares) if any(shares.values()) else dict.fromkeys(shares, 1.0)
        first = next((stage for name, stage in given.items() if name != SOURCE and stage.iterations), None)
        own = own if first is None else dict.fromkeys(own, first)
    counts = shared_out(budget, weights)
    stages = {SOURCE: given[SOURCE], **{name: replace(own[name], iterations=count) for name, count in counts.items()}}
    settings = config.settings if method == config.method else dict(registered.elsewhere)
    return replace(config, method=method, settings=settings, stages=_only(config.stages, stages))


def matched_network(config: Config) -> NetworkConfig:
    """The network without the inter-coder connection whose decoder is so wide that its encoder and decoder have as many parameters.

    The nearest width; ConfigError where even that misses by more than `MATCH`, or where the preset's decoder has no width to choose.
    """
    connected = replace(config.network, inter_coder=True)
    if not connected.decoder_width:
        raise ConfigError(
            f"network.preset {connected.preset} has a decoder without a width to choose: none can be matched; use --networks without,with"
        )
    num_classes = get_label_space(config.label_space).num_classes
    with TemporaryDirectory() as folder:
        keep_architecture(connected, Path(folder))  # a backbone's shape is enough, its weights are not read

        def num_parameters(network: NetworkConfig) -> int:
            with torch.device("meta"):
                segmenter = build_networks(network, num_classes, Path(folder)).make_segmenter()
            return sum(parameter.numel() for parameter in segmenter.parameters())

        def wide(width: int) -> NetworkConfig:
            return replace(connected, inter_coder=False, decoder_width=width)

        wanted = num_parameters(connected)
        low, high = connected.decoder_width, 2 * connected.decoder_width
        while num_parameters(wide(high)) < wanted:
            low, high = high, 2 * high
        while high - low > 1:  # more width, more parameters
            middle = (low + high) // 2
            low, high = (middle, high) if num_parameters(wide(middle)) < wanted else (low, middle)
        off, found = min((abs(num_parameters(one) - wanted) / wanted, one.decoder_width) for one in (wide(low), wide(high)))
    if off > MATCH:
        raise ConfigError(f"network: no decoder without the connection comes nearer than {off:.1%} of its {wanted:,} parameters")
    return wide(found)


def shared_out(total: int, weights: Mapping[str, float]) -> dict[str, int]:
    """Whole numbers in proportion to the weights that sum to the total: the largest remainders are rounded up."""
    whole = sum(weights.values())
    exact = {name: total * weight / whole for name, weight in weights.items()}
    counts = {name: int(value) for name, value in exact.items()}
    for name in sorted(exact, key=lambda name: counts[name] - exact[name])[: total - sum(counts.values())]:
        counts[name] += 1
    return counts


def _only(stages: Mapping[str, Optimisation], kept: Mapping[str, Optimisation]) -> dict[str, Optimisation]:
    """These stages, and no iterations for any other."""
    return {name: replace(stage, iterations=0) for name, stage in stages.items()} | dict(kept)


def _placed(config: Config, out: Path, name: str) -> Config:
    # One number format for all: what one network is fastest in must not be a difference between two.
    precision = "native" if config.runtime.precision == "auto" else config.runtime.precision
    runtime = replace(config.runtime, out=str(out), resume="auto", precision=precision)
    # Labels score every run here: nobody reads what each of them could estimate without.
    return replace(config, name=name, runtime=runtime, evaluation=replace(config.evaluation, estimate_pictures=0))
