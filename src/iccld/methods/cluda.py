"""CLUDA (Vayyat et al. 2022): HRDA with a contrastive loss between the pixels of source and of mixed pictures.

Where the released code differs from a paper, a setting names that, and the released behaviour is the default.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from iccld.batch import DomainBatch
from iccld.config.optimisation import Optimisation
from iccld.losses import contrastive, label_at
from iccld.methods.common.daformer_family import SelfTraining
from iccld.methods.common.frozen_encoder import reference_encoder
from iccld.methods.common.mixing import at_size, label_weight, source_view, strong_view
from iccld.methods.common.parts import Parts, normalise
from iccld.methods.common.previous_stage import averaged_segmenter
from iccld.methods.common.protocol import Method, Stage
from iccld.methods.common.pseudo_label import confident_share, label_statistics, pseudo_label
from iccld.methods.common.supervised import source_then
from iccld.methods.common.two_resolutions import (
    TwoResolutionSettings,
    draw_offsets,
    fused_cross_entropy,
    two_resolutions,
    uncertain_offsets,
    with_borders,
)
from iccld.models import Segmenter, TwoResolutionOutput, TwoResolutions, halved
from iccld.transforms import Draw, classmix


@dataclass(frozen=True)
class Settings(TwoResolutionSettings):
    """CLUDA's own settings and those of what it builds on; defaults from its released code, pixels as shares."""

    contrast_weight: float = 1.0
    """Weight of the contrastive loss, on source and on mixed pictures."""
    contrast_side: int = 65
    """Largest side of the map of features that are contrasted."""
    temperature: float = 1.0
    """Divides the cosines of the contrastive loss."""
    uncertain_from: float = 0.3
    """Share of the iterations, 12,000 of 40,000, after which a mixed picture's detail lies where its context is least certain."""
    enlarge: int = 1
    """By how much pictures are enlarged first: 1, the context has half the working resolution (released); 2, the working resolution."""


def stages(parts: Parts, settings: Settings, optimisation: Mapping[str, Optimisation]) -> list[Stage]:
    """`source`, then `adapt`.  The paper starts from ImageNet, without the first (0 iterations leave it out)."""

    def adapt(previous: Method | None) -> Method:
        encoder = reference_encoder(settings.reference, previous, parts)
        return Cluda(parts, settings, optimisation["adapt"], averaged_segmenter(previous, parts), encoder)

    return source_then(parts, optimisation, adapt=adapt)


class Cluda(SelfTraining[Settings]):
    """Self-training at two resolutions, with features that gather by class."""

    model: TwoResolutions

    def __init__(self, parts: Parts, settings: Settings, optimisation: Optimisation, segmenter: Segmenter, reference: nn.Module) -> None:
        model = two_resolutions(segmenter, parts.crop, settings.attention_width, settings.enlarge)
        super().__init__(parts, settings, optimisation, segmenter, reference, model=model, heads=[model.attention])
        self.uncertain_from = settings.uncertain_from * optimisation.iterations

    def step(self, batch: DomainBatch, iteration: int, draw: Draw) -> dict[str, Tensor]:
        """One update from source and mixed pictures.  Losses in nats, each ()."""
        views, settings, class_weight = self.parts.views, self.settings, self.parts.class_weight
        # 1. A window of each source picture that shows the class it was drawn for (section 3.2); any window of the target.
        bordered = with_borders(batch, settings.margin_top, settings.margin_bottom, settings.margin_side)
        source, target = self.windows(bordered, draw)
        image = source_view(source.image, views, draw) if settings.source_light else source.image
        # 2. The averaged model labels the target (Eq. 3); all labels weigh the batch's share of confident ones (Eq. 4), 0 at borders.
        with torch.no_grad():
            pseudo = pseudo_label(self.ema.module(normalise(target.image)))  # (B, h, w)
        share = self.engine.all_reduce(confident_share(pseudo.confidence, settings.threshold).mean())  # ()
        # 3. ClassMix: half of the classes are cut out of the source and pasted on the target, with their labels.
        pasted = self.choose_pasted(source.label, draw)  # (B, H, W)
        label = classmix(pasted, source.label, at_size(pseudo.label, self.parts.crop))
        weight = classmix(pasted, label_weight(source.label, class_weight), share * target.valid)
        mixed = strong_view(classmix(pasted, source.image, target.image), views, draw, once=settings.jitter_per == "batch")
        # 4. Context and detail of source and mixed pictures, fused (Eq. 11), and the loss of both (Eq. 12).
        offsets_source, offsets_mixed = (draw_offsets(self.model, self.parts.crop, len(image), draw) for _ in range(2))
        if iteration >= self.uncertain_from:
            offsets_mixed = uncertain_offsets(self.model, normalise(mixed))
        output = self.model.with_one_detail(normalise(torch.cat([image, mixed])), [*offsets_source, *offsets_mixed])
        output_source, output_mixed = output.chunk(2)
        loss = partial(fused_cross_entropy, self.model, detail_weight=settings.detail_weight, count_ignored=settings.count_ignored)
        loss_source = loss(output_source, offsets_source, source.label, class_weight=class_weight)
        loss_mixed = loss(output_mixed, offsets_mixed, label, weight)
        # 5. The context's features of the source stay where they were (DAFormer, Eq. 9).
        with torch.no_grad():
            held = self.reference(halved(self.model.enlarged(normalise(image)))).latent
        loss_feature = self.feature_distance(output_source.latent, held, source.label)
        # 6. Features of the context gather by class, in source and in mixed pictures.
        loss_contrast = self._contrast(output_source, source.label) + self._contrast(output_mixed, label, weight)
        # 7. One update, one average.
        loss_held = settings.feature_weight * loss_feature + settings.contrast_weight * loss_contrast
        self.update("segmenter", loss_source + loss_mixed + loss_held)
        self.ema.update(self.model, iteration)
        losses = {
            "source": loss_source.detach(),
            "mixed": loss_mixed.detach(),
            "feature": loss_feature.detach(),
            "contrast": loss_contrast.detach(),
        }
        return losses | label_statistics(pseudo, share, self.parts.label_space.num_classes)

    def _contrast(self, output: TwoResolutionOutput, label: Tensor, weight: Tensor | None = None) -> Tensor:
        height, width = output.features.shape[-2:]
        size = (min(self.settings.contrast_side, height), min(self.settings.contrast_side, width))
        features = output.features
        if size != (height, width):
            features = nn.functional.interpolate(features, size=size, mode="bilinear", align_corners=False)
        small = None if weight is None else label_at(weight, size)
        return contrastive(features, label_at(label, size), small, self.settings.temperature)
