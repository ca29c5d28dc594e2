"""ICCLD: source, then step 1 (self-training through ClassMix), then step 2 (adversarial latent diffusion).

The paper's *teacher* is `model` (it receives the gradients), its *student* is `ema_model` (it makes the pseudo-labels and predicts).
Where this departs from the letter, the switch and its row of docs/readings.md are named.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from iccld.batch import DomainBatch
from iccld.config.optimisation import Optimisation
from iccld.diffusion import DdimSampler, Diffusion
from iccld.evaluation import teacher_logits
from iccld.losses import confusion_to_uniform, cross_entropy, denoising_error, domain_cross_entropy, relative_gap
from iccld.methods.common.average import Ema
from iccld.methods.common.iccld_settings import Settings
from iccld.methods.common.mixing import at_size, crop_source, crop_target, in_style, label_weight, mixed_view, plain_domains
from iccld.methods.common.optimizers import two_rates
from iccld.methods.common.parts import Parts, normalise
from iccld.methods.common.previous_stage import averaged_segmenter
from iccld.methods.common.protocol import DiffusionMethod, Method, Schedule, Stage
from iccld.methods.common.pseudo_label import confident_share, label_statistics, pseudo_label
from iccld.methods.common.schedule import warmup_poly
from iccld.methods.common.segmenter_method import SegmenterMethod
from iccld.methods.common.supervised import source_then
from iccld.models import DiffusionSegmenter, Features, LatentScale, Segmenter
from iccld.predictor import Predictor
from iccld.transforms import (
    Crop,
    Draw,
    LabelledCrop,
    block_mask,
    blur,
    choose_classes,
    classmix,
    jitter,
    sensor_noise,
)

AGREEMENT_EVERY = 10
"""Steps between two measurements of how far model and EMA agree: it costs a forward pass."""


def stages(parts: Parts, settings: Settings, optimisation: Mapping[str, Optimisation]) -> list[Stage]:
    """The three ordered stages.  Each starts from the averaged weights of the one before (19)."""

    def step1(previous: Method | None) -> Method:
        return Step1(parts, settings, optimisation["step1"], averaged_segmenter(previous, parts))

    def step2(previous: Method | None) -> Method:
        return Step2(parts, settings, optimisation["step2"], averaged_segmenter(previous, parts))

    return source_then(parts, optimisation, step1=step1, step2=step2)


def _styled_pair(batch: DomainBatch, parts: Parts, settings: Settings, draw: Draw) -> tuple[LabelledCrop, Crop, Tensor]:
    """A random window of each picture, and the source's in random light and its target's colours: -> source, target, (B, 3, H, W)."""
    views = parts.views
    probability = settings.style_probability if views.style_probability is None else views.style_probability
    source, target = crop_source(batch, parts.crop, views, draw), crop_target(batch, parts.crop, views, draw)
    image = jitter(source.image, draw, probability=views.jitter, strength=views.jitter_strength, white_balance=views.white_balance)
    return source, target, in_style(image, target.image, draw, probability=probability, share=settings.style_share)


class Step1(SegmenterMethod[Settings]):
    """Domain adaptation of encoder and decoder: cross-entropy on source and mixed images, pseudo-labels from the EMA (Eq. 5)."""

    model: Segmenter

    def __init__(self, parts: Parts, settings: Settings, optimisation: Optimisation, segmenter: Segmenter) -> None:
        super().__init__(parts, settings, optimisation, segmenter)

    def step(self, batch: DomainBatch, iteration: int, draw: Draw) -> dict[str, Tensor]:
        """One update from source and mixed images.  Losses in nats, each ()."""
        views, settings = self.parts.views, self.settings
        # 1. A random window of each picture; sources take on their target's colours.
        source, target, image = _styled_pair(batch, self.parts, settings, draw)
        # 2. The averaged model labels the target, without augmentation.
        with torch.no_grad():
            logits_target = teacher_logits(
                self.ema.module, normalise(target.image), settings.teacher_scales, settings.teacher_flip, self.parts.size_multiple
            )
            pseudo = pseudo_label(logits_target)  # (B, H/2, W/2)
        share = confident_share(pseudo.confidence, settings.threshold)  # (B,)
        # 3. ClassMix: half of the source's classes on the target; the pseudo-labels weigh what they are worth, pasted pixels 1.
        pasted = choose_classes(source.label, draw)  # (B, H, W)
        label = classmix(pasted, source.label, at_size(pseudo.label, self.parts.crop))
        weight = share[:, None, None].expand_as(label)
        weight = weight * target.valid
        weight = classmix(pasted, label_weight(source.label, self.parts.class_weight), weight)
        mixed = mixed_view(pasted, image, target.image, views, draw)
        image = blur(image, draw, probability=views.blur, sigma=views.blur_sigma)
        image = sensor_noise(image, draw, std=views.noise)
        # 4. Cross-entropy (Eq. 5) on both, one update, one average.
        logits = self.model(normalise(torch.cat([image, mixed])))  # (2B, K, H/2, W/2)
        logits_source, logits_mixed = logits.chunk(2)
        loss_source = cross_entropy(logits_source, source.label, class_weight=self.parts.class_weight)
        loss_mixed = cross_entropy(logits_mixed, label, weight)
        self.update("segmenter", loss_source + loss_mixed)
        self.ema.update(self.model, iteration)
        answer = {"source": loss_source.detach(), "mixed": loss_mixed.detach()}
        answer |= label_statistics(pseudo, share.mean(), self.parts.label_space.num_classes)
        if iteration % AGREEMENT_EVERY == 0:
            with torch.no_grad():
                answer["agreement"] = (self.model(normalise(target.image)).argmax(1) == pseudo.label).float().mean()
        return answer


class Step2(DiffusionMethod):
    """Adversarial domain adaptation of the denoiser (Eq. 6, 7) on source, mixed and target latents; the encoder is frozen."""

    def __init__(self, parts: Parts, settings: Settings, optimisation: Optimisation, segmenter: Segmenter) -> None:
        self.parts = parts
        self.settings = settings
        self.sampler_steps = settings.sampler_steps
        self.diffusion = Diffusion(prediction=settings.prediction, noise_scale=settings.noise_scale)
        residual = settings.prediction == "sample"
        segmenter.requires_grad_(False)
        segmenter.encoder.eval()  # frozen: a backbone drops no paths and moves no statistics
        segmenter.decoder.requires_grad_(settings.train_decoder)
        self.model = DiffusionSegmenter(
            segmenter.encoder,
            segmenter.decoder,
            parts.make_denoiser(residual),
            LatentScale(parts.latent_channels),
            DdimSampler(self.diffusion, settings.sampler_steps),
        )
        self.ema = Ema(self.model, optimisation.ema_decay)
        self.discriminator = parts.make_discriminator()
        self.plan = optimisation

    @cached_property
    def optimizer(self) -> torch.optim.Optimizer:
        """The denoiser's AdamW, and with `train_decoder` the decoder's."""
        decoder = list(self.model.decoder.parameters()) if self.settings.train_decoder else []
        return two_rates([], list(self.model.denoiser.parameters()) + decoder, self.plan)

    @cached_property
    def discriminator_optimizer(self) -> torch.optim.Optimizer:
        """The discriminator's Adam, at a constant rate."""
        return torch.optim.Adam(self.discriminator.parameters(), lr=self.settings.discriminator_learning_rate)

    @cached_property
    def schedule(self) -> Schedule:
        """The denoiser's schedule."""
        return warmup_poly(self.optimizer, self.plan.iterations, self.plan.warmup_steps, self.plan.power)

    def networks(self) -> Mapping[str, nn.Module]:
        return {"segmenter": self.model, "discriminator": self.discriminator}

    def ema_networks(self) -> Mapping[str, nn.Module]:
        return {"segmenter": self.ema.module}

    def optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        return {"denoiser": self.optimizer, "discriminator": self.discriminator_optimizer}

    def schedules(self) -> Mapping[str, Schedule]:
        return {"denoiser": self.schedule}

    @torch.no_grad()
    def start_round(self, target_loader: Iterable[DomainBatch]) -> None:
        """Measure the latents' mean and standard deviation over source, mixed and target images of these batches (14)."""
        latents = []
        for number, batch in enumerate(target_loader):
            draw = self.engine.draw(torch.Generator().manual_seed(number))
            images = plain_domains(batch, draw, self.parts.crop)
            latents.append(self.model.encoder(normalise(images)).latent)
        if not latents:
            return
        moments = torch.stack([torch.cat(latents).float().mean((0, 2, 3)), torch.cat(latents).float().square().mean((0, 2, 3))])
        mean, square = self.engine.all_reduce(moments, "mean")
        for scale in (self.model.scale, self._average.scale):
            scale.set(mean, (square - mean.square()).clamp(min=0).sqrt())

    def step(self, batch: DomainBatch, iteration: int, draw: Draw) -> dict[str, Tensor]:
        """Update the denoiser (and decoder) once, then the discriminator once.  Losses in nats, errors in latent variances."""
        views, settings = self.parts.views, self.settings
        # 1. Views of source and target, pseudo-labels of the target, the mixed picture: as in step 1.
        source, target, image = _styled_pair(batch, self.parts, settings, draw)
        pasted = choose_classes(source.label, draw)
        mixed = mixed_view(pasted, image, target.image, views, draw)
        rows = len(image)
        # 2. Encode the three domains with the frozen encoder; row r belongs to domain[r].
        with torch.no_grad():
            features = self.model.encoder(normalise(torch.cat([image, mixed, target.image])))
            latent = self.model.scale.normalise(features.latent)  # (3B, C, h, w)
        domain = torch.arange(3, device=latent.device).repeat_interleave(rows)
        # 3. Noise the latents, hide part of the condition, predict (Eq. 6).
        size = (int(latent.shape[-2]), int(latent.shape[-1]))
        noise = draw.normal(3 * rows, tuple(latent.shape[1:]))
        timestep = self._timestep(3 * rows, draw)
        noised = self.diffusion.add_noise(latent, noise, timestep)
        kept = block_mask(draw.uniform(3 * rows, high=settings.mask_ratio), size, draw, block=settings.mask_block)
        output = self.model.denoiser(noised, timestep, latent * kept)  # (3B, C, h, w)
        clean = self.diffusion.clean(output, noised, timestep)
        loss_denoise = denoising_error(output, self.diffusion.target(latent, noise))
        # 4. Leave the discriminator undecided (Eq. 7, second term).
        seen = clean if settings.discriminate == "clean" else self.diffusion.noise(output, noised, timestep)
        loss_confusion = confusion_to_uniform(self.discriminator(seen, timestep))
        loss = settings.denoise_weight * loss_denoise + settings.adversarial_weight * loss_confusion
        # 5. The task's own loss through the decoder, on source and mixed.
        losses = {"denoise": loss_denoise.detach(), "confusion": loss_confusion.detach()}
        if settings.task_weight > 0:
            targets = self._targets(features, latent, source.label, target.valid, pasted, draw)
            pyramid = tuple(level[: 2 * rows] for level in features.pyramid)
            logits = self.model.decoder(self.model.scale.restore(clean[: 2 * rows]), pyramid)  # (2B, K, H/2, W/2)
            logits_source, logits_mixed = logits.chunk(2)
            loss_source = cross_entropy(logits_source, source.label, class_weight=self.parts.class_weight)
            loss_mixed = cross_entropy(logits_mixed, targets.label, targets.weight)
            loss = loss + settings.task_weight * (loss_source + loss_mixed)
            losses |= {"source": loss_source.detach(), "mixed": loss_mixed.detach()} | targets.statistics
        else:
            losses |= {"identity_gap": relative_gap(clean[2 * rows :], latent[2 * rows :])}
        self.update("denoiser", loss)
        # 6. The discriminator names the domain (Eq. 7, first term), on detached predictions.
        logits_domain = self.discriminator(seen.detach(), timestep)
        loss_domain = domain_cross_entropy(logits_domain, domain)
        self.update("discriminator", loss_domain)
        self.ema.update(self.model, iteration)
        accuracy = (logits_domain.argmax(1) == domain).float().mean()
        return losses | {"domain": loss_domain.detach(), "domain_accuracy": accuracy}

    @property
    def _average(self) -> DiffusionSegmenter:
        return cast(DiffusionSegmenter, self.ema.module)

    def _timestep(self, rows: int, draw: Draw) -> Tensor:
        """(rows,) int64: uniform over 0 .. T-1, or T-1 where one step is all that inference takes."""
        last = self.diffusion.num_timesteps - 1
        if self.settings.train_at == "last":
            return torch.full((rows,), last, device=draw.device)
        return draw.integers(rows, 0, last + 1)

    @torch.no_grad()
    def _targets(self, features: Features, latent: Tensor, label: Tensor, valid: Tensor, pasted: Tensor, draw: Draw) -> _Targets:
        """The averaged model's labels of the target, pasted over by the source's, from latents that are there already."""
        rows = len(label)
        condition = latent[2 * rows :]
        denoiser, decoder, sampler = self._average.denoiser, self._average.decoder, self._average.sampler
        clean = sampler(lambda noised, timestep: denoiser(noised, timestep, condition), draw.normal(rows, tuple(condition.shape[1:])))
        pyramid = tuple(level[2 * rows :] for level in features.pyramid)
        pseudo = pseudo_label(decoder(self.model.scale.restore(clean), pyramid))
        share = confident_share(pseudo.confidence, self.settings.threshold)  # (B,)
        weight = share[:, None, None].expand_as(label)
        weight = weight * valid
        statistics = label_statistics(pseudo, share.mean(), self.parts.label_space.num_classes)
        statistics["identity_gap"] = relative_gap(clean, condition)
        crop = self.parts.crop
        weight = classmix(pasted, label_weight(label, self.parts.class_weight), weight)
        return _Targets(classmix(pasted, label, at_size(pseudo.label, crop)), weight, statistics)

    def predictor(self, weights: str = "ema", sampler_steps: int | None = None) -> Predictor:
        """The diffusion segmenter; `sampler_steps` overrides the number of DDIM steps."""
        network = self._average if weights == "ema" else self.model
        if sampler_steps is not None:
            network = DiffusionSegmenter(
                network.encoder, network.decoder, network.denoiser, network.scale, DdimSampler(self.diffusion, sampler_steps)
            )
        return self.parts.predictor(network, noise_channels=self.parts.latent_channels)


class _Targets(NamedTuple):
    """What a mixed picture is asked for: (B, H, W) labels and weights, and what is logged of them."""

    label: Tensor
    weight: Tensor
    statistics: dict[str, Tensor]
