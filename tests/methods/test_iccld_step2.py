"""ICCLD's step 2: what a mask hides, who labels the target, what is kept of a view, and what predicts."""

from __future__ import annotations

import copy
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from iccld.errors import ConfigError
from iccld.methods.common.iccld_step2 import Step2
from iccld.methods.common.iccld_views import Scene
from iccld.methods.common.latent_mask import draw_visible
from iccld.methods.common.mixing import at_size
from iccld.methods.common.parts import normalise
from iccld.methods.iccld import Settings
from iccld.models import DiffusionSegmenter, Features, InterCoderDecoder, Segmenter
from iccld.transforms import Draw

from ..rounding import differ


def draw(seed: int = 0) -> Draw:
    return Draw(torch.Generator().manual_seed(seed))


def scene_of(method: Step2, tiny: ModuleType, seed: int = 0) -> Scene:
    return method._scene(tiny.batch(size=(32, 32)), draw(seed))


def decoded(method: Step2, scene: Scene, seed: int = 7) -> Tensor:
    """The logits that the step trains on, which its update would change next."""
    seen: list[Tensor] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(method, "update", lambda *_, **__: None)
        handle = method.model.decoder.register_forward_hook(lambda module, inputs, output: seen.append(output.detach()))
        method._train(scene, 0, draw(seed))
        handle.remove()
    return seen[-1]


def elsewhere(features: Features, visible: Tensor) -> Features:
    """Features that differ at hidden places, at every level, and nowhere else."""
    generator = torch.Generator().manual_seed(99)

    def changed(values: Tensor) -> Tensor:
        mask = torch.nn.functional.interpolate(visible, size=values.shape[-2:], mode="nearest").bool()
        return torch.where(mask, values, values + 5 * torch.randn(values.shape, generator=generator))

    return Features(changed(features.latent), tuple(changed(level) for level in features.pyramid))


# --- the mask -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("levels", "leaks"), [("all", False), ("latent", True)])
def test_what_is_hidden_reaches_the_decoder_through_unmasked_connections_alone(tiny: ModuleType, levels: str, leaks: bool) -> None:
    method = tiny.step2(settings=Settings(fill="mean", mask_levels=levels))
    scene = scene_of(method, tiny)
    visible = draw_visible(scene.features.latent, 0.4, 2, draw(7))
    assert 0 < float(visible.mean()) < 1
    changed = scene._replace(features=elsewhere(scene.features, visible))
    assert differ(decoded(method, scene), decoded(method, changed)) == leaks


def test_the_denoiser_is_told_what_is_visible_and_answers_for_the_rest(tiny: ModuleType) -> None:
    """The noised latent is the latent where it is visible and pure noise elsewhere, the condition 0 there; Eq. 6 counts hidden cells."""
    method = tiny.step2()
    method.start_round([tiny.batch()])
    scene = scene_of(method, tiny)
    latent = method.scale.normalise(scene.features.latent)
    told: dict[str, Any] = {}

    def forward(noised: Tensor, timestep: Tensor, condition: Tensor) -> Tensor:
        told.update(noised=noised, timestep=timestep, condition=condition)
        return latent + 3.0  # wrong by 3 everywhere

    read: list[Tensor] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(method.denoiser, "forward", forward)
        patch.setattr(method, "update", lambda *_, **__: None)
        method.model.decoder.register_forward_pre_hook(lambda module, inputs: read.append(inputs[0]))
        losses = method._train(scene, 0, draw(7))
    visible = draw_visible(latent, 0.4, 2, draw(7))
    hidden = (1 - visible).bool().expand_as(latent)
    assert told["timestep"].unique().tolist() == [999]
    assert torch.equal(told["condition"], latent * visible)
    assert torch.equal(told["noised"][~hidden], latent[~hidden])
    assert abs(float(told["noised"][hidden].std()) - 1) < 0.2
    assert abs(float(torch.corrcoef(torch.stack([told["noised"][hidden], latent[hidden]]))[0, 1])) < 0.2
    has_any = hidden.flatten(1).any(1).float().mean()  # of four blocks a picture may have none that is hidden
    assert float(losses["denoise"]) == pytest.approx(9.0 * float(has_any), rel=1e-3)
    answered = scene.features.latent + 3.0 * method.scale.std[:, None, None]
    torch.testing.assert_close(read[0], torch.where(hidden, answered, scene.features.latent), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("noise", ["hidden", "everywhere", "none"])
def test_noise_is_where_its_setting_says(tiny: ModuleType, noise: str) -> None:
    method = tiny.step2(settings=Settings(noise=noise, decode="denoised"))
    scene, seen = scene_of(method, tiny), []
    method.denoiser.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    decoded(method, scene)
    latent = method.scale.normalise(scene.features.latent)
    hidden = (1 - draw_visible(latent, 0.4, 2, draw(7))).bool().expand_as(latent)
    assert torch.equal(seen[0][~hidden], latent[~hidden]) == (noise != "everywhere")
    assert bool((seen[0][hidden] == 0).all()) == (noise == "none")


def test_decoding_the_denoisers_answer_leaves_no_encoded_cell(tiny: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    method = tiny.step2(settings=Settings(decode="denoised", mask_ratio=0.0))
    scene, read = scene_of(method, tiny), []
    monkeypatch.setattr(method.denoiser, "forward", lambda noised, timestep, condition: torch.full_like(noised, 2.0))
    method.model.decoder.register_forward_pre_hook(lambda module, inputs: read.append(inputs[0]))
    decoded(method, scene)
    assert torch.equal(read[0], method.scale.restore(torch.full_like(scene.features.latent, 2.0)))


# --- labels ---------------------------------------------------------------------------------------------------------------


def test_labels_of_several_views_come_from_the_first_average_and_never_move(tiny: ModuleType) -> None:
    method = tiny.step2()
    first, batch = copy.deepcopy(method.model).eval(), tiny.batch(size=(32, 32))
    before = method._whole_labels(batch)
    for iteration in range(4):
        tiny.step(method, iteration)
    method.labels.forget()  # labelled anew, by what has been trained since
    assert torch.equal(method._whole_labels(batch), before)
    assert differ(tiny.values(method.model.decoder), tiny.values(first.decoder))
    plain = tiny.step2(settings=Settings(label_scales=(1.0,), label_flip=False))
    with torch.no_grad():
        expected = at_size(first(normalise(batch.target_image / 255)).argmax(1), (32, 32))
    assert torch.equal(plain._whole_labels(batch), expected)


def test_labels_do_not_move_where_the_encoder_is_trained(tiny: ModuleType) -> None:
    method, batch = tiny.step2(settings=Settings(train_encoder=True)), tiny.batch(size=(32, 32))
    before = method._whole_labels(batch)
    encoder = tiny.values(method.model.encoder)
    for iteration in range(4):
        tiny.step(method, iteration)
    assert differ(tiny.values(method.model.encoder), encoder, share=1e-4)
    method.labels.forget()
    assert torch.equal(method._whole_labels(batch), before)


def test_labels_are_warped_with_their_window(tiny: ModuleType) -> None:
    """With a map that is the picture itself, what arrives is the window's own grey, mirrored or not; beyond the picture it is 255."""
    method = tiny.step2(settings=Settings(labels="truth"), views=tiny.STILL)
    batch = tiny.batch(rows=4, size=(32, 32))
    grey = (batch.target_image[:, 0] // 64).to(torch.uint8)
    scene = method._scene(batch._replace(target_label=grey), draw(1))
    mirrored = [bool(torch.equal(label, truth.flip(1).long())) for label, truth in zip(scene.target_label, grey, strict=True)]
    straight = [bool(torch.equal(label, truth.long())) for label, truth in zip(scene.target_label, grey, strict=True)]
    assert all(one or other for one, other in zip(mirrored, straight, strict=True))
    assert any(mirrored)
    assert any(straight)
    small = tiny.step2(settings=Settings(labels="truth"), views=tiny.parts().views)
    scene = small._scene(tiny.batch(size=(16, 16))._replace(target_label=torch.zeros(2, 16, 16, dtype=torch.uint8)), draw(2))
    assert (scene.target_label == 255).any()
    assert torch.equal(scene.target_label == 255, ~scene.valid)


def test_true_labels_are_refused_where_nobody_gave_them(tiny: ModuleType) -> None:
    method = tiny.step2(settings=Settings(labels="truth"))
    with pytest.raises(ConfigError, match=r"target\.truth true alone: a ceiling"):
        tiny.step(method, 0)
    assert "labeller" not in method.networks()


def test_ignored_pixels_of_the_target_teach_nothing(tiny: ModuleType) -> None:
    method, batch = tiny.step2(settings=Settings(labels="truth", fill="mean"), views=tiny.STILL), tiny.batch(size=(32, 32))
    unknown = torch.full((2, 32, 32), 255, dtype=torch.uint8)
    assert float(tiny.step(method, 0, batch._replace(target_label=unknown))["target"]) == 0.0


# --- kept views -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("labels", ["views", "own"])
def test_a_kept_view_is_the_fresh_one_to_half_precision(tiny: ModuleType, labels: str) -> None:
    method = tiny.step2(settings=Settings(kept_views=2, labels=labels))
    batches = [tiny.batch(seed=seed) for seed in (0, 1)]
    made: list[Scene] = []
    original = method._scene
    method._scene = lambda batch, given: made.append(original(batch, given)) or made[-1]  # type: ignore[func-returns-value]
    trained: list[Scene] = []
    train = method._train
    method._train = lambda scene, iteration, given: trained.append(scene) or train(scene, iteration, given)  # type: ignore[func-returns-value]
    run(method, 4, lambda iteration: batches[iteration])
    assert len(made) == 2
    assert len(trained) == 4
    for iteration, scene in enumerate(trained):
        fresh = made[iteration % 2]
        for mine, theirs in zip(scene[2:], fresh[2:], strict=True):
            assert torch.equal(mine, theirs)
        for mine, theirs in ((scene.features, fresh.features), (scene.plain, fresh.plain)):
            assert (mine is None) == (theirs is None) == (labels == "views" and mine is not scene.features)
            if mine is not None and theirs is not None:
                assert torch.equal(mine.latent, theirs.latent.half().float())
                assert all(torch.equal(one, other.half().float()) for one, other in zip(mine.pyramid, theirs.pyramid, strict=True))
    assert torch.equal(trained[0].features.latent, trained[2].features.latent)


def run(method: Step2, iterations: int, batch_of: Callable[[int], Any], start: int = 0) -> list[int | None]:
    """Steps as the loop takes them; which batches were asked for."""
    asked = []
    for iteration in range(start, iterations):
        wanted = method.batch_of(iteration)
        asked.append(wanted)
        given = Draw(torch.Generator().manual_seed(100 + iteration))
        if wanted is None:
            method.step_again(iteration, given)
        else:
            method.step(batch_of(wanted), iteration, given)
    return asked


def test_batches_of_kept_views_are_asked_for_once(tiny: ModuleType) -> None:
    method = tiny.step2(settings=Settings(kept_views=2))
    assert run(method, 5, lambda iteration: tiny.batch(seed=iteration)) == [0, 1, None, None, None]
    assert run(tiny.step2(), 3, lambda iteration: tiny.batch(seed=iteration)) == [0, 1, 2]


def test_masks_of_a_kept_view_are_drawn_anew(tiny: ModuleType) -> None:
    method = tiny.step2(settings=Settings(kept_views=1))
    told: list[Tensor] = []
    method.denoiser.register_forward_pre_hook(lambda module, inputs: told.append(inputs[2] == 0))
    run(method, 3, lambda iteration: tiny.batch(seed=iteration))
    assert not torch.equal(told[0], told[1])
    assert not torch.equal(told[1], told[2])


@pytest.mark.parametrize("stop", [1, 3, 4])
def test_views_are_made_again_after_a_stop_and_nothing_differs(tiny: ModuleType, stop: int) -> None:
    settings = Settings(kept_views=2)
    straight, stopped = tiny.step2(settings=settings), tiny.step2(settings=settings)

    def batch(iteration: int) -> Any:
        return tiny.batch(seed=iteration)

    run(straight, 6, batch)
    run(stopped, stop, batch)
    resumed = tiny.step2(seed=1, settings=settings)
    for part in ("networks", "ema_networks", "optimizers", "schedules"):
        theirs = getattr(stopped, part)()
        for name, mine in getattr(resumed, part)().items():
            mine.load_state_dict(copy.deepcopy(theirs[name].state_dict()))
    asked = run(resumed, 6, batch, start=stop)
    assert {place for place in asked if place is not None} == {0, 1}
    for part in ("networks", "ema_networks"):
        for name, network in getattr(straight, part)().items():
            assert torch.equal(tiny.values(getattr(resumed, part)()[name]), tiny.values(network)), (part, name)


# --- what is built, and what predicts -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({}, {"segmenter", "denoiser", "scale", "labeller"}),
        ({"labels": "own"}, {"segmenter", "denoiser", "scale"}),
        ({"fill": "mean"}, {"segmenter", "labeller"}),
        ({"adversarial_weight": 1e-3}, {"segmenter", "denoiser", "scale", "labeller", "discriminator"}),
    ],
)
def test_what_a_step_does_without_is_not_built(tiny: ModuleType, settings: dict[str, Any], names: set[str]) -> None:
    built: list[str] = []
    made = tiny.parts()
    counted = {
        "make_denoiser": lambda residual: built.append("denoiser") or made.make_denoiser(residual),
        "make_discriminator": lambda: built.append("discriminator") or made.make_discriminator(),
    }
    method = tiny.step2(settings=Settings(**settings), **counted)
    assert set(method.networks()) == names
    assert set(built) == names & {"denoiser", "discriminator"}
    assert set(method.optimizers()) == {"segmenter"} | (names & {"discriminator"})
    assert method.round_batches == (8 if "denoiser" in names else 0)


@pytest.mark.parametrize("settings", [{"fill": "mean", "mask_ratio": 0.0}, {"fill": "mean"}, {}], ids=["decoder alone", "mean", "denoiser"])
@pytest.mark.parametrize("kept_views", [0, 1])
def test_a_decoder_without_connections_learns_from_a_frozen_latent(tiny: ModuleType, settings: dict[str, Any], kept_views: int) -> None:
    """Its first layer is a norm, and the latent, channels last, wants no gradient: PyTorch's own norm ends the process there."""

    def without() -> Segmenter:
        encoder = tiny.make_segmenter().encoder
        return Segmenter(encoder, InterCoderDecoder(tiny.LATENT, encoder.pyramid_channels, tiny.SPACE.num_classes, 16, inter_coder=False))

    method = tiny.step2(settings=Settings(kept_views=kept_views, **settings), make_segmenter=without)
    method.engine.channels_last = True
    method.model.to(memory_format=torch.channels_last)
    method.start_round([tiny.batch()])
    before = tiny.values(method.model.decoder)
    tiny.step(method, 0)
    tiny.step(method, 1)
    after = tiny.values(method.model.decoder)
    assert torch.isfinite(after).all()
    assert not torch.equal(before, after)


def test_a_prediction_is_encoder_and_decoder_exactly_unless_the_denoiser_is_asked_for(tiny: ModuleType) -> None:
    image = tiny.batch(size=(32, 48)).target_image
    method = tiny.step2()
    method.start_round([tiny.batch()])
    for iteration in range(3):
        tiny.step(method, iteration)
    predictor = method.predictor()
    calls: list[Any] = []
    method.ema_denoiser.module.register_forward_hook(lambda module, inputs, output: calls.append(inputs))
    with torch.no_grad():
        features = method.ema.module.encoder(normalise(image / 255).contiguous(memory_format=torch.channels_last))
        assert torch.equal(predictor.network_logits(image), method.ema.module.decoder(*features))
        assert calls == []
        through = method.predictor(sampler_steps=1).network_logits(image)
        noised, timestep, condition = calls[0]
    assert differ(through, predictor.network_logits(image), share=1e-4)
    assert torch.equal(noised, condition)  # nothing is hidden: the latent itself, twice
    assert timestep.unique().tolist() == [999]
    asked = tiny.step2(settings=Settings(denoise_at_inference=True))
    assert isinstance(asked.predictor().network, DiffusionSegmenter)


@pytest.mark.parametrize(
    ("settings", "steps", "message"),
    [({}, 5, "calls its denoiser once: use 1"), ({"fill": "mean"}, 1, "this step 2 has no denoiser")],
)
def test_steps_that_a_step_2_cannot_take_are_refused(tiny: ModuleType, settings: dict[str, Any], steps: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny.step2(settings=Settings(**settings)).predictor(sampler_steps=steps)


def test_weights_of_an_earlier_release_predict_as_they_were_trained(tiny: ModuleType) -> None:
    """There the denoiser lay inside the segmenter, a discriminator beside it, and every prediction went through the denoiser."""
    made = tiny.step2(settings=Settings(noise="everywhere", denoise_at_inference=True, labels="own", adversarial_weight=1e-3))
    made.start_round([tiny.batch()])
    for iteration in range(3):
        tiny.step(made, iteration)
    image = tiny.batch(size=(32, 48)).target_image
    earlier: dict[str, dict[str, Tensor]] = {"model": {}, "ema": {}}
    for kind, networks in (("model", made.networks()), ("ema", made.ema_networks())):
        for name, network in {**networks, "scale": made.scale}.items():
            inside = f"segmenter.{name}" if name in ("denoiser", "scale") else name
            earlier[kind] |= {f"{inside}.{key}": tensor for key, tensor in network.state_dict().items()}
    assert any(name.startswith("discriminator.") for name in earlier["model"])
    read = tiny.step2(seed=1)
    for kind, networks in (("model", read.networks()), ("ema", read.ema_networks())):
        weights = read.translated(kind, earlier[kind])
        assert {name.partition(".")[0] for name in weights} == set(networks)
        for name, network in networks.items():
            network.load_state_dict({key.partition(".")[2]: tensor for key, tensor in weights.items() if key.partition(".")[0] == name})
    with torch.no_grad():
        for weights in ("ema", "model"):
            assert torch.equal(read.predictor(weights)(image), made.predictor(weights)(image))
        assert torch.equal(read.predictor("ema", 5)(image), made.predictor("ema", 5)(image))


# --- settings -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mask_block": 0}, "settings.mask_block is 0"),
        ({"mask_levels": "some"}, "settings.mask_levels is 'some': use all or latent"),
        ({"labels": "soft"}, "settings.labels is 'soft': use own or views or truth"),
        ({"label_scales": (0.0,)}, r"settings\.label_scales is 0"),
        ({"kept_views": -1}, "settings.kept_views is -1"),
        ({"target_weight": -1.0}, "settings.target_weight is -1.0"),
        ({"target_weight": float("nan")}, "settings.target_weight is nan"),
        ({"fill": "mean", "decode": "denoised"}, "no denoiser for decode denoised"),
        ({"fill": "mean", "adversarial_weight": 1e-3}, "no denoiser to confuse"),
        ({"fill": "mean", "denoise_at_inference": True}, "no denoiser to call"),
        ({"fill": "mean", "train_decoder": False}, "nothing to train"),
        ({"fill": "mean", "task_weight": 0.0}, "nothing to train"),
        ({"task_weight": 0.0, "denoise_weight": 0.0}, "nothing to learn from"),
        ({"mask_ratio": 0.0}, "hides nothing that the denoiser could fill: use --settings.fill mean"),
        ({"kept_views": 3, "train_encoder": True}, "features of a frozen encoder"),
        ({"prediction": "epsilon"}, "use --settings.noise everywhere"),
        ({"discriminate": "noise"}, "use --settings.noise everywhere"),
        ({"denoise_at_inference": True, "sampler_steps": 5}, "only noise everywhere is sampled in steps: use 1"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Settings(**settings)
