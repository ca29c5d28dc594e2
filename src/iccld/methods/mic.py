"""MIC (Hoyer et al., CVPR 2023): DAFormer's self-training, and the same answer for a target picture with its blocks hidden.

Equations are the paper's.  Where the released code differs from it, a setting names that, and the released behaviour is the default.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from iccld.batch import DomainBatch
from iccld.config.optimisation import Optimisation
from iccld.losses import cross_entropy
from iccld.methods.common.daformer_family import SelfTraining
from iccld.methods.common.frozen_encoder import reference_encoder
from iccld.methods.common.mixing import at_size, label_weight, source_view, strong_view
from iccld.methods.common.parts import Parts, normalise
from iccld.methods.common.previous_stage import averaged_segmenter
from iccld.methods.common.protocol import Method, Stage
from iccld.methods.common.pseudo_label import confident_share, label_statistics, pseudo_label
from iccld.methods.common.supervised import source_then
from iccld.methods.common.two_resolutions import TwoResolutionSettings, draw_offsets, fused_cross_entropy, two_resolutions, with_borders
from iccld.models import Segmenter, TwoResolutions, halved
from iccld.transforms import Draw, block_mask, classmix

Labelled = tuple[Tensor, Tensor | None, Tensor | None]
"""label (B, H, W), weight of its pixels (B, H, W), weight of the classes (K,)."""


@dataclass(frozen=True)
class Settings(TwoResolutionSettings):
    """MIC's own settings and those of what it builds on; defaults from its released configuration, pixels as shares of the crop."""

    masked_weight: float = 1.0
    """Weight of the loss on masked pictures (Eq. 6)."""
    mask_ratio: float = 0.7
    """Probability that a block is hidden (Eq. 3)."""
    mask_block: float = 64 / 1024
    """Side of a block over the crop's shorter side: 64 of HRDA's 1024 pixels."""
    masked_view: Literal["strong", "plain"] = "strong"
    """Whether masked pictures are jittered and blurred first, "strong" (released), or "plain"."""
    resolutions: Literal[1, 2] = 1
    """1, on DAFormer; 2, on HRDA, as in the published scores: worth it where the working resolution is HRDA's.  `detail_weight` and
    `attention_width` are for 2."""


def stages(parts: Parts, settings: Settings, optimisation: Mapping[str, Optimisation]) -> list[Stage]:
    """`source`, then `adapt`.  The paper starts from ImageNet, without the first (0 iterations leave it out)."""

    def adapt(previous: Method | None) -> Method:
        encoder = reference_encoder(settings.reference, previous, parts)
        return Mic(parts, settings, optimisation["adapt"], averaged_segmenter(previous, parts), encoder)

    return source_then(parts, optimisation, adapt=adapt)


class Mic(SelfTraining[Settings]):
    """Self-training with a mean teacher, on mixed pictures and on masked ones."""

    model: Segmenter | TwoResolutions

    def __init__(self, parts: Parts, settings: Settings, optimisation: Optimisation, segmenter: Segmenter, reference: nn.Module) -> None:
        two = two_resolutions(segmenter, parts.crop, settings.attention_width) if settings.resolutions == 2 else None
        heads = [] if two is None else [two.attention]
        super().__init__(parts, settings, optimisation, segmenter, reference, model=two, heads=heads)

    def step(self, batch: DomainBatch, iteration: int, draw: Draw) -> dict[str, Tensor]:
        """One update from source, mixed and masked pictures.  Losses in nats, each ()."""
        views, settings, class_weight = self.parts.views, self.settings, self.parts.class_weight
        once = settings.jitter_per == "batch"
        # 1. A window of each source picture that shows the class it was drawn for (section 3.2); any window of the target.
        bordered = with_borders(batch, settings.margin_top, settings.margin_bottom, settings.margin_side)
        source, target = self.windows(bordered, draw)
        image = source_view(source.image, views, draw) if settings.source_light else source.image
        # 2. The averaged model labels the target (Eq. 3); all labels weigh the batch's share of confident ones (Eq. 4), 0 at borders.
        with torch.no_grad():
            pseudo = pseudo_label(self.ema.module(normalise(target.image)))  # (B, h, w)
        share = self.engine.all_reduce(confident_share(pseudo.confidence, settings.threshold).mean())  # ()
        trusted = share * target.valid  # (B, H, W)
        # 3. ClassMix: half of the classes are cut out of the source and pasted on the target, with their labels.
        pasted = self.choose_pasted(source.label, draw)  # (B, H, W)
        target_label = at_size(pseudo.label, self.parts.crop)
        label = classmix(pasted, source.label, target_label)
        weight = classmix(pasted, label_weight(source.label, class_weight), trusted)
        mixed = strong_view(classmix(pasted, source.image, target.image), views, draw, once=once)
        # 4. Blocks of the target are hidden, zero after normalisation; what they show is to be told from their surroundings (Eq. 3, 4).
        masked = strong_view(target.image, views, draw, once=once) if settings.masked_view == "strong" else target.image
        block = max(1, round(settings.mask_block * min(self.parts.crop)))
        hidden = share.new_full((len(masked),), settings.mask_ratio)  # (B,)
        masked = normalise(masked) * block_mask(hidden, self.parts.crop, draw, block=block)  # (B, 3, H, W)
        # 5. Cross-entropy on source, mixed and masked pictures (Eq. 5, 6).
        images = torch.cat([normalise(image), normalise(mixed), masked])
        labels = ((source.label, None, class_weight), (label, weight, None), (target_label, trusted, None))
        (loss_source, loss_mixed, loss_masked), latent = self._cross_entropies(images, labels, draw)
        # 6. The source's features stay where they were (DAFormer, Eq. 9).
        with torch.no_grad():
            held = self.reference(normalise(image) if settings.resolutions == 1 else halved(normalise(image))).latent
        loss_feature = self.feature_distance(latent[: len(held)], held, source.label)
        # 7. One update, one average.
        loss = loss_source + loss_mixed + settings.masked_weight * loss_masked + settings.feature_weight * loss_feature
        self.update("segmenter", loss)
        self.ema.update(self.model, iteration)
        losses = {
            "source": loss_source.detach(),
            "mixed": loss_mixed.detach(),
            "masked": loss_masked.detach(),
            "feature": loss_feature.detach(),
        }
        return losses | label_statistics(pseudo, share, self.parts.label_space.num_classes)

    def _cross_entropies(self, images: Tensor, labels: Sequence[Labelled], draw: Draw) -> tuple[list[Tensor], Tensor]:
        """(nB, 3, H, W), and n times label, weight of pixels and of classes -> n losses, and the latents of the pictures."""
        counted = self.settings.count_ignored
        if isinstance(self.model, Segmenter):
            features = self.model.encoder(images)
            logits = self.model.decoder(features.latent, features.pyramid).chunk(len(labels))  # each (B, K, h, w)
            return [cross_entropy(one, *which, count_ignored=counted) for one, which in zip(logits, labels, strict=True)], features.latent
        model, rows = self.model, len(images) // len(labels)
        offsets = [draw_offsets(model, self.parts.crop, rows, draw) for _ in labels]
        output = model.with_one_detail(images, [place for places in offsets for place in places])
        return [
            fused_cross_entropy(model, one, places, *which, detail_weight=self.settings.detail_weight, count_ignored=counted)
            for one, places, which in zip(output.chunk(len(labels)), offsets, labels, strict=True)
        ], output.latent
