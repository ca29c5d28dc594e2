"""Every shipped recipe is built, and takes a step of each of its stages with everything made tiny but its method and its schedule."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import Dinov2Config, ResNetConfig, SegformerConfig

from iccld.assembly.chosen import method_settings, registered_method
from iccld.assembly.networks import ARCHITECTURE
from iccld.assembly.objects import make_parts, optimisations
from iccld.batch import DomainBatch
from iccld.config import Config, load_config, parse_size, recipe_names
from iccld.config.network import EFFICIENTNETS
from iccld.geometry import working_shape
from iccld.labels import get_label_space
from iccld.methods.common.protocol import Method
from iccld.training.engine import Engine

TINY = {
    "compact": ["--network.widths", "8,8,16,16,16", "--network.latent_channels", "4", "--network.decoder_width", "8"],
    "ldm": ["--network.widths", "32,32,32,32"],
    "daformer": ["--network.widths", "8,16,24,32", "--network.latent_channels", "32", "--network.decoder_width", "8"],
    "deeplabv2": ["--network.widths", "8,16,24,32"],
}
"""Sizes by preset."""


def backbone(config: Config, folder: Path) -> None:
    """An architecture like the recipe's own backbone, of a few channels and without weights."""
    kinds = {
        "nvidia/mit-b5": SegformerConfig(hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1], num_attention_heads=[1, 2, 3, 4]),
        "facebook/dinov2-base": Dinov2Config(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=56, patch_size=14),
        "microsoft/resnet-101": ResNetConfig(embedding_size=8, hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1]),
    }
    if config.network.encoder and config.network.encoder not in EFFICIENTNETS:
        kinds[config.network.encoder].save_pretrained(folder / ARCHITECTURE)


def tiny(name: str) -> Config:
    """The recipe with pictures of 64 x 64, a narrow network and one step a stage."""
    plain = load_config(name)
    given = [name for name, stage in plain.stages.items() if stage.iterations]
    steps = [word for stage in given for word in (f"--stages.{stage}.iterations", "1")]
    sizes = [word for side in ("source", "target", "crop") for word in (f"--size.{side}", "64x64")]
    return load_config(
        name, [*steps, *sizes, *TINY[plain.network.preset], "--network.denoiser_widths", "32,32", "--evaluation.window", "whole"]
    )


def random_batch(num_classes: int) -> DomainBatch:
    """Two noisy pictures of each domain, in the left half road, in the right half any class."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (2, 2, 3, 64, 64), generator=generator).to(torch.uint8)
    label = torch.randint(0, num_classes, (2, 64, 64), generator=generator)
    label[:, :, :32] = 0
    depth = 2 + 60 * torch.rand(2, 2, 64, 64, generator=generator)
    return DomainBatch(images[0], label.to(torch.uint8), images[1], torch.arange(2), torch.arange(2), depth[0], depth[1])


# SYNTHIA's recipes take GTA5's networks and methods: once a release will do.
SLOW = {name for name in recipe_names() if name.startswith("synthia")}


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in recipe_names()])
def test_recipe_builds_and_takes_a_step_of_every_stage(name: str, tmp_path: Path) -> None:
    config = tiny(name)
    backbone(config, tmp_path)
    space = get_label_space(config.label_space)
    torch.manual_seed(0)
    parts = make_parts(config, space, run=tmp_path)
    made = registered_method(config.method).stages(parts, method_settings(config), optimisations(config))
    assert [stage.name for stage in made] == [name for name, one in optimisations(config).items() if one.iterations]
    engine, batch = Engine(accelerator="cpu", precision="fp32"), random_batch(space.num_classes)
    previous: Method | None = None
    for stage in made:
        method = stage.make_method(previous)
        method.setup(engine)
        method.start_round([batch])
        losses = method.step(batch, 0, engine.draw(torch.Generator().manual_seed(0)))
        assert all(torch.isfinite(value).all() for value in losses.values())
        previous = method


REAL = [name for name in recipe_names() if "_to_cityscapes" in name]
DEEPLAB = ("adaptsegnet", "bapa", "cbst", "corda", "dacs")
"""Methods with schedules of their own; see test_deeplab_recipes.py."""


@pytest.mark.parametrize("name", [name for name in REAL if not name.endswith(DEEPLAB)])
def test_real_size_recipes_train_forty_thousand_steps_a_stage_on_the_published_sizes(name: str) -> None:
    config = load_config(name)
    own = {stage: one for stage, one in optimisations(config).items() if one.iterations}
    if name.endswith("_frozen"):  # step 2 on kept features in the place of step 1
        assert {stage: one.iterations for stage, one in own.items()} == {"source": 40_000, "step2": 4_000}
    else:
        assert {one.iterations for one in own.values()} == {40_000}
    crop, target = parse_size(config.size.crop), parse_size(config.size.target)
    method = name.rpartition("_to_cityscapes")[2].lstrip("_")
    if method in ("hrda", "mic", "cluda"):
        assert (crop, target, config.evaluation.window, config.evaluation.stride) == ((1024, 1024), (1024, 2048), "1024x1024", 512)
        # GTA5's 1914x1052 fitted into 2560x1440 at its aspect, as mmsegmentation's Resize does; SYNTHIA's 1280x760 doubled.
        assert parse_size(config.size.source) == ((1407, 2560) if name.startswith("gta5") else (1520, 2560))
    elif method == "proda":
        assert (crop, target) == ((512, 896), (1100, 2200))
    else:
        assert (crop, target) == ((512, 512), (512, 1024))
        height = 704 if method == "daformer" else 720
        assert parse_size(config.size.source) == ((height, 1280) if name.startswith("gta5") else (760, 1280))
    assert config.size.keep_aspect
    if method in ("daformer", "hrda", "mic", "cluda", "proda"):
        recorded = (1052, 1914) if name.startswith("gta5") else (760, 1280)
        assert working_shape(*recorded, parse_size(config.size.source)) == parse_size(config.size.source)
    if config.network.preset == "daformer":
        adapt = own["adapt"]
        assert (adapt.learning_rate, adapt.head_factor, adapt.warmup_steps, adapt.ema_decay, adapt.weight_decay) == (
            6e-5,
            10,
            1500,
            0.999,
            0.01,
        )
        assert config.batch_size == 2


def test_both_sources_have_a_recipe_for_each() -> None:
    wanted = {"", "_paper", "_daformer", "_hrda", "_mic", "_cluda", "_proda"}
    assert {f"{source}_to_cityscapes{one}" for source in ("gta5", "synthia") for one in wanted} <= set(REAL)
