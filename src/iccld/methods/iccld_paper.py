"""ICCLD to the letter: every place where the paper can be read in more than one way is a switch, and its default is the paper's.

A number in brackets is a row of docs/readings.md and its section there.  Read with these defaults, step 2 returns the latent
it is given (docs/step2.md); `iccld.py` is what measures best.  Only the mixed picture is augmented; sources are cropped and flipped.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Literal, NamedTuple, cast, get_args, get_type_hints

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from iccld.batch import DomainBatch
from iccld.config.optimisation import Optimisation
from iccld.diffusion import DdimSampler, Diffusion, check_steps
from iccld.errors import ConfigError
from iccld.losses import confusion_to_uniform, cross_entropy, denoising_error, domain_cross_entropy, relative_gap
from iccld.methods.common.average import Ema
from iccld.methods.common.conditioning import corrupt
from iccld.methods.common.mixing import at_size, crop_pair, label_weight, mixed_view, paint, plain_domains
from iccld.methods.common.optimizers import Make, adam, adamw, segmenter_optimizer, two_rates
from iccld.methods.common.parts import Parts, normalise
from iccld.methods.common.previous_stage import segmenter_of
from iccld.methods.common.protocol import DiffusionMethod, Method, Schedule, Stage
from iccld.methods.common.pseudo_label import label_statistics, pseudo_label, pseudo_label_weight
from iccld.methods.common.schedule import epoch_decay, warmup_poly
from iccld.methods.common.segmenter_method import SegmenterMethod
from iccld.methods.common.supervised import source_then
from iccld.models import (
    DiffusionSegmenter,
    FeatureDiscriminator,
    Features,
    LatentScale,
    Segmenter,
    denoise_with_middle,
    middle_channels,
)
from iccld.predictor import Predictor
from iccld.transforms import Draw, blur, choose_classes, classmix, jitter

Weights = Literal["ema", "model"]


@dataclass(frozen=True)
class Settings:
    """The readings.  Sizes, crops, iterations, learning rates and the EMA's decay are the recipe's; networks are `network`'s."""

    noise_scale: Literal["alpha_bar", "alpha"] = "alpha_bar"
    """(1) What scales the latent in Eq. 6: alpha-bar_t, as Eq. 4 has it, or alpha_t, as Eq. 6 and 7 print."""
    predict_with: Weights = "ema"
    """(2) The weights whose score is the headline: the paper's student, which is the average, or the trained ones."""
    condition: Literal["same", "view", "noise", "drop", "mask"] = "same"
    """(3) The denoiser's condition: the clean latent that is noised, the latent of the picture in another light, or the same latent with
    noise, dropped as a whole, or with hidden blocks.  Inference always has the clean one."""
    condition_strength: float = 0.5
    """(3) Largest standard deviation of that noise in latent standard deviations, probability of a drop, or largest share hidden."""
    diffuse: Literal["image", "label", "prediction"] = "image"
    """(4) Whose latent is diffused: the picture's, or that of its label map or of step 1's prediction, drawn in the classes' colours."""
    train_decoder: bool = False
    """(5) Whether the decoder learns in step 2; it then needs `task_weight`."""
    task_weight: float = 0.0
    """(5) Weight of the cross-entropy on the denoised latent, which reaches denoiser and, where trained, decoder."""
    adversary: Literal["alternating", "minimax"] = "alternating"
    """(6) The denoiser's part of Eq. 7: its second term, or both as printed; the discriminator minimises the cross-entropy either way."""
    adversarial_weight: float = 1e-3
    """(6) Weight of the denoiser's part of Eq. 7."""
    discriminator_learning_rate: float = 1e-4
    """(6) Learning rate of the discriminator's Adam."""
    discriminator_timestep: bool = True
    """(6) Whether the discriminator is told the timestep."""
    discriminate: Literal["noise", "clean", "features"] = "noise"
    """(7) What the discriminator sees: the predicted noise, the clean latent it implies, or the denoiser's middle features."""
    schedule: Literal["polynomial", "epochs"] = "polynomial"
    """(8) Warm-up and polynomial decay, or x 0.99 every five epochs, which needs `epoch_iterations`."""
    epoch_iterations: int = 0
    """(8, 9) Iterations of an epoch: 12,483 for GTA5 at batch 2, 4,700 for SYNTHIA, 1,488 for Cityscapes."""
    optimizer: Literal["adam", "adamw"] = "adam"
    """(10) The optimiser of steps 1 and 2; Adam has no weight decay."""
    threshold: float = 0.968
    """(10) Confidence that a pseudo-label has to reach (DACS, DAFormer)."""
    pseudo_label_weight: Literal["share", "pixel", "one"] = "share"
    """(10) What a pseudo-label counts: its picture's share of confident pixels, 1 where it is confident itself, or always 1."""
    ema_ramp: bool = True
    """(10) Whether the first updates average over the few models seen so far."""
    prediction: Literal["epsilon", "sample"] = "epsilon"
    """(13) What the denoiser is asked for: the noise or the clean latent."""
    train_at: Literal["uniform", "last"] = "uniform"
    """(13) Timesteps in training: uniform, or always the last, which one-step inference uses."""
    sampler_steps: int = 50
    """(13) DDIM steps at inference."""
    latent_scale: Literal["channel", "single", "none"] = "channel"
    """(14) Latents are normalised by the mean and deviation of each channel, by one deviation (LDM's factor), or not at all."""
    adversarial_condition: bool = True
    """(18) Whether Eq. 7 discriminates the prediction of Eq. 6, or, as printed, one made without the condition."""
    start_from: Weights = "ema"
    """(19) The weights of a stage that the next one starts from."""

    def __post_init__(self) -> None:
        check_steps(self.sampler_steps)
        hints = get_type_hints(type(self))
        for field in fields(self):
            value, allowed = getattr(self, field.name), get_args(hints[field.name])
            if allowed and value not in allowed:
                raise ConfigError(f"settings.{field.name} is {value!r}: use {' or '.join(allowed)}")
        if not 0 <= self.condition_strength <= 1:
            raise ConfigError(f"settings.condition_strength is {self.condition_strength}: use a number from 0 to 1")
        if self.train_decoder and self.task_weight <= 0:
            raise ConfigError("settings.train_decoder needs a loss that reaches the decoder: set settings.task_weight above 0, such as 1")
        if self.schedule == "epochs" and self.epoch_iterations < 1:
            raise ConfigError("settings.schedule epochs needs settings.epoch_iterations: source pictures divided by batch_size")


def stages(parts: Parts, settings: Settings, optimisation: Mapping[str, Optimisation]) -> list[Stage]:
    """The three ordered stages."""

    def step1(previous: Method | None) -> Method:
        return Step1(parts, settings, optimisation["step1"], segmenter_of(previous, parts, settings.start_from))

    def step2(previous: Method | None) -> Method:
        return Step2(parts, settings, optimisation["step2"], segmenter_of(previous, parts, settings.start_from))

    return source_then(parts, optimisation, step1=step1, step2=step2)


def _make(settings: Settings) -> Make:
    return adam if settings.optimizer == "adam" else adamw


def _schedule(optimizer: torch.optim.Optimizer, settings: Settings, optimisation: Optimisation) -> LambdaLR:
    if settings.schedule == "epochs":
        return epoch_decay(optimizer, settings.epoch_iterations)
    return warmup_poly(optimizer, optimisation.iterations, optimisation.warmup_steps, optimisation.power)


class _Scene(NamedTuple):
    """Crops of the two domains in 0..1, source, mixed and target; label (B, H, W) int64; pasted (B, H, W) bool, True from the source."""

    source: Tensor
    mixed: Tensor
    target: Tensor
    label: Tensor
    pasted: Tensor
    valid: Tensor


def _scene(batch: DomainBatch, parts: Parts, draw: Draw) -> _Scene:
    """Crop and flip both pictures, paste half of the source's classes on the target with pixel-level augmentation (ClassMix)."""
    source, target = crop_pair(batch, parts.crop, parts.views, draw)
    pasted = choose_classes(source.label, draw)
    mixed = mixed_view(pasted, source.image, target.image, parts.views, draw)
    return _Scene(source.image, mixed, target.image, source.label, pasted, target.valid)


class _Targets(NamedTuple):
    """What a mixed picture is asked for: (B, H, W) labels and weights, the target's pseudo-labels, and what is logged of them."""

    label: Tensor
    weight: Tensor
    pseudo_label: Tensor
    statistics: dict[str, Tensor]


def _mix_labels(logits: Tensor, scene: _Scene, settings: Settings, parts: Parts) -> _Targets:
    """Pseudo-labels from (B, K, h, w) logits of the target, pasted over by the source's labels (10)."""
    pseudo = pseudo_label(logits)
    size = parts.crop
    label = at_size(pseudo.label, size)
    weight = at_size(pseudo_label_weight(pseudo.confidence, settings.threshold, settings.pseudo_label_weight), size)
    weight = weight * scene.valid
    weight = classmix(scene.pasted, label_weight(scene.label, parts.class_weight), weight)
    share = (pseudo.confidence >= settings.threshold).float().mean()
    statistics = label_statistics(pseudo, share, parts.label_space.num_classes)
    return _Targets(classmix(scene.pasted, scene.label, label), weight, label, statistics)


class Step1(SegmenterMethod[Settings]):
    """Domain adaptation of encoder and decoder (Eq. 5): cross-entropy on the source and on ClassMix with the student's pseudo-labels."""

    model: Segmenter

    def __init__(self, parts: Parts, settings: Settings, optimisation: Optimisation, segmenter: Segmenter) -> None:
        super().__init__(
            parts,
            settings,
            optimisation,
            segmenter,
            optimizer=lambda: segmenter_optimizer(segmenter, optimisation, make=_make(settings)),
            schedule=lambda optimizer: _schedule(optimizer, settings, optimisation),
        )
        self.headline_weights = settings.predict_with
        self.ema.ramp = settings.ema_ramp

    def step(self, batch: DomainBatch, iteration: int, draw: Draw) -> dict[str, Tensor]:
        """One update from source and mixed images.  Losses in nats, each ()."""
        # 1. Source, target and their ClassMix.
        scene = _scene(batch, self.parts, draw)
        # 2. The student (the average) labels the target, without augmentation.
        with torch.no_grad():
            targets = _mix_labels(self.ema.module(normalise(scene.target)), scene, self.settings, self.parts)
        # 3. Cross-entropy (Eq. 5) of the teacher on source and mixed.
        logits = self.model(normalise(torch.cat([scene.source, scene.mixed])))  # (2B, K, H/2, W/2)
        logits_source, logits_mixed = logits.chunk(2)
        loss_source = cross_entropy(logits_source, scene.label, class_weight=self.parts.class_weight)
        loss_mixed = cross_entropy(logits_mixed, targets.label, targets.weight)
        self.update("segmenter", loss_source + loss_mixed)
        # 4. The student follows.
        self.ema.update(self.model, iteration)
        return {"source": loss_source.detach(), "mixed": loss_mixed.detach()} | targets.statistics


class Step2(DiffusionMethod):
    """Adversarial domain adaptation of the denoiser on source, mixed and target latents (Eq. 6, 7); the encoder is frozen."""

    def __init__(self, parts: Parts, settings: Settings, optimisation: Optimisation, segmenter: Segmenter) -> None:
        self.parts = parts
        self.settings = settings
        self.headline_weights = settings.predict_with
        self.sampler_steps = settings.sampler_steps
        self.diffusion = Diffusion(prediction=settings.prediction, noise_scale=settings.noise_scale)
        segmenter.requires_grad_(False).eval()  # frozen: a backbone drops no paths and moves no statistics
        self.first = copy.deepcopy(segmenter.decoder) if settings.train_decoder else segmenter.decoder  # step 1's, for pseudo-labels
        segmenter.decoder.requires_grad_(settings.train_decoder).train(settings.train_decoder)
        residual = settings.prediction == "sample" and settings.diffuse == "image"
        denoiser, scale = parts.make_denoiser(residual), LatentScale(parts.latent_channels)
        sampler = DdimSampler(self.diffusion, settings.sampler_steps)
        self.model = DiffusionSegmenter(segmenter.encoder, segmenter.decoder, denoiser, scale, sampler)
        self.ema = Ema(self.model, optimisation.ema_decay, settings.ema_ramp)
        sees_features = settings.discriminate == "features"
        self.discriminator = FeatureDiscriminator(middle_channels(denoiser)) if sees_features else parts.make_discriminator()
        self.plan = optimisation

    @cached_property
    def optimizer(self) -> torch.optim.Optimizer:
        """Of the denoiser, and with `train_decoder` the decoder."""
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        return two_rates([], trained, self.plan, _make(self.settings))

    @cached_property
    def discriminator_optimizer(self) -> torch.optim.Optimizer:
        """The discriminator's Adam, at a constant rate."""
        return torch.optim.Adam(self.discriminator.parameters(), lr=self.settings.discriminator_learning_rate)

    @cached_property
    def schedule(self) -> Schedule:
        """The denoiser's schedule."""
        return _schedule(self.optimizer, self.settings, self.plan)

    def networks(self) -> Mapping[str, nn.Module]:
        own = {"first_decoder": self.first} if self.settings.train_decoder else {}
        return {"segmenter": self.model, "discriminator": self.discriminator} | own

    def ema_networks(self) -> Mapping[str, nn.Module]:
        return {"segmenter": self.ema.module}

    def optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        return {"denoiser": self.optimizer, "discriminator": self.discriminator_optimizer}

    def schedules(self) -> Mapping[str, Schedule]:
        return {"denoiser": self.schedule}

    @torch.no_grad()
    def start_round(self, target_loader: Iterable[DomainBatch]) -> None:
        """Measure the scale of what is diffused over source, mixed and target images of these batches (14)."""
        latents = []
        for number, batch in enumerate(target_loader):
            draw = self.engine.draw(torch.Generator().manual_seed(number))
            images = plain_domains(batch, draw, self.parts.crop)
            features = self.model.encoder(normalise(images))
            latents.append(self._diffused(features, None).float())
        if not latents or self.settings.latent_scale == "none":
            return
        over = (0, 2, 3) if self.settings.latent_scale == "channel" else (0, 1, 2, 3)
        stacked = torch.cat(latents)
        mean, square = self.engine.all_reduce(torch.stack([stacked.mean(over), stacked.square().mean(over)]), "mean")
        std = (square - mean.square()).clamp(min=0).sqrt()
        if self.settings.latent_scale == "single":  # LDM scales by one factor and leaves the mean where it is
            mean, std = torch.zeros_like(mean), std
        for scale in (self.model.scale, cast(DiffusionSegmenter, self.ema.module).scale):
            scale.set(mean.expand_as(scale.mean), std.expand_as(scale.std))

    def step(self, batch: DomainBatch, iteration: int, draw: Draw) -> dict[str, Tensor]:
        """Update the denoiser once, then the discriminator once.  Losses in nats, errors in latent variances, each ()."""
        settings = self.settings
        # 1. Source, mixed and target; row r belongs to domain[r].
        scene = _scene(batch, self.parts, draw)
        images, rows = torch.cat([scene.source, scene.mixed, scene.target]), len(scene.source)
        domain = torch.arange(3, device=images.device).repeat_interleave(rows)
        # 2. The frozen encoder gives what is diffused and what the denoiser is told of it.
        with torch.no_grad():
            features = self.model.encoder(normalise(images))
            targets = self._targets(features, scene)
            latent = self.model.scale.normalise(self._diffused(features, self._labels(scene, targets)))  # (3B, C, h, w)
            condition = self._condition(features, images, draw)
        # 3. Noise the latents and predict the noise (Eq. 6).
        noise = draw.normal(3 * rows, tuple(latent.shape[1:]))
        timestep = self._timestep(3 * rows, draw)
        noised = self.diffusion.add_noise(latent, noise, timestep)
        output, middle = denoise_with_middle(self.model.denoiser, noised, timestep, condition)
        clean = self.diffusion.clean(output, noised, timestep)
        loss_denoise = denoising_error(output, self.diffusion.target(latent, noise))
        # 4. Eq. 7, the denoiser's part: leave the discriminator undecided.
        if not settings.adversarial_condition:
            output, middle = denoise_with_middle(self.model.denoiser, noised, timestep, torch.zeros_like(condition))
        seen = self._seen(output, middle, noised, timestep)
        logits_domain = self._discriminate(seen, timestep)
        loss_confusion = confusion_to_uniform(logits_domain)
        loss_adversarial = loss_confusion - (domain_cross_entropy(logits_domain, domain) if settings.adversary == "minimax" else 0.0)
        loss = loss_denoise + settings.adversarial_weight * loss_adversarial
        losses = {"denoise": loss_denoise.detach(), "confusion": loss_confusion.detach()}
        # 5. The task's own loss through the decoder, on source and mixed, where a reading asks for it.
        if settings.task_weight > 0 and targets is not None:
            pyramid = tuple(level[: 2 * rows] for level in features.pyramid)
            logits_source, logits_mixed = self.model.decoder(self.model.scale.restore(clean[: 2 * rows]), pyramid).chunk(2)
            loss_source = cross_entropy(logits_source, scene.label, class_weight=self.parts.class_weight)
            loss_mixed = cross_entropy(logits_mixed, targets.label, targets.weight)
            loss = loss + settings.task_weight * (loss_source + loss_mixed)
            losses |= {"source": loss_source.detach(), "mixed": loss_mixed.detach()} | targets.statistics
        self.update("denoiser", loss)
        # 6. Eq. 7, the discriminator's part: name the domain, on detached predictions.
        logits_domain = self._discriminate(seen.detach(), timestep)
        loss_domain = domain_cross_entropy(logits_domain, domain)
        self.update("discriminator", loss_domain)
        # 7. The student follows.
        self.ema.update(self.model, iteration)
        accuracy = (logits_domain.argmax(1) == domain).float().mean()
        gap = relative_gap(clean[2 * rows :].detach(), latent[2 * rows :])
        return losses | {"identity_gap": gap, "domain": loss_domain.detach(), "domain_accuracy": accuracy}

    def _targets(self, features: Features, scene: _Scene) -> _Targets | None:
        """Step 1's labels of the target, where a reading of step 2 needs any (4, 5)."""
        if self.settings.task_weight == 0 and self.settings.diffuse != "label":
            return None
        rows = len(scene.label)
        logits = self.first(features.latent[2 * rows :], tuple(level[2 * rows :] for level in features.pyramid))
        return _mix_labels(logits, scene, self.settings, self.parts)

    def _labels(self, scene: _Scene, targets: _Targets | None) -> Tensor | None:
        """(3B, H, W): the label maps of source, mixed and target."""
        return None if targets is None else torch.cat([scene.label, targets.label, targets.pseudo_label])

    def _diffused(self, features: Features, label: Tensor | None) -> Tensor:
        """What is noised (4), in the encoder's scale: (3B, C, h, w).  Without a label map its place is taken by step 1's prediction."""
        if self.settings.diffuse == "image":
            return features.latent
        if self.settings.diffuse == "prediction" or label is None:
            label = at_size(self.first(features.latent, features.pyramid).argmax(1), self.parts.crop)
        painted = paint(label, torch.from_numpy(self.parts.label_space.palette) / 255)
        return cast(Features, self.model.encoder(normalise(painted))).latent

    def _condition(self, features: Features, images: Tensor, draw: Draw) -> Tensor:
        """What the denoiser is told of the picture (3): (3B, C, h, w), normalised."""
        latent = features.latent
        if self.settings.condition == "view":
            views = self.parts.views
            other = jitter(images, draw, probability=1.0, strength=views.mixed_jitter_strength)
            other = blur(other, draw, probability=views.blur, sigma=views.blur_sigma)
            latent = self.model.encoder(normalise(other)).latent
        return corrupt(self.model.scale.normalise(latent), self.settings.condition, self.settings.condition_strength, draw)

    def _timestep(self, rows: int, draw: Draw) -> Tensor:
        """(rows,) int64: uniform over 0 .. T-1, or always T-1 (13)."""
        last = self.diffusion.num_timesteps - 1
        return torch.full((rows,), last, device=draw.device) if self.settings.train_at == "last" else draw.integers(rows, 0, last + 1)

    def _seen(self, output: Tensor, middle: Tensor, noised: Tensor, timestep: Tensor) -> Tensor:
        """What the discriminator judges (7)."""
        if self.settings.discriminate == "features":
            return middle
        implied = self.diffusion.noise if self.settings.discriminate == "noise" else self.diffusion.clean
        return implied(output, noised, timestep)

    def _discriminate(self, seen: Tensor, timestep: Tensor) -> Tensor:
        """(3B, 3) logits of the domain, with or without the timestep (6)."""
        told = timestep if self.settings.discriminator_timestep else torch.zeros_like(timestep)
        return cast(Tensor, self.discriminator(seen, told))

    def predictor(self, weights: str = "ema", sampler_steps: int | None = None) -> Predictor:
        """The diffusion segmenter; `sampler_steps` overrides the number of DDIM steps."""
        network = cast(DiffusionSegmenter, self.ema.module) if weights == "ema" else self.model
        if sampler_steps is not None:
            network = DiffusionSegmenter(
                network.encoder, network.decoder, network.denoiser, network.scale, DdimSampler(self.diffusion, sampler_steps)
            )
        return self.parts.predictor(network, noise_channels=self.parts.latent_channels)
