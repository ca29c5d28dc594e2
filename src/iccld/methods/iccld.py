"""ICCLD: source, then step 1 (self-training through ClassMix), then step 2 (latent diffusion: `iccld_step2`).

The paper's *teacher* is `model` (it receives the gradients), its *student* is `ema_model` (it makes the pseudo-labels and predicts).
Where this departs from the letter, the switch and its row of docs/readings.md are named.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from iccld.batch import DomainBatch
from iccld.config.optimisation import Optimisation
from iccld.evaluation import teacher_logits
from iccld.losses import cross_entropy
from iccld.methods.common.iccld_settings import Settings
from iccld.methods.common.iccld_step2 import Step2
from iccld.methods.common.iccld_views import styled_pair
from iccld.methods.common.mixing import at_size, label_weight, mixed_view
from iccld.methods.common.parts import Parts, normalise
from iccld.methods.common.previous_stage import averaged_segmenter
from iccld.methods.common.protocol import Method, Stage
from iccld.methods.common.pseudo_label import class_histogram, confident_share, label_statistics, pseudo_label
from iccld.methods.common.segmenter_method import SegmenterMethod
from iccld.methods.common.supervised import source_then
from iccld.methods.common.view_labels import ViewLabels
from iccld.models import Segmenter
from iccld.transforms import (
    Crop,
    Draw,
    blur,
    choose_classes,
    classmix,
    sensor_noise,
)

AGREEMENT_EVERY = 10
"""Steps between two measurements of how far model and EMA agree: it costs a forward pass."""


def stages(parts: Parts, settings: Settings, optimisation: Mapping[str, Optimisation]) -> list[Stage]:
    """The three ordered stages.  Each starts from the averaged weights of the one before (19)."""

    def step1(previous: Method | None) -> Method:
        return Step1(parts, settings, optimisation["step1"], averaged_segmenter(previous, parts))

    def step2(previous: Method | None) -> Method:
        segmenter = averaged_segmenter(previous, parts)
        if settings.second == "step1":
            return Step1(parts, settings, optimisation["step2"], segmenter, settings.labels)
        return Step2(parts, settings, optimisation["step2"], segmenter)

    return source_then(parts, optimisation, step1=step1, step2=step2)


class Step1(SegmenterMethod[Settings]):
    """Domain adaptation of encoder and decoder: cross-entropy on source and mixed images, pseudo-labels from the EMA (Eq. 5)."""

    model: Segmenter

    def __init__(self, parts: Parts, settings: Settings, optimisation: Optimisation, segmenter: Segmenter, labels: str = "own") -> None:
        """labels: whose the target's are, the "own" average's as it runs; where step 1 is gone on with, also those of `Settings.labels`."""
        super().__init__(parts, settings, optimisation, segmenter)
        self.labels = labels
        self.labeller = copy.deepcopy(segmenter).eval().requires_grad_(False) if labels == "views" else None
        self.views = None
        if self.labeller is not None:
            halves = [self.labeller.encoder, self.labeller.decoder]
            self.views = ViewLabels(self.labeller, parts, settings.label_scales, settings.label_flip, lambda: halves)

    def networks(self) -> Mapping[str, nn.Module]:
        return {**super().networks(), **({} if self.labeller is None else {"labeller": self.labeller})}

    def step(self, batch: DomainBatch, iteration: int, draw: Draw) -> dict[str, Tensor]:
        """One update from source and mixed images.  Losses in nats, each ()."""
        views, settings = self.parts.views, self.settings
        # 1. A random window of each picture; sources take on their target's colours.
        source, target, image = styled_pair(batch, self.parts, settings, draw, self._whole_labels(batch))
        # 2. The averaged model labels the target, without augmentation.
        target_label, weight, statistics = self._labelled(target)
        # 3. ClassMix: half of the source's classes on the target; the pseudo-labels weigh what they are worth, pasted pixels 1.
        pasted = choose_classes(source.label, draw)  # (B, H, W)
        label = classmix(pasted, source.label, target_label)
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
        if iteration % AGREEMENT_EVERY == 0:
            answer["agreement"] = self._agreement(target, target_label)
        return answer | statistics

    def _whole_labels(self, batch: DomainBatch) -> Tensor | None:
        """(B, H, W) of the whole target pictures; None where the running average labels their windows."""
        return self.views.of(batch) if self.views is not None else batch.target_label if self.labels == "truth" else None

    @torch.no_grad()
    def _labelled(self, target: Crop) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """The windows' labels and weights, (B, H, W) each, and what is logged of them."""
        settings, classes = self.settings, self.parts.label_space.num_classes
        if target.label is not None:  # they stand still, and count alike
            return target.label, target.valid.float(), {"pseudo_label_histogram": class_histogram(target.label, classes)}
        logits = teacher_logits(
            self.ema.module, normalise(target.image), settings.teacher_scales, settings.teacher_flip, self.parts.size_multiple
        )
        pseudo = pseudo_label(logits)  # (B, H/2, W/2)
        share = confident_share(pseudo.confidence, settings.threshold)  # (B,)
        weight = share[:, None, None] * target.valid
        return at_size(pseudo.label, self.parts.crop), weight, label_statistics(pseudo, share.mean(), classes)

    @torch.no_grad()
    def _agreement(self, target: Crop, label: Tensor) -> Tensor:
        """Share of the target's pixels, at the network's resolution, that the trained weights name as their labels do: ()."""
        answer = self.model(normalise(target.image)).argmax(1)  # (B, H/2, W/2)
        agrees: Tensor = answer == at_size(label, (int(answer.shape[1]), int(answer.shape[2])))
        return agrees.float().mean()
