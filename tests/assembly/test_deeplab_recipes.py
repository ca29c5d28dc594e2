"""The recipes of the methods before transformers: built at their size on meta, trained as the released code trains."""

from __future__ import annotations

import pytest
import torch

from iccld.assembly.chosen import method_settings
from iccld.assembly.objects import make_parts, optimisations
from iccld.config import Config, load_config
from iccld.labels import get_label_space

METHODS = ("adaptsegnet", "bapa", "cbst", "corda", "dacs")
NAMES = [f"{source}_to_cityscapes_{method}" for source in ("gta5", "synthia") for method in METHODS]


def read(name: str) -> Config:
    """The recipe with ResNet-101's random weights, which need no hub."""
    return load_config(name, ["--network.encoder", ""])


def test_they_are_built_at_their_size() -> None:
    configs = [read(name) for name in NAMES]
    distinct = {(config.network, config.size.crop, config.label_space): config for config in configs}  # a build takes seconds
    assert 1 < len(distinct) < len(NAMES)
    for config in distinct.values():
        space = get_label_space(config.label_space)
        parts = make_parts(config, space)
        with torch.device("meta"):
            segmenter = parts.make_segmenter()
            crop = parts.crop
            assert segmenter(torch.empty(1, 3, *crop)).shape == (1, space.num_classes, *crop)
        assert sum(p.numel() for p in segmenter.parameters()) == 42_500_160 + 2 * space.num_classes * (9 * 2048 + 1)


@pytest.mark.parametrize("name", NAMES)
def test_they_train_as_their_released_code(name: str) -> None:
    config, method = load_config(name), name.rpartition("_")[2]
    assert (config.method, config.network.preset, config.network.encoder) == (method, "deeplabv2", "microsoft/resnet-101")
    assert config.network.atrous_rates == (6, 12)
    assert config.batch_size == (1 if method == "adaptsegnet" else 2)
    assert config.size.keep_aspect == name.endswith("cbst")  # the others' code resizes to exactly this
    assert (config.size.source, config.size.target) == ("720x1280" if name.startswith("gta5") else "760x1280", "512x1024")
    stage = list(optimisations(config).values())[-1]
    assert (stage.optimizer, stage.head_factor, stage.weight_decay, stage.power, stage.warmup_steps) == ("sgd", 10.0, 5e-4, 0.9, 0)
    assert stage.learning_rate == (1e-4 if method == "cbst" else 2.5e-4)
    assert stage.iterations == {"cbst": 17_856, "adaptsegnet": 150_000}.get(method, 250_000)
    settings = method_settings(config)
    if method == "cbst":
        assert (settings.portion, settings.rounds) == (0.15 if name.startswith("gta5") else 0.2, 6)
    else:
        assert settings.source_light is False
    if method == "bapa":
        assert settings.boundary_weight == (4 if name.startswith("gta5") else 3)
    if method == "adaptsegnet":
        assert (settings.levels, settings.discriminator_width, settings.full_size) == (1, 64, True)
    if method == "corda":
        assert settings.width == 256
