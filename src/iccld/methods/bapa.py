"""BAPA-Net (Liu et al., ICCV 2021): DACS that minds the edges of what it pastes, and draws the domains' prototypes together.

Only evaluation code was released (manmanjun/BAPA-Net), with the training's settings and its distance transform: how the numbers enter is
read from there and from the abstract, and each reading is named at its setting.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from iccld.batch import DomainBatch
from iccld.config.optimisation import Optimisation
from iccld.labels import IGNORE
from iccld.losses import cross_entropy, label_at, prototype_distance
from iccld.methods.common.mixing import at_size, crop_pair, label_weight, mixed_view, source_view
from iccld.methods.common.parts import Parts, normalise
from iccld.methods.common.previous_stage import averaged_segmenter
from iccld.methods.common.protocol import Method, Stage
from iccld.methods.common.prototypes import PrototypeBank, class_sums
from iccld.methods.common.pseudo_label import confident_share, label_statistics, pseudo_label
from iccld.methods.common.segmenter_method import SegmenterMethod
from iccld.methods.common.supervised import source_then
from iccld.models import Segmenter
from iccld.transforms import Draw, boundary_distance, choose_classes, classmix


@dataclass(frozen=True)
class Settings:
    """Numbers are those of the released configuration (configs/gta_configUDA.json)."""

    threshold: float = 0.968
    """Confidence that a pseudo-label must reach to count in the batch's weight (DACS)."""
    paste_ignore: bool = True
    """Whether 255 counts as one of the classes that ClassMix draws from, as in the released code of DACS."""
    boundary_weight: float = 4.0
    """λ_b, 4 for GTA5 and 3 for SYNTHIA.  Read as: a pixel at a pasted object's edge weighs 1 + λ_b, the farthest on its side 1."""
    boundary_scale: Literal["mean", "free"] = "mean"
    """Scale of those weights: "mean", divided by their mean over the picture, so that edges gain what the rest loses; "free", as they are,
    which multiplies the mixed loss by about 4.  Demo, seed 0, one run each: 16.3 and 15.7 mIoU."""
    boundary_band: float = 4.0
    """λ_d.  Read as: pixels nearer than this to such an edge are left out of the prototypes."""
    prototype_weight: float = 0.005
    """λ_p, weight of the distance between the domains' prototypes."""
    num_prototypes: int = 50
    """Read as: batches over which a domain's prototypes are averaged."""
    source_light: bool = True
    """Whether source pictures take the recipe's random light; the released code of DACS only crops them."""


def stages(parts: Parts, settings: Settings, optimisation: Mapping[str, Optimisation]) -> list[Stage]:
    """`source`, then `adapt`.  The paper has no source stage: it starts from an encoder trained on COCO."""

    def adapt(previous: Method | None) -> Method:
        return Bapa(parts, settings, optimisation["adapt"], averaged_segmenter(previous, parts))

    return source_then(parts, optimisation, adapt=adapt)


def edge_weight(distance: Tensor, pasted: Tensor, gain: float) -> Tensor:
    """1 + gain (1 - (d - 1) / (max d - 1)), the maximum taken over the pixel's side: (B, H, W) float and bool -> (B, H, W).

    1 + gain at the edge, 1 at the farthest pixel of either side; 1 where nothing was pasted.  From the released `utils/loss.py`, where the
    distance counts from 0.
    """
    inside = torch.where(pasted, distance, 0).amax((1, 2), keepdim=True)
    outside = torch.where(pasted, 0, distance).amax((1, 2), keepdim=True)
    farthest = torch.where(pasted, inside, outside)
    nearness = 1 - (distance - 1) / (farthest - 1).clamp(min=1)
    return torch.where(distance.isfinite(), 1 + gain * nearness.nan_to_num(0.0), 1.0)


class Bapa(SegmenterMethod[Settings]):
    """DACS's two cross-entropies, the mixed one weighed by the distance to edges, and the distance between prototypes."""

    headline_weights = "model"  # what the released code of DACS evaluates
    model: Segmenter

    def __init__(self, parts: Parts, settings: Settings, optimisation: Optimisation, segmenter: Segmenter) -> None:
        super().__init__(parts, settings, optimisation, segmenter)
        bank = (settings.num_prototypes, parts.label_space.num_classes, segmenter.decoder.feature_channels)
        self.source_bank, self.target_bank = PrototypeBank(*bank), PrototypeBank(*bank)

    def networks(self) -> Mapping[str, nn.Module]:
        return {**super().networks(), "source_bank": self.source_bank, "target_bank": self.target_bank}

    def step(self, batch: DomainBatch, iteration: int, draw: Draw) -> dict[str, Tensor]:
        """One update from source and mixed pictures.  Cross-entropies in nats, each ()."""
        views, settings, classes = self.parts.views, self.settings, self.parts.class_weight
        # 1. Windows, pseudo-labels and their one weight for the batch: as DACS.
        source, target = crop_pair(batch, self.parts.crop, views, draw)
        with torch.no_grad():
            pseudo = pseudo_label(self.ema.module(normalise(target.image)))  # (B, h, w)
        share = self.engine.all_reduce(confident_share(pseudo.confidence, settings.threshold).mean())  # ()
        weight = share.expand_as(source.label)
        weight = weight * target.valid
        # 2. ClassMix: half of the source's classes on the target.
        pasted = choose_classes(source.label, draw, with_ignore=settings.paste_ignore)  # (B, H, W)
        mixed = mixed_view(pasted, source.image, target.image, views, draw)
        label_target = at_size(pseudo.label, self.parts.crop)
        weight = classmix(pasted, label_weight(source.label, classes), weight)
        # 3. Boundary adaptation: the nearer to an edge of what was pasted, the more a pixel counts.
        distance = boundary_distance(pasted)  # (B, H, W) pixels
        edges = edge_weight(distance, pasted, settings.boundary_weight)
        weight = weight * (edges / edges.mean((1, 2), keepdim=True) if settings.boundary_scale == "mean" else edges)
        # 4. Cross-entropy on both.
        image = source_view(source.image, views, draw) if settings.source_light else source.image
        features = self.model.features(normalise(torch.cat([image, mixed])))  # (2B, C, h', w')
        logits_source, logits_mixed = self.model.decoder.logits(features).chunk(2)
        loss_source = cross_entropy(logits_source, source.label, class_weight=classes)
        loss_mixed = cross_entropy(logits_mixed, classmix(pasted, source.label, label_target), weight)
        # 5. Prototype alignment: source classes, and the target's in what was not pasted over, edges left out.
        features_source, features_mixed = features.chunk(2)
        is_target = ~pasted & (distance >= settings.boundary_band)
        is_target = is_target & target.valid
        loss_prototype = self._align(features_source, source.label, features_mixed, torch.where(is_target, label_target, IGNORE))
        self.update("segmenter", loss_source + loss_mixed + settings.prototype_weight * loss_prototype)
        self.ema.update(self.model, iteration)
        losses = {"source": loss_source.detach(), "mixed": loss_mixed.detach(), "prototype": loss_prototype.detach()}
        return losses | label_statistics(pseudo, share, self.parts.label_space.num_classes)

    def _align(self, features_source: Tensor, label_source: Tensor, features_target: Tensor, label_target: Tensor) -> Tensor:
        """This batch's prototypes of each domain drawn to the other's average over the last batches: -> ()."""
        num_classes, size = self.parts.label_space.num_classes, (int(features_source.shape[-2]), int(features_source.shape[-1]))
        means = []
        for features, label, bank in (
            (features_source, label_source, self.source_bank),
            (features_target, label_target, self.target_bank),
        ):
            sums, counts = class_sums(features, label_at(label, size), num_classes)
            means.append((sums / counts.clamp(min=1)[:, None], counts > 0))  # (K, C), (K,)
            total, count = self.engine.all_reduce(sums.detach(), "sum"), self.engine.all_reduce(counts, "sum")
            bank.insert(total / count.clamp(min=1)[:, None], count > 0)
        (mean_source, in_source), (mean_target, in_target) = means
        anchor_source, known_source = self.source_bank.means()
        anchor_target, known_target = self.target_bank.means()
        to_target = prototype_distance(mean_source, anchor_target, in_source & known_target)
        return to_target + prototype_distance(mean_target, anchor_source, in_target & known_source)
