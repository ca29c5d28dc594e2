"""ProDA (Zhang et al., CVPR 2021): soft labels corrected by class prototypes, then two students distilled from the result.

Equations are the paper's.  Where the released code differs from it, a setting names that, and the released behaviour is the default.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iccld.batch import DomainBatch
from iccld.config.optimisation import Optimisation
from iccld.labels import IGNORE
from iccld.losses import (
    SOURCE,
    TARGET,
    assignment_divergence,
    cross_entropy,
    distillation,
    domain_bce,
    evenness,
    label_at,
    prototype_distances,
    prototype_weights,
    rectified_label,
    symmetric_cross_entropy,
)
from iccld.methods.common.mixing import crop_pair, source_view, strong_view, whole_targets
from iccld.methods.common.parts import Parts, normalise
from iccld.methods.common.previous_stage import averaged_segmenter
from iccld.methods.common.protocol import Method, Schedule, Stage
from iccld.methods.common.prototypes import class_sums
from iccld.methods.common.schedule import warmup_poly
from iccld.methods.common.segmenter_method import SegmenterMethod
from iccld.methods.common.supervised import source_then
from iccld.models import PatchDiscriminator, Segmenter
from iccld.transforms import Draw

UNKNOWN = 1e4
"""Distance to the prototype of a class that was never seen: its weight is 0."""

MIN_SIDE = 32
"""Least side of a class map that the discriminator takes."""


@dataclass(frozen=True)
class Settings:
    """ProDA's own settings; defaults from its released commands (microsoft/ProDA, README and parser_train.py)."""

    adversarial_weight: float = 0.001
    """Warm-up: weight of the adversary."""
    discriminator_learning_rate: float = 1e-4
    """Warm-up: learning rate of the discriminator's Adam (0.9, 0.99)."""
    temperature: float = 1.0
    """Stage 1: tau of the softmax over distances to prototypes (Eq. 5)."""
    prototype_momentum: float = 1e-4
    """Stage 1: share by which a prototype moves towards a batch's mean feature of its class (Eq. 7)."""
    cross_entropy_weight: float = 0.1
    """Stage 1: weight of the cross-entropy in the symmetric one (Eq. 9)."""
    reverse_weight: float = 1.0
    """Stage 1: weight of the reverse cross-entropy in the symmetric one."""
    evenness_weight: float = 0.1
    """Stage 1: weight of the KLD regulariser, which holds predictions from collapsing (Eq. 10)."""
    consistency_weight: float = 10.0
    """Stage 1: weight of the agreement of weak and strong view on the prototypes (Eq. 8)."""
    threshold: float = 0.95
    """Stages 2 and 3: confidence that a teacher's label must exceed; others are ignored."""
    distillation_weight: float = 1.0
    """Stages 2 and 3: weight of the divergence from the teacher (Eq. 11)."""
    distillation: Literal["released", "divergence"] = "released"
    """Stages 2 and 3: "released", with the student's probabilities where their logarithms are due; "divergence", the paper's KL."""
    restart: Literal["source", "initial"] = "source"
    """What students start from: the source stage (ours, for networks without pre-training), or the network's own beginning."""
    source_light: bool = True
    """Whether source pictures take the recipe's random light."""


def stages(parts: Parts, settings: Settings, optimisation: Mapping[str, Optimisation]) -> list[Stage]:
    """`source`, `warmup`, `stage1`, `stage2`, `stage3`; each of the last two teaches a network that starts again."""

    def warmup(previous: Method | None) -> Method:
        restart = _restart(previous, parts, settings)
        return Warmup(parts, settings, optimisation["warmup"], averaged_segmenter(previous, parts), restart)

    def stage1(previous: Method | None) -> Method:
        restart, labeller = _restart(previous, parts, settings), averaged_segmenter(previous, parts)
        return Denoise(parts, settings, optimisation["stage1"], copy.deepcopy(labeller), restart, labeller)

    def distil(name: str, previous: Method | None) -> Method:
        restart, teacher = _restart(previous, parts, settings), averaged_segmenter(previous, parts)
        return Distil(parts, settings, optimisation[name], copy.deepcopy(restart), restart, teacher)

    stage2, stage3 = partial(distil, "stage2"), partial(distil, "stage3")
    return source_then(parts, optimisation, warmup=warmup, stage1=stage1, stage2=stage2, stage3=stage3)


def _restart(previous: Method | None, parts: Parts, settings: Settings) -> Segmenter:
    """What students start from, handed from stage to stage: the source stage's network, or a fresh one."""
    if previous is not None and "restart" in previous.networks():
        return cast(Segmenter, copy.deepcopy(previous.networks()["restart"]))
    return parts.make_segmenter() if settings.restart == "initial" else averaged_segmenter(previous, parts)


class _Restarting(SegmenterMethod[Settings]):
    """What the three kinds of stages have in common: the frozen network that students start from."""

    headline_weights = "model"  # what the released code evaluates
    model: Segmenter

    def __init__(self, parts: Parts, settings: Settings, optimisation: Optimisation, segmenter: Segmenter, restart: Segmenter) -> None:
        super().__init__(parts, settings, optimisation, segmenter.requires_grad_(True).train())
        self.restart = restart.requires_grad_(False)

    def networks(self) -> Mapping[str, nn.Module]:
        return {**super().networks(), "restart": self.restart}

    def _source_view(self, image: Tensor, draw: Draw) -> Tensor:
        return source_view(image, self.parts.views, draw) if self.settings.source_light else image


class Warmup(_Restarting):
    """An adversary of the target's class maps, as in AdaptSegNet: the labels to correct are then worth correcting."""

    def __init__(self, parts: Parts, settings: Settings, optimisation: Optimisation, segmenter: Segmenter, restart: Segmenter) -> None:
        super().__init__(parts, settings, optimisation, segmenter, restart)
        self.discriminator = PatchDiscriminator(parts.label_space.num_classes)
        self.plan = optimisation

    @cached_property
    def discriminator_optimizer(self) -> torch.optim.Optimizer:
        """The discriminator's Adam."""
        return torch.optim.Adam(self.discriminator.parameters(), lr=self.settings.discriminator_learning_rate, betas=(0.9, 0.99))

    @cached_property
    def discriminator_schedule(self) -> Schedule:
        """Its learning rate decays with the segmenter's."""
        return warmup_poly(self.discriminator_optimizer, self.plan.iterations, self.plan.warmup_steps, self.plan.power)

    def networks(self) -> Mapping[str, nn.Module]:
        return {**super().networks(), "discriminator": self.discriminator}

    def optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        return {**super().optimizers(), "discriminator": self.discriminator_optimizer}

    def schedules(self) -> Mapping[str, Schedule]:
        return {**super().schedules(), "discriminator": self.discriminator_schedule}

    def step(self, batch: DomainBatch, iteration: int, draw: Draw) -> dict[str, Tensor]:
        """Update the segmenter once, then the discriminator once.  Losses in nats, each ()."""
        views, classes = self.parts.views, self.parts.class_weight
        source, target = crop_pair(batch, self.parts.crop, views, draw)
        # 1. Segmenter: label the source, and let class maps of the target pass for the source's.
        image = self._source_view(source.image, draw)
        logits = self.model(normalise(torch.cat([image, target.image])))  # (2B, K, h, w)
        logits_source, logits_target = logits.chunk(2)
        loss_source = cross_entropy(logits_source, source.label, class_weight=classes)
        loss_adversarial = domain_bce(self.discriminator(self._map(logits_target)), SOURCE)
        self.update("segmenter", loss_source + self.settings.adversarial_weight * loss_adversarial)
        # 2. Discriminator: tell the domains apart, on detached maps.
        maps_source, maps_target = self._map(logits.detach()).chunk(2)
        loss_domain = domain_bce(self.discriminator(maps_source), SOURCE) + domain_bce(self.discriminator(maps_target), TARGET)
        self.update("discriminator", loss_domain)
        self.ema.update(self.model, iteration)
        return {"source": loss_source.detach(), "adversarial": loss_adversarial.detach(), "domain": loss_domain.detach()}

    def _map(self, logits: Tensor) -> Tensor:
        if min(logits.shape[-2:]) < MIN_SIDE:
            logits = F.interpolate(logits, size=self.parts.crop, mode="bilinear", align_corners=False)
        return logits.float().softmax(1)


class Prototypes(nn.Module):
    """The mean feature of each class, moved by a small share of every batch's."""

    values: Tensor
    known: Tensor

    def __init__(self, num_classes: int, channels: int) -> None:
        super().__init__()
        self.register_buffer("values", torch.zeros(num_classes, channels))
        self.register_buffer("known", torch.zeros(num_classes, dtype=torch.bool))

    @torch.no_grad()
    def move(self, sums: Tensor, counts: Tensor, momentum: float) -> None:
        """prototype <- (1 - m) prototype + m mean, for the classes with pixels (Eq. 7); a class's first mean is taken whole."""
        means = sums / counts.clamp(min=1)[:, None]  # (K, C)
        seen = counts > 0
        moved = torch.where(self.known[:, None], self.values.lerp(means, momentum), means)
        self.values.copy_(torch.where(seen[:, None], moved, self.values))
        self.known.logical_or_(seen)

    def distances(self, features: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, K, h, w), `UNKNOWN` for classes without a prototype."""
        return torch.where(self.known[:, None, None], prototype_distances(features, self.values), UNKNOWN)


class Denoise(_Restarting):
    """Stage 1: the warm-up's soft labels, weighted by how near a pixel's feature lies to each prototype (Eq. 4-10)."""

    def __init__(
        self,
        parts: Parts,
        settings: Settings,
        optimisation: Optimisation,
        segmenter: Segmenter,
        restart: Segmenter,
        labeller: Segmenter,
    ) -> None:
        super().__init__(parts, settings, optimisation, segmenter, restart)
        self.labeller = labeller.requires_grad_(False).eval()
        self.prototypes = Prototypes(parts.label_space.num_classes, segmenter.decoder.feature_channels)

    def networks(self) -> Mapping[str, nn.Module]:
        return {**super().networks(), "labeller": self.labeller, "prototypes": self.prototypes}

    @torch.no_grad()
    def start_round(self, target_loader: Iterable[DomainBatch]) -> None:
        """The first prototypes: mean features of the labeller's classes over some batches of the target."""
        totals: tuple[Tensor, Tensor] | None = None
        for batch in target_loader:
            pictures = [self.labeller.features(normalise(images)) for images in whole_targets(batch, self.parts.size_multiple)]
            part = self._class_sums(self.labeller, *pictures)
            totals = part if totals is None else (totals[0] + part[0], totals[1] + part[1])
        if totals is not None:
            self.prototypes.move(*totals, momentum=1.0)

    def step(self, batch: DomainBatch, iteration: int, draw: Draw) -> dict[str, Tensor]:
        """One update from the source and a strong view of the target.  Losses in nats, each ()."""
        views, settings, classes = self.parts.views, self.settings, self.parts.class_weight
        # 1. A random window of each picture; the target twice, as it is and in strong light.
        source, target = crop_pair(batch, self.parts.crop, views, draw)
        image, strong = self._source_view(source.image, draw), strong_view(target.image, views, draw)
        # 2. The fixed soft label times the weights of the prototypes, seen by the averaged model (Eq. 4, 5).
        with torch.no_grad():
            features_ema = cast(Segmenter, self.ema.module).features(normalise(target.image))  # (B, C, h, w)
            size = (int(features_ema.shape[-2]), int(features_ema.shape[-1]))
            soft = _resized(self.labeller(normalise(target.image)), size).float().softmax(1)  # (B, K, h, w)
            distances = self.prototypes.distances(features_ema)
            label = rectified_label(prototype_weights(distances, settings.temperature), soft)  # (B, h, w)
        label = torch.where(label_at(target.valid, size), label, IGNORE)
        # 3. Source cross-entropy; symmetric cross-entropy (Eq. 9) and evenness (Eq. 10) on the strong view.
        features = self.model.features(normalise(torch.cat([image, strong])))
        logits_source, logits_strong = self.model.decoder.logits(features).chunk(2)
        logits_strong = _resized(logits_strong, size)
        loss_source = cross_entropy(logits_source, source.label, class_weight=classes)
        loss_target = symmetric_cross_entropy(logits_strong, label, settings.cross_entropy_weight, settings.reverse_weight)
        loss_even = evenness(logits_strong)
        # 4. Both views lie alike among the prototypes (Eq. 8).
        student = self.prototypes.distances(features.chunk(2)[1])
        loss_consistent = assignment_divergence(distances, student, settings.temperature)
        regular = settings.evenness_weight * loss_even + settings.consistency_weight * loss_consistent
        self.update("segmenter", loss_source + loss_target + regular)
        # 5. The average and the prototypes follow.
        self.ema.update(self.model, iteration)
        self.prototypes.move(*self._class_sums(self.ema.module, features_ema), momentum=settings.prototype_momentum)
        return {
            "source": loss_source.detach(),
            "target": loss_target.detach(),
            "evenness": loss_even.detach(),
            "consistency": loss_consistent.detach(),
        }

    @torch.no_grad()
    def _class_sums(self, network: nn.Module, *features: Tensor) -> tuple[Tensor, Tensor]:
        """Sums and counts of features by the class that their network names, over all of them and all ranks: -> (K, C), (K,)."""
        parts = []
        for some in features:
            logits = _resized(cast(Segmenter, network).decoder.logits(some), (int(some.shape[-2]), int(some.shape[-1])))
            parts.append(class_sums(some, logits.argmax(1), self.parts.label_space.num_classes))
        sums, counts = torch.stack([sums for sums, _ in parts]).sum(0), torch.stack([counts for _, counts in parts]).sum(0)
        return self.engine.all_reduce(sums, "sum"), self.engine.all_reduce(counts, "sum")


class Distil(_Restarting):
    """Stages 2 and 3: a network that starts again learns its teacher's certain labels, and to answer as softly as it (Eq. 11)."""

    def __init__(
        self,
        parts: Parts,
        settings: Settings,
        optimisation: Optimisation,
        segmenter: Segmenter,
        restart: Segmenter,
        teacher: Segmenter,
    ) -> None:
        super().__init__(parts, settings, optimisation, segmenter, restart)
        self.teacher = teacher.requires_grad_(False).eval()

    def networks(self) -> Mapping[str, nn.Module]:
        return {**super().networks(), "teacher": self.teacher}

    def step(self, batch: DomainBatch, iteration: int, draw: Draw) -> dict[str, Tensor]:
        """One update from the source and a strong view of the target.  Losses in nats, each ()."""
        views, settings, classes = self.parts.views, self.settings, self.parts.class_weight
        source, target = crop_pair(batch, self.parts.crop, views, draw)
        image, strong = self._source_view(source.image, draw), strong_view(target.image, views, draw)
        # 1. The teacher labels the picture as it is, where it is certain, and answers softly to the strong view.
        with torch.no_grad():
            confidence, label = self.teacher(normalise(target.image)).float().softmax(1).max(1)  # (B, h, w)
            soft = self.teacher(normalise(strong))  # (B, K, h, w)
        is_certain = confidence > settings.threshold
        is_certain = is_certain & label_at(target.valid, (int(label.shape[-2]), int(label.shape[-1])))
        label = torch.where(is_certain, label, IGNORE)
        # 2. The student learns the source, the certain labels, and the soft answer.
        logits_source, logits_strong = self.model(normalise(torch.cat([image, strong]))).chunk(2)
        loss_source = cross_entropy(logits_source, source.label, class_weight=classes)
        loss_target = cross_entropy(logits_strong, label, count_ignored=False)
        loss_soft = distillation(soft, logits_strong, takes_logarithm=settings.distillation == "divergence")
        self.update("segmenter", loss_source + loss_target + settings.distillation_weight * loss_soft)
        self.ema.update(self.model, iteration)
        share = self.engine.all_reduce(is_certain.float().mean())
        return {
            "source": loss_source.detach(),
            "target": loss_target.detach(),
            "distillation": loss_soft.detach(),
            "pseudo_label_share": share,
        }


def _resized(logits: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=False) if tuple(logits.shape[-2:]) != size else logits
