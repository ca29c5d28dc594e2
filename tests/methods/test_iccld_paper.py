"""ICCLD to the letter: its defaults are the paper's readings, and every switch changes what it says and nothing else."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from types import ModuleType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
import torch
from torch import Tensor

from iccld.errors import ConfigError
from iccld.losses import confusion_to_uniform, domain_cross_entropy
from iccld.methods import iccld, iccld_paper
from iccld.methods.common.mixing import paint
from iccld.methods.iccld_paper import Settings, Step1, Step2
from iccld.models import CompactEncoder, InterCoderDecoder, Segmenter

from ..rounding import Gradients, differ, reached_parts, watching

LITERAL = {name: get_args(hint) for name, hint in get_type_hints(Settings).items() if get_origin(hint) is Literal}


def made(tiny: ModuleType, kind: type, settings: Settings, **changes: Any) -> Any:
    """A stage with its engine, on tiny networks."""
    parts = tiny.parts(**changes)
    return tiny.ready(kind(parts, settings, tiny.optimisation(), parts.make_segmenter()))


def step2(tiny: ModuleType, **settings: Any) -> Step2:
    method = made(tiny, Step2, Settings(**{"threshold": 0.3, "sampler_steps": 2} | settings), views=tiny.STILL)
    assert isinstance(method, Step2)
    return method


def moved(tiny: ModuleType, method: Any, run: Callable[[], Any]) -> set[str]:
    """Names of the parts of which `run` changes anything; the discriminator's under one name."""
    parts = {
        f"{name}.{child}": part
        for name, net in method.networks().items()
        for child, part in net.named_children()
        if list(part.parameters())
    }
    before = {name: tiny.values(part) for name, part in parts.items()}
    with watching(method.networks()) as watched:
        run()
    names = {name for name, part in parts.items() if not torch.equal(tiny.values(part), before[name])}
    assert names - reached_parts(watched) == set(), "moved by rounding alone"
    return {"discriminator" if name.startswith("discriminator") else name.removeprefix("segmenter.") for name in names}


def only(method: Any, wanted: str) -> None:
    """Drop all updates but one optimiser's."""
    update = method.update
    method.update = lambda optimizer, loss, **options: update(optimizer, loss, **options) if optimizer == wanted else None


# --- the letter -----------------------------------------------------------------------------------------------------------


def test_the_defaults_are_the_letter() -> None:
    letter = {
        "noise_scale": "alpha_bar",
        "predict_with": "ema",
        "condition": "same",
        "diffuse": "image",
        "train_decoder": False,
        "task_weight": 0.0,
        "adversary": "alternating",
        "adversarial_weight": 1e-3,
        "discriminator_learning_rate": 1e-4,
        "discriminator_timestep": True,
        "discriminate": "noise",
        "schedule": "polynomial",
        "optimizer": "adam",
        "threshold": 0.968,
        "pseudo_label_weight": "share",
        "ema_ramp": True,
        "prediction": "epsilon",
        "train_at": "uniform",
        "sampler_steps": 50,
        "latent_scale": "channel",
        "adversarial_condition": True,
        "start_from": "ema",
    }
    assert {name: getattr(Settings(), name) for name in letter} == letter
    assert {field.name for field in dataclasses.fields(Settings)} - letter.keys() == {"condition_strength", "epoch_iterations"}


def test_the_literal_step_asks_for_the_noise_given_the_clean_latent(tiny: ModuleType) -> None:
    method, seen = step2(tiny), []
    method.model.denoiser.register_forward_pre_hook(lambda module, inputs: seen.append(inputs))
    latents = []
    forward = method.model.encoder.forward
    method.model.encoder.forward = lambda image: latents.append(forward(image)) or latents[-1]
    losses = tiny.step(method, 0, tiny.batch(size=(32, 32)))
    ((noised, timestep, condition),) = seen  # one pass serves Eq. 6 and Eq. 7
    torch.testing.assert_close(condition, latents[0].latent)  # the scale is 0 and 1 before a round starts
    signal = method.diffusion.signal(timestep)
    noise = (noised - signal.sqrt() * condition) / (1 - signal).sqrt()
    assert float(noise.std()) == pytest.approx(1, abs=0.1)
    assert losses.keys() == {"denoise", "confusion", "identity_gap", "domain", "domain_accuracy"}


def test_a_perfect_literal_denoiser_changes_no_mask(tiny: ModuleType) -> None:
    """The finding of docs/step2.md on a whole model: the noise follows from the denoiser's inputs, and step 2 answers as step 1 did."""
    method = step2(tiny, sampler_steps=50)
    step1 = Segmenter(method.model.encoder, method.model.decoder)

    def perfect(noised: Tensor, timestep: Tensor, condition: Tensor) -> Tensor:
        signal = method.diffusion.signal(timestep)
        return (noised - signal.sqrt() * condition) / (1 - signal).sqrt()

    method.model.denoiser.forward = perfect  # type: ignore[method-assign]
    image = tiny.batch().target_image
    with torch.no_grad():
        answer = method.predictor("model")(image)
        torch.testing.assert_close(answer, method.parts.predictor(step1)(image), atol=1e-3, rtol=1e-3)


# --- which loss moves which network ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, {"denoiser", "discriminator"}),
        ({"adversarial_weight": 0.0}, {"denoiser", "discriminator"}),
        ({"adversary": "minimax", "adversarial_condition": False}, {"denoiser", "discriminator"}),
        ({"discriminate": "features"}, {"denoiser", "discriminator"}),
        ({"task_weight": 1.0}, {"denoiser", "discriminator"}),
        ({"task_weight": 1.0, "train_decoder": True}, {"denoiser", "decoder", "discriminator"}),
        ({"diffuse": "label"}, {"denoiser", "discriminator"}),
    ],
)
def test_step2_moves_exactly_the_intended_networks(tiny: ModuleType, settings: dict[str, Any], expected: set[str]) -> None:
    method = step2(tiny, **settings)
    assert moved(tiny, method, lambda: tiny.step(method, 0)) == expected
    assert moved(tiny, method, lambda: method.start_round([tiny.batch()])) == set()


@pytest.mark.parametrize(("optimizer", "expected"), [("denoiser", {"denoiser"}), ("discriminator", {"discriminator"})])
@pytest.mark.parametrize("discriminate", ["noise", "features"])
def test_each_half_of_eq_7_moves_its_own_network(tiny: ModuleType, optimizer: str, expected: set[str], discriminate: str) -> None:
    method = step2(tiny, discriminate=discriminate)
    only(method, optimizer)
    assert moved(tiny, method, lambda: tiny.step(method, 0)) == expected


class BatchNormed(CompactEncoder):
    """An encoder with running statistics, as many backbones have them."""

    def __init__(self) -> None:
        super().__init__((8, 8, 16, 16, 16), 4)
        self.to_latent[0] = torch.nn.BatchNorm2d(16)


@pytest.mark.parametrize("kind", [(iccld.Step2, iccld.Settings), (Step2, Settings)], ids=["iccld", "iccld_paper"])
def test_step2_leaves_the_encoder_and_its_batch_statistics_alone(tiny: ModuleType, kind: tuple[type, type]) -> None:
    encoder = BatchNormed()
    parts = tiny.parts(make_segmenter=lambda: Segmenter(encoder, InterCoderDecoder(4, encoder.pyramid_channels, 4, width=16)))
    encoder.train()(torch.rand(2, 3, 32, 32))  # statistics that are not those of a fresh network
    stage, settings = kind
    method = tiny.ready(stage(parts, settings(), tiny.optimisation(), parts.make_segmenter()))
    before = {name: value.clone() for name, value in method.model.encoder.state_dict().items()}
    assert before["to_latent.0.num_batches_tracked"] == 1
    method.start_round([tiny.batch()])
    tiny.step(method, 0)
    for network in (method.model, method.ema.module):
        after = network.encoder.state_dict()
        assert after.keys() == before.keys()
        assert [name for name in before if not torch.equal(after[name], before[name])] == []


def test_step1_moves_every_parameter_of_encoder_and_decoder(tiny: ModuleType) -> None:
    method = made(tiny, Step1, Settings(threshold=0.3), make_segmenter=tiny.make_wide_segmenter)
    before = {name: p.detach().clone() for name, p in method.model.named_parameters()}
    with Gradients(method.model) as gradients:
        tiny.step(method, 0)
    assert gradients.unreached() == set()
    assert [name for name, p in method.model.named_parameters() if torch.equal(p, before[name])] == []


# --- every switch ---------------------------------------------------------------------------------------------------------


def first_step(tiny: ModuleType, **settings: Any) -> tuple[Step2, Tensor, list[float]]:
    """A method after one step, its weights, and the losses that its two updates were given."""
    method = step2(tiny, **settings)
    asked = tiny.asked(method)
    losses = tiny.step(method, 0)
    assert all(torch.isfinite(loss).all() for loss in losses.values())
    return method, tiny.values(method.model), [*asked["denoiser"], *asked["discriminator"]]


@pytest.fixture(scope="module")
def letter(tiny: ModuleType) -> tuple[Tensor, list[float]]:
    """The weights after one literal step, and its losses."""
    return first_step(tiny)[1:]


def test_a_literal_step_repeats(tiny: ModuleType, letter: tuple[Tensor, list[float]]) -> None:
    assert torch.equal(first_step(tiny)[1], letter[0])


@pytest.mark.parametrize(
    "settings",
    [
        {"noise_scale": "alpha"},
        *({"condition": kind} for kind in ("view", "noise", "drop", "mask")),
        {"diffuse": "label"},
        {"diffuse": "prediction"},
        {"task_weight": 1.0},
        {"adversary": "minimax", "adversarial_weight": 1.0},
        {"adversarial_weight": 10.0},
        {"discriminator_timestep": False, "adversarial_weight": 1.0},
        {"discriminate": "clean", "adversarial_weight": 1.0},
        {"prediction": "sample"},
        {"train_at": "last"},
        {"adversarial_condition": False, "adversarial_weight": 1.0},
        {"schedule": "epochs", "epoch_iterations": 1, "optimizer": "adamw"},
    ],
    ids=lambda settings: "-".join(f"{name}={value}" for name, value in settings.items()),
)
def test_every_switch_changes_the_first_step_and_predicts(
    tiny: ModuleType, letter: tuple[Tensor, list[float]], settings: dict[str, Any]
) -> None:
    """Told by the losses: the weights' first step has the size of the learning rate, whatever the gradient's."""
    method, weights, losses = first_step(tiny, **settings)
    if settings.get("optimizer") == "adamw":
        assert torch.equal(weights, letter[0])  # without decay, and at iteration 0, AdamW is Adam
    else:
        assert losses != pytest.approx(letter[1], rel=1e-4)
    with torch.no_grad():
        assert torch.isfinite(method.predictor()(tiny.batch(rows=1).target_image)).all()


def test_adam_decays_no_weight_and_adamw_does(tiny: ModuleType) -> None:
    for name, kind in (("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)):
        parts = tiny.parts()
        settings = Settings(optimizer=name)  # type: ignore[arg-type]
        for stage in (Step1, Step2):
            method = stage(parts, settings, tiny.optimisation(weight_decay=0.5), parts.make_segmenter())
            assert type(method.optimizer) is kind
            assert max(group["weight_decay"] for group in method.optimizer.param_groups) == (0.5 if name == "adamw" else 0)


def test_the_rate_follows_the_chosen_schedule(tiny: ModuleType) -> None:
    rates = {}
    for name in ("polynomial", "epochs"):
        parts = tiny.parts()
        settings = Settings(schedule=name, epoch_iterations=1)  # type: ignore[arg-type]
        method = tiny.ready(Step1(parts, settings, tiny.optimisation(iterations=10), parts.make_segmenter()))
        for _ in range(5):
            method.schedule.step()
        rates[name] = method.optimizer.param_groups[0]["lr"] / 3e-3
    assert rates == pytest.approx({"polynomial": 0.5, "epochs": 0.99})


def test_minimax_adds_the_first_term_with_its_printed_sign(tiny: ModuleType) -> None:
    """Eq. 7 as printed: E[o log f] + KL(f | U), to be made small by the denoiser."""
    asked: dict[str, list[Tensor]] = {"denoiser": [], "discriminator": []}
    method = step2(tiny, adversary="minimax", adversarial_weight=1.0)
    logits: list[Tensor] = []
    method.discriminator.register_forward_hook(lambda module, inputs, output: logits.append(output.detach()))
    method.update = lambda optimizer, loss, **options: asked[str(optimizer)].append(loss.detach())  # type: ignore[assignment]
    losses = tiny.step(method, 0)
    domain = torch.tensor([0, 0, 1, 1, 2, 2])
    log_f = logits[0].log_softmax(1)[torch.arange(6), domain]
    expected = losses["denoise"] + log_f.mean() + confusion_to_uniform(logits[0])
    torch.testing.assert_close(asked["denoiser"][0], expected)
    torch.testing.assert_close(asked["discriminator"][0], domain_cross_entropy(logits[1], domain))


def test_the_unconditional_branch_sees_no_condition(tiny: ModuleType) -> None:
    method, conditions = step2(tiny, adversarial_condition=False), []
    method.model.denoiser.register_forward_pre_hook(lambda module, inputs: conditions.append(inputs[2]))
    tiny.step(method, 0)
    assert len(conditions) == 2
    assert conditions[0].abs().sum() > 0
    assert not conditions[1].any()


def test_the_features_are_those_of_the_denoisers_middle(tiny: ModuleType) -> None:
    method, middles, seen = step2(tiny, discriminate="features"), [], []
    method.model.denoiser.unet.mid_block.register_forward_hook(lambda module, inputs, output: middles.append(output))
    method.discriminator.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    tiny.step(method, 0)
    assert middles[0].shape[1] == 16
    assert torch.equal(seen[0], middles[0])
    assert torch.equal(seen[1], middles[0])
    assert not seen[1].requires_grad


def test_the_headline_uses_the_chosen_weights(tiny: ModuleType) -> None:
    for kind in (Step1, Step2):
        assert made(tiny, kind, Settings()).headline_weights == "ema"
        assert made(tiny, kind, Settings(predict_with="model")).headline_weights == "model"


@pytest.mark.parametrize("start_from", ["ema", "model"])
def test_a_stage_starts_from_the_chosen_weights(tiny: ModuleType, start_from: Any) -> None:
    optimisation = {name: tiny.optimisation() for name in ("source", "step1", "step2")}
    stages = iccld_paper.stages(tiny.parts(), Settings(start_from=start_from), optimisation)
    source = tiny.ready(stages[0].make_method(None))
    for iteration in range(3):
        tiny.step(source, iteration)
    chosen = source.ema.module if start_from == "ema" else source.model
    assert differ(tiny.values(source.ema.module), tiny.values(source.model))
    first = stages[1].make_method(source)
    assert torch.equal(tiny.values(first.networks()["segmenter"]), tiny.values(chosen))


@pytest.mark.parametrize("kind", ["channel", "single", "none"])
def test_the_scale_of_the_latents(tiny: ModuleType, kind: str) -> None:
    method, seen = step2(tiny, latent_scale=kind), []
    method.model.encoder.register_forward_hook(lambda module, inputs, output: seen.append(output.latent))
    method.start_round([tiny.batch(seed=1), tiny.batch(seed=2)])
    latent, scale = torch.cat(seen), method.model.scale
    zeros, ones = torch.zeros(4), torch.ones(4)
    expected = {
        "channel": (latent.mean((0, 2, 3)), latent.std((0, 2, 3), unbiased=False)),
        "single": (zeros, latent.std(unbiased=False) * ones),
        "none": (zeros, ones),
    }[kind]
    torch.testing.assert_close((scale.mean, scale.std), expected, atol=1e-4, rtol=1e-3)
    averaged: Any = method.ema.module
    assert torch.equal(averaged.scale.std, scale.std)


def test_what_is_diffused_is_the_drawn_label(tiny: ModuleType) -> None:
    method, seen = step2(tiny, diffuse="label"), []
    method.model.encoder.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    data = tiny.batch(size=(32, 32))
    tiny.step(method, 0, data)
    _, painted = seen
    mean, std = (torch.tensor(values)[:, None, None] for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    red = ((painted * std + mean)[:, 0] * 255).round().long()
    classes = {0, 60, 120, 180}  # the first colour channel of the tiny palette
    assert set(red.unique().tolist()) <= classes
    flipped = data.source_label.flip(2)
    for row in range(2):
        assert any(torch.equal(red[row], 60 * label[row].long()) for label in (data.source_label, flipped))


def test_paint_by_hand() -> None:
    painted = paint(torch.tensor([[[1, 255, 0]]]), torch.tensor([[0.5, 0.25, 1.0], [0.0, 0.75, 0.5]]))
    assert painted[0].permute(1, 2, 0).tolist() == [[[0.0, 0.75, 0.5], [0.0, 0.0, 0.0], [0.5, 0.25, 1.0]]]


# --- refusals -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LITERAL)
def test_unknown_readings_are_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(ConfigError, match=f"settings.{name} is 'other': use {' or '.join(LITERAL[name])}"):
        Settings(**{name: "other"})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sampler_steps": 3}, "sampler_steps is 3"),
        ({"condition_strength": 1.5}, "condition_strength is 1.5"),
        ({"train_decoder": True}, "task_weight above 0"),
        ({"schedule": "epochs"}, "needs settings.epoch_iterations"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Settings(**settings)
