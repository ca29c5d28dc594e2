"""Config -> datasets, networks, stages.  The rooms below take plain arguments and never see the configuration."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from iccld.assembly.chosen import registered_method
from iccld.assembly.networks import build_networks
from iccld.config import Config, DomainConfig, Optimisation, parse_size
from iccld.data import FileDataset, open_dataset
from iccld.data.check import cache_folder, class_statistics
from iccld.data.pairs import PairDataset
from iccld.data.rare_class import rare_class_sampler
from iccld.errors import ConfigError, UnmetNeedError
from iccld.labels import LabelSpace, get_label_space
from iccld.methods.common.parts import Parts
from iccld.progress import say
from iccld.training.engine import Engine

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


def domain_path(domain: DomainConfig) -> Path | None:
    """The folder to read; generated scenes are drawn into the cache first, once."""
    if domain.path is not None:
        return Path(domain.path)
    scenes = domain.generate
    if scenes.num == 0:
        return None
    from iccld.city import VERSION, generate

    settings = {**dataclasses.asdict(scenes), "split": domain.split, "version": VERSION}
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]
    out = cache_folder() / "scenes" / f"{scenes.world}-{scenes.layout}-{scenes.num}-{digest}"
    out.parent.mkdir(parents=True, exist_ok=True)
    return generate(scenes.world, scenes.layout, scenes.num, parse_size(scenes.size), scenes.seed, out, split=domain.split)


def open_data(config: Config) -> Data:
    """Open (and where asked, draw) the domains.  What a reader noticed is said once."""
    space = get_label_space(config.label_space)

    def opened(domain: DomainConfig, labels: bool) -> FileDataset | None:
        path = domain_path(domain)
        if path is None:
            return None
        form = domain.format if domain.path is not None else domain.generate.layout
        dataset = open_dataset(path, form, domain.split, space, domain.classes, labels=labels)
        for note in dataset.notes:
            say(note)
        return dataset

    source, target = opened(config.source, True), opened(config.target, False)
    if source is None or target is None:
        raise ConfigError("source and target both need a path (or generate.num scenes)")
    holdout = config.source.holdout
    source_val = None
    if holdout:
        if holdout >= len(source):
            raise ConfigError(f"source.holdout is {holdout} of {len(source)} pictures; leave some to train on")
        source_val = source.subset(range(len(source) - holdout, len(source)))
        source = source.subset(range(len(source) - holdout))
    if "depth" in registered_method(config.method).needs:
        _require_depth(config.method, {"source": source, "target": target})
    return Data(source, target, opened(config.val, True), source_val, space)


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
        own = {name: dataclasses.replace((others or [own[name]])[0], iterations=round(share * budget)) for name, share in shares.items()}
    return {"source": given["source"], **own}


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
    """The device, precision and threads that the configuration asks for.  options: of `Engine`, beside these."""
    runtime = config.runtime
    engine = Engine(accelerator=runtime.device, precision=runtime.precision, num_threads=runtime.threads or None, **options)
    # channels_last pays where bf16 matrix units exist; at fp32 it measured slower (docs/performance.md).
    engine.channels_last = engine.precision == "bf16"
    return engine


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
    return PairDataset(
        data.source,
        data.target,
        batch_size=config.batch_size // world_size,
        seed=config.seed,
        source_size=parse_size(config.size.source),
        target_size=parse_size(config.size.target),
        keep_aspect=config.size.keep_aspect,
        rare_class=rare,
        rank=rank,
        world_size=world_size,
        cache_bytes=cache_bytes,
        with_depth="depth" in registered_method(config.method).needs,
    )
