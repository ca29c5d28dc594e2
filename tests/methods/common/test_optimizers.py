"""The segmenter's optimiser: the recipe's AdamW unchanged, and what pre-trained encoders ask for."""

from __future__ import annotations

import copy
from types import ModuleType

import pytest
import torch
from transformers import Dinov2Backbone, Dinov2Config

from iccld.methods import METHODS
from iccld.methods.common.optimizers import adamw, segmenter_optimizer
from iccld.methods.common.protocol import Method
from iccld.methods.common.schedule import warmup_poly
from iccld.models import Backbone, BackboneEncoder, EfficientNetEncoder, EfficientNetLite, InterCoderDecoder, Segmenter


def test_without_a_head_factor_it_is_the_adamw_of_the_source_stage(tiny: ModuleType) -> None:
    model, stage = tiny.make_segmenter(), tiny.optimisation(weight_decay=0.1)
    made, plain = segmenter_optimizer(model, stage), adamw(list(model.parameters()), stage)
    assert [[id(p) for p in group["params"]] for group in made.param_groups] == [
        [id(p) for p in group["params"]] for group in plain.param_groups
    ]
    assert made.defaults == plain.defaults


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_heads_learn_ten_times_as_fast_all_the_way_down(tiny: ModuleType, kind: str) -> None:
    model, extra = tiny.make_segmenter(), torch.nn.Linear(2, 2)
    stage = tiny.optimisation(optimizer=kind, head_factor=10.0, learning_rate=2.5e-4, weight_decay=5e-4, iterations=10, power=0.9)
    made = segmenter_optimizer(model, stage, extra)
    assert isinstance(made, torch.optim.SGD if kind == "sgd" else torch.optim.AdamW)
    schedule = warmup_poly(made, stage.iterations, 0, stage.power)
    for iteration in range(10):
        rates = {id(p): group["lr"] for group in made.param_groups for p in group["params"]}
        wanted = 2.5e-4 * (1 - iteration / 10) ** 0.9
        assert [rates[id(p)] for p in model.encoder.parameters()] == pytest.approx([wanted] * len(list(model.encoder.parameters())))
        assert {round(rates[id(p)] / wanted, 6) for p in (*model.decoder.parameters(), *extra.parameters())} == {10.0}
        made.step()
        schedule.step()
    if kind == "sgd":
        assert [(group["momentum"], group["weight_decay"]) for group in made.param_groups] == [(0.9, 5e-4)] * 2


def test_frozen_weights_are_left_out(tiny: ModuleType) -> None:
    model = tiny.make_segmenter()
    model.encoder.stem.requires_grad_(False)
    held = {id(p) for group in segmenter_optimizer(model, tiny.optimisation()).param_groups for p in group["params"]}
    assert held == {id(p) for p in model.parameters() if p.requires_grad}


# --- two rates, in every stage of every method -------------------------------------------------------------------------------------


def pretrained_segmenter(tiny: ModuleType) -> Segmenter:
    """EfficientNet-Lite0 with random weights: what matters is what its encoder says of its layers."""
    encoder = EfficientNetEncoder(EfficientNetLite("efficientnet-lite0"), 16, tiny.LATENT, (0.5,) * 3, (0.5,) * 3)
    return Segmenter(encoder, InterCoderDecoder(tiny.LATENT, encoder.pyramid_channels, tiny.SPACE.num_classes, width=16))


@pytest.mark.parametrize("name", sorted(METHODS))
@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_what_came_with_weights_learns_slower_than_the_rest_in_every_stage(tiny: ModuleType, name: str, kind: str) -> None:
    registered = METHODS[name]
    made = tiny.parts(make_segmenter=lambda: pretrained_segmenter(tiny))
    plan = {stage: tiny.optimisation(head_factor=10.0, optimizer=kind, iterations=4) for stage in ("source", *registered.shares)}
    previous: Method | None = None
    for stage in registered.stages(made, registered.settings(), plan):
        previous = method = stage.make_method(previous)
        trained = {key: value for key, value in method.optimizers().items() if "discriminator" not in key}
        rates = {id(p): group["lr"] for optimizer in trained.values() for group in optimizer.param_groups for p in group["params"]}
        networks = [network for key, network in method.networks().items() if "discriminator" not in key]
        parameters = {full: p for network in networks for full, p in network.named_parameters() if p.requires_grad}
        assert {id(p) for p in parameters.values()} == rates.keys(), stage.name
        for full, p in parameters.items():
            assert rates[id(p)] == pytest.approx(3e-3 if "encoder.trunk." in full else 3e-2), (stage.name, full)
        assert len(parameters) > 20
        learns_encoder = any("encoder.trunk." in full for full in parameters)
        assert learns_encoder == (stage.name != "step2")
        assert not any(".gain" in full or "trunk.stem.bias" in full for full in parameters)


def test_a_backbones_new_layers_learn_as_fast_as_the_decoder(tiny: ModuleType) -> None:
    config = Dinov2Config(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, patch_size=14, image_size=28, out_indices=[1])
    encoder = BackboneEncoder(Backbone(Dinov2Backbone(config), {14: 16}), (2, 4, 8), (8, 8, 16), tiny.LATENT)
    model = Segmenter(encoder, InterCoderDecoder(tiny.LATENT, (8, 8, 16), 4, width=16))
    made = segmenter_optimizer(model, tiny.optimisation(head_factor=10.0))
    rates = {id(p): group["lr"] for group in made.param_groups for p in group["params"]}
    names = {name: round(rates[id(p)] / 3e-3) for name, p in model.named_parameters()}
    assert {name for name, factor in names.items() if factor == 1} == {name for name in names if name.startswith("encoder.backbone.model.")}
    assert set(names.values()) == {1, 10}


def test_a_decoder_that_came_with_weights_learns_as_slowly_as_its_encoder(tiny: ModuleType) -> None:
    model = tiny.make_segmenter()
    model.decoder.is_pretrained = True
    made = segmenter_optimizer(copy.deepcopy(model), tiny.optimisation(head_factor=10.0))
    fast = [p for group in made.param_groups if group["lr"] == pytest.approx(3e-2) for p in group["params"]]
    assert [tuple(p.shape) for p in fast] == [tuple(p.shape) for p in model.decoder.classify.parameters()]
    assert sum(len(group["params"]) for group in made.param_groups) == len(list(model.parameters()))
