"""DACS (Tranheden et al., WACV 2021): self-training on pictures of the target with half of a source picture's classes pasted in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from iccld.batch import DomainBatch
from iccld.config.optimisation import Optimisation
from iccld.losses import cross_entropy
from iccld.methods.common.mixing import at_size, crop_pair, label_weight, mixed_view, source_view
from iccld.methods.common.parts import Parts, normalise
from iccld.methods.common.previous_stage import averaged_segmenter
from iccld.methods.common.protocol import Method, Stage
from iccld.methods.common.pseudo_label import confident_share, label_statistics, pseudo_label
from iccld.methods.common.segmenter_method import SegmenterMethod
from iccld.methods.common.supervised import source_then
from iccld.transforms import Draw, choose_classes, classmix


@dataclass(frozen=True)
class Settings:
    """Defaults are the released code's (vikolss/DACS, trainUDA.py and configs/configUDA.json) but for `source_light`."""

    threshold: float = 0.968
    """Confidence that a pseudo-label must reach to count in the weight."""
    pixel_weight: Literal["uniform", "pixel"] = "uniform"
    """Weight of a pseudo-labelled pixel: "uniform", one number for the batch, its share of confident pixels ("threshold_uniform" in the
    released configuration); "pixel", 1 where the pixel is confident and 0 elsewhere ("threshold")."""
    paste_ignore: bool = True
    """Whether 255 counts as one of the classes that ClassMix draws from; the paper draws from the classes that occur."""
    source_light: bool = True
    """Whether source pictures take the recipe's random light; the released code only crops them."""


def stages(parts: Parts, settings: Settings, optimisation: Mapping[str, Optimisation]) -> list[Stage]:
    """`source`, then `adapt`.  Released code has no source stage: it starts from an encoder trained on ImageNet or COCO."""

    def adapt(previous: Method | None) -> Method:
        return Dacs(parts, settings, optimisation["adapt"], averaged_segmenter(previous, parts))

    return source_then(parts, optimisation, adapt=adapt)


class Dacs(SegmenterMethod[Settings]):
    """Cross-entropy on the source and on mixed pictures (DACS, Eq. 1); their labels come from the average of the weights."""

    headline_weights = "model"  # what the released code evaluates

    def step(self, batch: DomainBatch, iteration: int, draw: Draw) -> dict[str, Tensor]:
        """One update from source and mixed pictures.  Losses in nats, each ()."""
        views, settings, classes = self.parts.views, self.settings, self.parts.class_weight
        # 1. A random window of each picture.
        source, target = crop_pair(batch, self.parts.crop, views, draw)
        # 2. The averaged model labels the target (Algorithm 1, line 4); one weight for the whole batch.
        with torch.no_grad():
            pseudo = pseudo_label(self.ema.module(normalise(target.image)))  # (B, h, w)
        share = self.engine.all_reduce(confident_share(pseudo.confidence, settings.threshold).mean())  # ()
        weight = share.expand_as(pseudo.confidence)
        if settings.pixel_weight == "pixel":
            weight = (pseudo.confidence >= settings.threshold).float()
        weight = at_size(weight, self.parts.crop)  # (B, H, W)
        weight = weight * target.valid
        # 3. ClassMix (lines 5-7): half of the source's classes on the target, where they weigh 1.
        pasted = choose_classes(source.label, draw, with_ignore=settings.paste_ignore)  # (B, H, W)
        mixed = mixed_view(pasted, source.image, target.image, views, draw)
        label = classmix(pasted, source.label, at_size(pseudo.label, self.parts.crop))
        weight = classmix(pasted, label_weight(source.label, classes), weight)
        # 4. Eq. 1: cross-entropy on both; one update, one average.
        image = source_view(source.image, views, draw) if settings.source_light else source.image
        logits = self.model(normalise(torch.cat([image, mixed])))  # (2B, K, h, w)
        logits_source, logits_mixed = logits.chunk(2)
        loss_source = cross_entropy(logits_source, source.label, class_weight=classes)
        loss_mixed = cross_entropy(logits_mixed, label, weight)
        self.update("segmenter", loss_source + loss_mixed)
        self.ema.update(self.model, iteration)
        losses = {"source": loss_source.detach(), "mixed": loss_mixed.detach()}
        return losses | label_statistics(pseudo, share, self.parts.label_space.num_classes)
