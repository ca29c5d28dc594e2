"""Config -> datasets, networks, stages.  The rooms below take plain arguments and never see the configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from iccld.assembly.chosen import registered_method
from iccld.assembly.domains import held_out, open_domain, open_extra
from iccld.assembly.networks import build_networks
from iccld.config import Config, DomainConfig, Optimisation, parse_size
from iccld.data import FileDataset
from iccld.data.check import class_statistics
from iccld.data.joined import JoinedDataset, with_extra
from iccld.data.pairs import CeilingPairs, Order, PairDataset, Sizes
from iccld.data.rare_class import rare_class_sampler
from iccld.data.wide import Range, chosen_range, narrow_warning
from iccld.errors import ConfigError, UnmetNeedError
from iccld.labels import LabelSpace, get_label_space
from iccld.methods.common.parts import Parts
from iccld.methods.common.protocol import Stage
from iccld.progress import say
from iccld.training.engine import Engine, NumberFormat, usual_format

WEIGHT_RANGE = (0.2, 5.0)
"""Class weights stay inside: a class of a few pixels must not drown the rest."""


@dataclass(frozen=True)
class Data:
    """A run's datasets, all in the run's label space."""

    source: FileDataset
    target: FileDataset
    val: FileDataset | None
    source_val: FileDataset | None
    label_space: LabelSpace


def open_data(config: Config, ranges: Mapping[str, Range] | None = None, tells: bool = True) -> Data:
    """Open (and where asked, draw) the domains.  What a reader noticed is said once.

    ranges: of 16-bit pictures, by domain, as an earlier start of the run found them; otherwise they are taken from the data.
    """
    space = get_label_space(config.label_space)
    if config.val.scaling != "full":
        raise ConfigError(f"val.scaling is {config.val.scaling}, but val is read as the target is; set target.scaling")

    def opened(domain: DomainConfig, labels: bool) -> FileDataset | None:
        dataset = open_domain(domain, space, labels, "val" if domain is config.val else "train")
        if dataset is None:
            return None
        for note in dataset.notes if tells else ():
            say(note)
        return dataset

    source, target = opened(config.source, True), opened(config.target, config.target.truth)
    if source is None or target is None:
        raise ConfigError("source and target both need a path (or generate.num scenes)")
    ranges = ranges or {
        "source": chosen_range(config.source.scaling, source.image_paths),
        "target": chosen_range(config.target.scaling, target.image_paths),
    }
    source, target = replace(source, wide=ranges["source"]), replace(target, wide=ranges["target"])
    for name, dataset in (("source", source), ("target", target)):
        if tells and (narrow := narrow_warning(dataset.image_paths, dataset.wide, f"{name} pictures")):
            say(narrow)
    val = opened(config.val, True)
    val = None if val is None else replace(val, wide=ranges["target"])
    holdout = config.source.holdout
    source_val = None
    if holdout:
        if holdout >= len(source):
            raise ConfigError(f"source.holdout is {holdout} of {len(source)} pictures; leave some to train on, e.g. {len(source) // 5}")
        held = held_out(source, holdout)
        source_val = source.subset(sorted(held))
        source = source.subset([index for index in range(len(source)) if index not in held])
    if (extra := open_extra(config.source, space)) is not None:
        for note in extra.notes if tells else ():
            say(note)
        source = with_extra(source, extra, config.source.extra.share)
    if "depth" in registered_method(config.method).needs:
        _require_depth(config.method, {"source": source, "target": target})
    return Data(source, target, val, source_val, space)


def unmet_need(config: Config) -> str | None:
    """What the method needs and the data do not have, in one line; None where nothing is missing."""
    if not registered_method(config.method).needs:
        return None
    try:
        open_data(config)
    except UnmetNeedError as error:
        return str(error)
    return None


def _require_depth(method: str, domains: Mapping[str, FileDataset]) -> None:
    for name, dataset in domains.items():
        if not dataset.has_depth:
            raise UnmetNeedError(
                f"method {method} needs depth, and {name} ({dataset.root}) has none; add a depth folder, or take another method"
            )


def optimisations(config: Config) -> Mapping[str, Optimisation]:
    """Each stage's optimisation, by stage name, in the method's order.

    A method whose own stages have no iterations in the configuration shares out those of the stages that have some, and takes over the
    first one's learning rate and schedule: every method runs on every recipe with the same budget.
    """
    shares = registered_method(config.method).shares
    given = config.stages
    own = {name: given.get(name, Optimisation()) for name in shares}
    if shares and not any(stage.iterations for stage in own.values()):
        others = [stage for name, stage in given.items() if name != "source" and stage.iterations]
        budget = sum(stage.iterations for stage in others)
        own = {name: replace((others or [own[name]])[0], iterations=round(share * budget)) for name, share in shares.items()}
    return {"source": given["source"], **own}


def stages_to_train(config: Config, stages: Sequence[Stage]) -> list[Stage]:
    """Of a method's stages, those that the run trains itself: all, or those after the one that it starts from.

    ConfigError where the method has no such stage here, or none after it.
    """
    if config.source_checkpoint is None:
        return list(stages)
    names = [stage.name for stage in stages]
    last = config.checkpoint_stage
    if last not in names[:-1]:
        raise ConfigError(f"source_checkpoint replaces a stage {last} before others; method {config.method} has {', '.join(names)} here")
    return list(stages[names.index(last) + 1 :])


def make_parts(config: Config, label_space: LabelSpace, class_weight: torch.Tensor | None = None, run: Path | None = None) -> Parts:
    """Factories of the networks at the configured size; with `run`, without the pre-trained weights that training starts from."""
    networks = build_networks(config.network, label_space.num_classes, run)
    return Parts(
        make_segmenter=networks.make_segmenter,
        make_denoiser=networks.make_denoiser,
        make_discriminator=networks.make_discriminator,
        label_space=label_space,
        views=config.augmentation,
        crop=parse_size(config.size.crop),
        working_size=parse_size(config.size.target),
        latent_channels=networks.latent_channels,
        latent_stride=networks.latent_stride,
        size_multiple=networks.size_multiple,
        class_weight=class_weight,
        seed=config.seed,
    )


def make_engine(config: Config, **options: Any) -> Engine:
    """The device, precision and threads that the configuration asks for.  options: of `Engine`, beside these.

    ConfigError for a device or precision that there is not, and for `runtime.compile` on a CPU.
    """
    runtime = config.runtime
    precision = "auto" if runtime.precision == "native" else runtime.precision
    engine = Engine(accelerator=runtime.device, precision=precision, num_threads=runtime.threads or None, **options)
    engine.compiler = "inductor" if runtime.compile else None
    if runtime.compile and engine.device.type == "cpu":
        raise ConfigError(
            "runtime.compile is true, but on a CPU it takes minutes and gains nothing (docs/performance.md); use --runtime.compile false"
        )
    engine.format = with_layout(usual_format(engine.precision), runtime.layout)
    return engine


def with_layout(wanted: NumberFormat, layout: str) -> NumberFormat:
    """The format in the layout that `runtime.layout` names, if it names one."""
    return wanted if layout == "auto" else wanted._replace(channels_last=layout == "channels_last")


def class_weights(counts: Any, exponent: float) -> torch.Tensor | None:
    """(N, K) pixel counts -> (K,) weights (mean share / share)^exponent within `WEIGHT_RANGE`, or None for exponent 0."""
    if exponent == 0:
        return None
    totals = torch.as_tensor(counts).sum(0).double()
    share = totals / totals.sum()
    weight = (share[share > 0].mean() / share.clamp(min=1e-12)) ** exponent
    return weight.clamp(*WEIGHT_RANGE).float()


def pair_dataset(config: Config, data: Data, rank: int = 0, world_size: int = 1, cache_bytes: int = 1 << 31) -> PairDataset:
    """Training batches of the two domains at the working sizes; batch_size is shared by the devices."""
    rare = None
    if config.sampling.rare_class:
        counts = class_statistics(data.source)
        rare = rare_class_sampler(counts, config.sampling.temperature, min_share=config.sampling.min_share)
        if isinstance(data.source, JoinedDataset) and data.source.weights:
            rare = replace(rare, weights=data.source.picture_weights())
    pairs = CeilingPairs if config.target.truth else PairDataset
    return pairs(
        data.source,
        data.target,
        order=Order(config.batch_size // world_size, config.seed, rank, world_size),
        sizes=Sizes(parse_size(config.size.source), parse_size(config.size.target), config.size.keep_aspect),
        rare_class=rare,
        cache_bytes=cache_bytes,
        with_depth="depth" in registered_method(config.method).needs,
        skip_errors=config.runtime.data_errors == "skip",
    )
