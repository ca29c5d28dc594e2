"""The steps of a run before there is one: its stages made and set up, and a batch of random pictures to step on."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from iccld.assembly.chosen import method_settings, registered_method
from iccld.assembly.objects import make_parts, optimisations, stages_to_train
from iccld.batch import DomainBatch
from iccld.config import Config, parse_size
from iccld.labels import get_label_space
from iccld.methods.common.protocol import Method, Stage
from iccld.training.engine import Engine


def ready_stages(config: Config, engine: Engine) -> Iterator[tuple[Stage, Method, DomainBatch]]:
    """Every stage that the run trains, its method set up to step, and a batch to step on."""
    space = get_label_space(config.label_space)
    stages = registered_method(config.method).stages(make_parts(config, space), method_settings(config), optimisations(config))
    stages = stages_to_train(config, stages)
    batch = engine.to_device(random_batch(config, space.num_classes))
    method: Method | None = None
    for stage in stages:
        method = stage.make_method(method)
        method.setup(engine)
        method.start_round([batch])
        yield stage, method, batch


def random_batch(config: Config, num_classes: int) -> DomainBatch:
    """What a step of one device is given, at the configured sizes."""
    generator = torch.Generator().manual_seed(0)
    rows = config.batch_size // config.runtime.devices

    def pixels(size: str, channels: tuple[int, ...], high: int) -> torch.Tensor:
        return torch.randint(0, high, (rows, *channels, *parse_size(size)), generator=generator).to(torch.uint8)

    index = torch.arange(rows)
    source = pixels(config.size.source, (3,), 256), pixels(config.size.source, (), num_classes)
    batch = DomainBatch(*source, pixels(config.size.target, (3,), 256), index, index)
    if config.target.truth:
        batch = batch._replace(target_label=pixels(config.size.target, (), num_classes))
    if "depth" not in registered_method(config.method).needs:
        return batch
    depths = (pixels(size, (), 100).float() + 1 for size in (config.size.source, config.size.target))
    return batch._replace(source_depth=next(depths), target_depth=next(depths))


def one_step(method: Method, batch: DomainBatch, engine: Engine, iteration: int) -> None:
    """The method's step as the loop takes it, drawn from a seed of its own."""
    with engine.autocast():
        draw = engine.draw(engine.generator(0, "estimate", iteration))
        if method.batch_of(iteration) is None:
            method.step_again(iteration, draw)
        else:
            method.step(batch, iteration, draw)
