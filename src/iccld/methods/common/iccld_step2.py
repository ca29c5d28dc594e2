"""ICCLD's step 2: with the encoder frozen, hide places of the picture, let the denoiser fill the latent there, and train the decoder on it.

docs/methods.md tells it in words; its switches are in `iccld_settings`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor, nn

from iccld.batch import DomainBatch
from iccld.config.optimisation import Optimisation
from iccld.diffusion import DdimSampler, Diffusion
from iccld.errors import ConfigError
from iccld.losses import confusion_to_uniform, cross_entropy, denoising_error, domain_cross_entropy, relative_gap
from iccld.methods.common.average import Ema
from iccld.methods.common.iccld_settings import Settings
from iccld.methods.common.iccld_views import Scene, flat, from_flat, three_views
from iccld.methods.common.kept_views import KeptViews, view_generator
from iccld.methods.common.latent_mask import draw_visible, filled_by_mean, hidden_levels
from iccld.methods.common.mixing import at_size, label_weight, plain_domains
from iccld.methods.common.optimizers import segmenter_optimizer
from iccld.methods.common.parts import Parts, normalise
from iccld.methods.common.protocol import DiffusionMethod, Schedule
from iccld.methods.common.pseudo_label import class_histogram, confident_share, label_statistics, pseudo_label
from iccld.methods.common.schedule import warmup_poly
from iccld.methods.common.view_labels import ViewLabels
from iccld.models import Denoiser, DiffusionSegmenter, Features, LatentScale, Segmenter
from iccld.predictor import Predictor
from iccld.transforms import Draw, classmix


class Targets(NamedTuple):
    """What mixed and target picture are asked for: (B, H, W) labels and weights, and what is logged of them."""

    mixed: Tensor
    mixed_weight: Tensor
    target: Tensor
    target_weight: Tensor
    statistics: dict[str, Tensor]


class Denoised(NamedTuple):
    """clean: (3B, C, h, w), the normalised latent that the denoiser implies.  error: Eq. 6, ().  seen: what the discriminator judges."""

    clean: Tensor
    error: Tensor
    seen: Tensor
    timestep: Tensor


class Step2(DiffusionMethod):
    """Trains decoder and denoiser (and, where asked to, the encoder) on source, mixed and target pictures of which places are hidden."""

    def __init__(self, parts: Parts, settings: Settings, optimisation: Optimisation, segmenter: Segmenter) -> None:
        self.parts, self.settings, self.plan = parts, settings, optimisation
        self.labeller = _labeller(segmenter, settings)
        segmenter.requires_grad_(False)
        # What is frozen drops no paths and moves no statistics.
        segmenter.encoder.requires_grad_(settings.train_encoder).train(settings.train_encoder)
        segmenter.decoder.requires_grad_(settings.train_decoder)
        self.model = segmenter
        self.ema: Ema = Ema(segmenter, optimisation.ema_decay)
        self.diffusion = Diffusion(prediction=settings.prediction, noise_scale=settings.noise_scale)
        self.denoiser = parts.make_denoiser(settings.prediction == "sample") if settings.fill == "denoiser" else None
        self.ema_denoiser = None if self.denoiser is None else Ema(self.denoiser, optimisation.ema_decay)
        self.scale = LatentScale(parts.latent_channels)
        self.discriminator = parts.make_discriminator() if settings.adversarial_weight > 0 else None
        self.samples = settings.denoise_at_inference
        self.sampler_steps = settings.sampler_steps
        self.is_stepwise = settings.noise == "everywhere"
        self.round_batches = 0 if self.denoiser is None else type(self).round_batches
        self.labels = ViewLabels(self._first_answer, parts, settings.label_scales, settings.label_flip, self._labelling)
        self.kept: KeptViews | None = None

    # --- what a checkpoint holds ------------------------------------------------------------------------------------------

    @cached_property
    def optimizer(self) -> torch.optim.Optimizer:
        """Of all that learns here but the discriminator."""
        return segmenter_optimizer(self.model, self.plan, *([] if self.denoiser is None else [self.denoiser]))

    @cached_property
    def discriminator_optimizer(self) -> torch.optim.Optimizer:
        """The discriminator's Adam, at a constant rate."""
        assert self.discriminator is not None
        return torch.optim.Adam(self.discriminator.parameters(), lr=self.settings.discriminator_learning_rate)

    @cached_property
    def schedule(self) -> Schedule:
        """The schedule of `optimizer`."""
        return warmup_poly(self.optimizer, self.plan.iterations, self.plan.warmup_steps, self.plan.power)

    def networks(self) -> Mapping[str, nn.Module]:
        own = {"denoiser": self.denoiser, "scale": self.scale} if self.denoiser is not None else {}
        others = {"discriminator": self.discriminator, "labeller": self.labeller}
        return {"segmenter": self.model, **own, **{name: network for name, network in others.items() if network is not None}}

    def ema_networks(self) -> Mapping[str, nn.Module]:
        return {"segmenter": self.ema.module} | ({} if self.ema_denoiser is None else {"denoiser": self.ema_denoiser.module})

    def optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        judges = {} if self.discriminator is None else {"discriminator": self.discriminator_optimizer}
        return {"segmenter": self.optimizer, **judges}

    def schedules(self) -> Mapping[str, Schedule]:
        return {"segmenter": self.schedule}

    def translated(self, kind: str, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Step 2 of releases before R1a, whose denoiser lay inside the segmenter: it predicts as it was trained, through the denoiser."""
        if not any(name.startswith("segmenter.denoiser.") for name in weights):
            return weights
        if self.denoiser is None:
            raise ConfigError("settings.fill is mean, but these weights are of a step 2 with a denoiser: use --settings.fill denoiser")
        self.samples = self.is_stepwise = True
        found = {name: tensor for name, tensor in weights.items() if not name.startswith("discriminator.")}
        for part in ("denoiser.", "scale."):
            found = {name.replace(f"segmenter.{part}", part, 1): tensor for name, tensor in found.items()}
        if kind == "ema":
            return {name: tensor for name, tensor in found.items() if not name.startswith("scale.")}
        networks = {name: network for name, network in self.networks().items() if name in ("labeller", "discriminator")}
        return found | {f"{name}.{key}": value for name, network in networks.items() for key, value in network.state_dict().items()}

    # --- views ------------------------------------------------------------------------------------------------------------

    def batch_of(self, iteration: int) -> int | None:
        count = self.settings.kept_views
        if not count:
            return iteration
        place = iteration % count
        return None if self.kept is not None and self.kept.has(place) else place

    def step(self, batch: DomainBatch, iteration: int, draw: Draw) -> dict[str, Tensor]:
        """One update on views of this batch.  Losses in nats, Eq. 6 in latent variances, each ()."""
        count = self.settings.kept_views
        if not count:
            return self._train(self._scene(batch, draw), iteration, draw)
        place = iteration % count
        scene = self._scene(batch, self.engine.draw(view_generator(self.parts.seed, place)))
        if scene.source_label.is_meta:  # only counted
            return self._train(scene, iteration, draw)
        if self.kept is None:
            self.kept = KeptViews(count, self.engine.scratch)
        self.kept.keep(place, flat(scene))
        return self.step_again(iteration, draw)

    def step_again(self, iteration: int, draw: Draw) -> dict[str, Tensor]:
        """One update on a view that is kept, with a mask of its own."""
        assert self.kept is not None, "no view is kept yet"
        tensors = self.kept.get(iteration % self.settings.kept_views, self.engine.device)
        return self._train(from_flat(tensors, has_plain=self.settings.labels == "own"), iteration, draw)

    def _scene(self, batch: DomainBatch, draw: Draw) -> Scene:
        """The three domains' views of a batch and their features."""
        label = self._whole_labels(batch)
        views = three_views(batch, self.parts, self.settings, draw, label)
        with torch.set_grad_enabled(self.settings.train_encoder):
            features = self.model.encoder(normalise(views.images))
        plain = None
        if self.settings.labels == "own":
            with torch.no_grad():
                plain = self._average.encoder(normalise(views.plain))
        return Scene(features, plain, views.source_label, views.target_label, views.pasted, views.valid)

    def _whole_labels(self, batch: DomainBatch) -> Tensor | None:
        """(B, H, W) of the whole target pictures, which their windows are cut from; None where the running average labels the windows."""
        if self.settings.labels == "views":
            return self.labels.of(batch)
        if self.settings.labels == "truth":
            if batch.target_label is None:
                raise ConfigError("settings.labels is truth, which a run is given with target.truth true alone: a ceiling, no method")
            return batch.target_label
        return None

    @torch.no_grad()
    def _first_answer(self, images: Tensor) -> Tensor:
        """Logits of the average that step 2 began with."""
        assert self.labeller is not None
        if isinstance(self.labeller, Segmenter):
            answer: Tensor = self.labeller(images)
            return answer
        features: Features = self.model.encoder(images)
        logits: Tensor = self.labeller(features.latent, features.pyramid)
        return logits

    def _labelling(self) -> list[nn.Module]:
        """The modules behind `_first_answer`."""
        assert self.labeller is not None
        if isinstance(self.labeller, Segmenter):
            return [self.labeller.encoder, self.labeller.decoder]
        return [self.model.encoder, self.labeller]

    @torch.no_grad()
    def start_round(self, target_loader: Iterable[DomainBatch]) -> None:
        """Measure the latents' mean and standard deviation over source, mixed and target images of these batches (14)."""
        latents = []
        for number, batch in enumerate(target_loader):
            draw = self.engine.draw(torch.Generator().manual_seed(number))
            images = plain_domains(batch, draw, self.parts.crop)
            latents.append(self._average.encoder(normalise(images)).latent.float())
        if not latents or self.denoiser is None:
            return
        values = torch.cat(latents)
        mean, square = self.engine.all_reduce(torch.stack([values.mean((0, 2, 3)), values.square().mean((0, 2, 3))]), "mean")
        self.scale.set(mean, (square - mean.square()).clamp(min=0).sqrt())

    # --- the step ---------------------------------------------------------------------------------------------------------

    def _train(self, scene: Scene, iteration: int, draw: Draw) -> dict[str, Tensor]:
        settings, rows = self.settings, len(scene.source_label)
        # 1. Labels of the target; the mixed picture has the source's where it shows the source.
        targets = self._targets(scene, draw)
        # 2. Hide blocks of every picture, in the latent and at every level that the decoder reads.
        latent, pyramid = scene.features  # (3B, C, h, w), levels of (3B, C_l, H_l, W_l)
        visible = draw_visible(latent, settings.mask_ratio, settings.mask_block, draw)  # (3B, 1, h, w)
        read = pyramid if settings.mask_levels == "latent" or settings.mask_ratio == 0 else hidden_levels(pyramid, visible)
        # 3. Fill what is hidden of the latent: by the denoiser's answer (Eq. 6), or by the mean of what is visible.
        denoised = None if self.denoiser is None else self._denoise(latent, visible, draw)
        filled = filled_by_mean(latent, visible) if denoised is None else self._filled(latent, visible, denoised.clean)
        losses: dict[str, Tensor] = {}
        loss = torch.zeros((), device=latent.device)
        if denoised is not None:
            loss = loss + settings.denoise_weight * denoised.error
            losses |= {"denoise": denoised.error}
            if settings.decode == "denoised":
                losses |= {"identity_gap": self._gap(latent, denoised.clean, rows)}
        # 4. The decoder names the classes (Eq. 5), on all three domains.
        if settings.task_weight > 0:
            logits = self.model.decoder(filled, read)  # (3B, K, H/2, W/2)
            source, mixed, target = logits.chunk(3)
            loss_source = cross_entropy(source, scene.source_label, class_weight=self.parts.class_weight)
            loss_mixed = cross_entropy(mixed, targets.mixed, targets.mixed_weight)
            loss_target = cross_entropy(target, targets.target, targets.target_weight)
            loss = loss + settings.task_weight * (loss_source + loss_mixed + settings.target_weight * loss_target)
            losses |= {"source": loss_source, "mixed": loss_mixed, "target": loss_target}
        # 5. Leave the discriminator undecided (Eq. 7, second term), and let it name the domain (first term), on detached predictions.
        if denoised is not None and self.discriminator is not None:
            loss_confusion = confusion_to_uniform(self.discriminator(denoised.seen, denoised.timestep))
            self.update("segmenter", loss + settings.adversarial_weight * loss_confusion)
            losses |= {"confusion": loss_confusion} | self._judge(self.discriminator, denoised, rows)
        else:
            self.update("segmenter", loss)
        # 6. The averages follow; they predict.
        self.ema.update(self.model, iteration)
        if self.ema_denoiser is not None and self.denoiser is not None:
            self.ema_denoiser.update(self.denoiser, iteration)
        return {name: value.detach() for name, value in losses.items()} | targets.statistics

    @torch.no_grad()
    def _targets(self, scene: Scene, draw: Draw) -> Targets:
        """Hard labels that count alike, or the running average's, which weigh their picture's share of confident pixels."""
        classes, label = self.parts.label_space.num_classes, scene.target_label
        weight = scene.valid.float()
        statistics = {}
        if scene.plain is not None:
            pseudo = pseudo_label(self._average.decoder(self._answered(scene.plain, draw), scene.plain.pyramid))
            share = confident_share(pseudo.confidence, self.settings.threshold)  # (B,)
            label, weight = at_size(pseudo.label, self.parts.crop), share[:, None, None] * weight
            statistics = label_statistics(pseudo, share.mean(), classes)
        elif self.settings.labels == "views":
            statistics = {"pseudo_label_histogram": class_histogram(label, classes)}
        mixed_weight = classmix(scene.pasted, label_weight(scene.source_label, self.parts.class_weight), weight)
        return Targets(classmix(scene.pasted, scene.source_label, label), mixed_weight, label, weight, statistics)

    def _answered(self, features: Features, draw: Draw) -> Tensor:
        """The latent as a prediction's decoder reads it: as it is encoded, or as the average's denoiser answers."""
        if not self.samples:
            return features.latent
        network = self._sampling(True, self.sampler_steps)
        return network.answer(features.latent, draw.normal(len(features.latent), tuple(features.latent.shape[1:])))

    def _denoise(self, latent: Tensor, visible: Tensor, draw: Draw) -> Denoised:
        """Eq. 6, over hidden cells: over all of them where noise is everywhere, or nothing is hidden."""
        assert self.denoiser is not None
        settings = self.settings
        clean = self.scale.normalise(latent)
        noise = draw.normal(len(clean), tuple(clean.shape[1:]))
        timestep = self._timestep(len(clean), draw)
        noised = self.diffusion.add_noise(clean, noise, timestep)
        if settings.noise != "everywhere":
            # At t = T nothing is left of the latent; what is visible is told as it is.
            hidden = noise if settings.train_at == "last" else noised
            noised = visible * clean if settings.noise == "none" else visible * clean + (1 - visible) * hidden
        output = self.denoiser(noised, timestep, visible * clean)  # (3B, C, h, w)
        counts_all = settings.noise == "everywhere" or settings.mask_ratio == 0
        error = denoising_error(output, self.diffusion.target(clean, noise), None if counts_all else 1 - visible)
        answer = self.diffusion.clean(output, noised, timestep)
        seen = answer if settings.discriminate == "clean" else self.diffusion.noise(output, noised, timestep)
        return Denoised(answer, error, seen, timestep)

    def _filled(self, latent: Tensor, visible: Tensor, clean: Tensor) -> Tensor:
        """What the decoder reads: visible cells as encoded and hidden ones as denoised, or all as denoised."""
        restored = self.scale.restore(clean)
        return restored if self.settings.decode == "denoised" else visible * latent + (1 - visible) * restored

    def _judge(self, discriminator: nn.Module, denoised: Denoised, rows: int) -> dict[str, Tensor]:
        domain = torch.arange(3, device=denoised.seen.device).repeat_interleave(rows)  # row r belongs to domain[r]
        logits = discriminator(denoised.seen.detach(), denoised.timestep)
        loss = domain_cross_entropy(logits, domain)
        self.update("discriminator", loss)
        return {"domain": loss, "domain_accuracy": (logits.argmax(1) == domain).float().mean()}

    @torch.no_grad()
    def _gap(self, latent: Tensor, clean: Tensor, rows: int) -> Tensor:
        """How far what the decoder reads of the target is from its latent."""
        return relative_gap(clean[2 * rows :].detach(), self.scale.normalise(latent[2 * rows :]))

    def _timestep(self, rows: int, draw: Draw) -> Tensor:
        """(rows,) int64: uniform over 0 .. T-1, or T-1 where one step is all that inference takes."""
        last = self.diffusion.num_timesteps - 1
        if self.settings.train_at == "last":
            return torch.full((rows,), last, device=draw.device)
        return draw.integers(rows, 0, last + 1)

    # --- prediction -------------------------------------------------------------------------------------------------------

    @property
    def _average(self) -> Segmenter:
        segmenter = self.ema.module
        assert isinstance(segmenter, Segmenter)
        return segmenter

    def _sampling(self, is_average: bool, steps: int) -> DiffusionSegmenter:
        """The network that calls the denoiser at inference; ConfigError where there is none, or it is called once."""
        segmenter = self._average if is_average else self.model
        denoiser = self.ema_denoiser.module if is_average and self.ema_denoiser is not None else self.denoiser
        if denoiser is None:
            raise ConfigError("this step 2 has no denoiser (settings.fill mean), so it takes no sampler_steps")
        if not self.is_stepwise and steps != 1:
            raise ConfigError(f"sampler_steps is {steps}, but this step 2 calls its denoiser once: use 1, or train with noise everywhere")
        assert isinstance(denoiser, Denoiser)
        sampler = DdimSampler(self.diffusion, steps)
        return DiffusionSegmenter(segmenter.encoder, segmenter.decoder, denoiser, self.scale, sampler, self.is_stepwise)

    def predictor(self, weights: str = "ema", sampler_steps: int | None = None) -> Predictor:
        """Encoder and decoder; with `denoise_at_inference`, or where `sampler_steps` are asked for, the denoiser between them."""
        is_average = weights == "ema"
        if sampler_steps is None and not self.samples:
            return self.parts.predictor(self._average if is_average else self.model)
        network = self._sampling(is_average, sampler_steps or self.sampler_steps)
        return self.parts.predictor(network, noise_channels=self.parts.latent_channels if self.is_stepwise else 0)


def _labeller(segmenter: Segmenter, settings: Settings) -> nn.Module | None:
    """What the target's labels of several views come from: the decoder that step 2 begins with, and the encoder too where it will move."""
    if settings.labels != "views":
        return None
    return copy.deepcopy(segmenter if settings.train_encoder else segmenter.decoder).eval().requires_grad_(False)
