"""CorDA (Wang et al., ICCV 2021): DACS with a second task, depth, that helps to see and tells which pseudo-labels are easy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor

from iccld.batch import DomainBatch
from iccld.config.optimisation import Optimisation
from iccld.losses import berhu, cross_entropy, label_at
from iccld.methods.common.mixing import at_size, crop_pair, label_weight, mixed_view, source_view
from iccld.methods.common.parts import Parts, normalise
from iccld.methods.common.previous_stage import averaged_segmenter
from iccld.methods.common.protocol import Method, Stage
from iccld.methods.common.pseudo_label import confident_share, label_statistics, pseudo_label
from iccld.methods.common.segmenter_method import SegmenterMethod
from iccld.methods.common.supervised import source_then
from iccld.models import DepthSegmenter, Segmenter, disparity
from iccld.transforms import Draw, choose_classes, classmix


@dataclass(frozen=True)
class Settings:
    """Defaults are the released code's (qinenergy/corda, trainUDA_gta.py) but for `source_light` and `width`."""

    threshold: float = 0.968
    """Confidence that a pseudo-label must reach to count in the batch's weight (DACS)."""
    paste_ignore: bool = True
    """Whether 255 counts as one of the classes that ClassMix draws from."""
    source_depth_weight: float = 0.01
    """Weight of the depth loss on source pictures."""
    mixed_depth_weight: float = 0.001
    """Weight of the depth loss on mixed pictures."""
    difficulty: Literal["heads", "truth"] = "heads"
    """Which depth error lowers a label's weight: the released code's, between the source's and the target's "heads", or the paper's
    printed |d̂ - d|, between a prediction and the "truth" at hand."""
    settle: float = 0.1
    """Share of the iterations, the first ones, in which pseudo-labels come from before the exchange; 25,000 of 250,000."""
    width: int = 32
    """Channels of the exchanged features; 256 in the released code."""
    source_light: bool = True
    """Whether source pictures take the recipe's random light; the released code only crops them."""


def stages(parts: Parts, settings: Settings, optimisation: Mapping[str, Optimisation]) -> list[Stage]:
    """`source`, then `adapt`.  Released code has no source stage: it starts from an encoder trained on ImageNet or COCO."""

    def adapt(previous: Method | None) -> Method:
        return Corda(parts, settings, optimisation["adapt"], averaged_segmenter(previous, parts))

    return source_then(parts, optimisation, adapt=adapt)


def easiness(error: Tensor, truth: Tensor) -> Tensor:
    """relu(1 - error / d) + 0.001, 1 where the disparity is not known (d = 1), over its mean: (B, h, w) twice -> (B, h, w).

    The released code's weight of a label; its mean is 1 over the batch at hand.
    """
    score = ((1 - error / truth).clamp(min=0) + 1e-3 + (truth == 1)).clamp(max=1)
    return score / score.mean()


class Corda(SegmenterMethod[Settings]):
    """Cross-entropy and depth on source and mixed pictures, before and after the exchange of features."""

    headline_weights = "model"  # what the released code evaluates
    model: DepthSegmenter

    def __init__(self, parts: Parts, settings: Settings, optimisation: Optimisation, segmenter: Segmenter) -> None:
        model = DepthSegmenter(segmenter, parts.label_space.num_classes, settings.width)
        heads = [child for name, child in model.named_children() if name != "segmenter"]
        super().__init__(parts, settings, optimisation, segmenter, model=model, heads=heads)
        self.settled_at = settings.settle * optimisation.iterations

    def step(self, batch: DomainBatch, iteration: int, draw: Draw) -> dict[str, Tensor]:
        """One update from source and mixed pictures.  Cross-entropies in nats, depth in disparities, each ()."""
        views, settings, classes = self.parts.views, self.settings, self.parts.class_weight
        # 1. A random window of each picture, with its depth.
        source, target = crop_pair(batch, self.parts.crop, views, draw)
        assert source.depth is not None
        assert target.depth is not None
        # 2. The averaged model labels the target, at first from before the exchange; one weight for the whole batch (DACS).
        with torch.no_grad():
            labelled = cast(DepthSegmenter, self.ema.module).predictions(normalise(target.image))
            pseudo = pseudo_label(labelled.first_logits if iteration < self.settled_at else labelled.logits)  # (B, h, w)
        share = self.engine.all_reduce(confident_share(pseudo.confidence, settings.threshold).mean())  # ()
        weight = share.expand_as(source.label)
        weight = weight * target.valid
        # 3. ClassMix: labels, weights and depth follow the picture.
        pasted = choose_classes(source.label, draw, with_ignore=settings.paste_ignore)  # (B, H, W)
        mixed = mixed_view(pasted, source.image, target.image, views, draw)
        label = classmix(pasted, source.label, at_size(pseudo.label, self.parts.crop))
        weight = classmix(pasted, label_weight(source.label, classes), weight)
        depth = disparity(torch.cat([source.depth, classmix(pasted, source.depth, target.depth)]))  # (2B, H, W)
        # 4. Both tasks on both pictures, before and after the exchange.
        image = source_view(source.image, views, draw) if settings.source_light else source.image
        found = self.model.predictions(normalise(torch.cat([image, mixed])))
        # 5. Depth: each pixel by its domain's head, the source's where it was pasted.
        size = (int(found.depth.shape[-2]), int(found.depth.shape[-1]))
        depth = label_at(depth, size)  # (2B, h', w')
        from_source = torch.cat([torch.ones_like(pasted), pasted])
        by_head = label_at(from_source, size)
        first_depth, last_depth = (torch.where(by_head, map_[:, 0], map_[:, 1]).float() for map_ in (found.first_depth, found.depth))
        rows = len(image)
        known = depth != 1
        loss_depth, loss_mixed_depth = (
            berhu(first_depth[part], depth[part], known[part]) + berhu(last_depth[part], depth[part], known[part])
            for part in (slice(0, rows), slice(rows, None))
        )
        # 6. Labels whose depth the heads agree on count more.
        error = (found.depth[:, 0] - found.depth[:, 1] if settings.difficulty == "heads" else last_depth - depth).detach().float().abs()
        weight = weight * at_size(easiness(error[rows:], depth[rows:]), self.parts.crop)
        # 7. Cross-entropy on both, one update, one average.
        loss_source, loss_mixed = torch.zeros((), device=weight.device), torch.zeros((), device=weight.device)
        for logits in (found.first_logits, found.logits):
            logits_source, logits_mixed = logits.chunk(2)
            loss_source = loss_source + cross_entropy(logits_source, source.label, class_weight=classes)
            loss_mixed = loss_mixed + cross_entropy(logits_mixed, label, weight)
        loss_geometry = settings.source_depth_weight * loss_depth + settings.mixed_depth_weight * loss_mixed_depth
        self.update("segmenter", loss_source + loss_mixed + loss_geometry)
        self.ema.update(self.model, iteration)
        losses = {
            "source": loss_source.detach(),
            "mixed": loss_mixed.detach(),
            "depth": loss_depth.detach(),
            "mixed_depth": loss_mixed_depth.detach(),
        }
        return losses | label_statistics(pseudo, share, self.parts.label_space.num_classes)
