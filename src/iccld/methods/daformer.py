"""DAFormer (Hoyer, Dai and Van Gool, CVPR 2022): DACS with rare-class sampling and a feature distance to a frozen encoder.

Equations are the paper's.  Where the released code differs from it, a setting names that, and the released behaviour is the default.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from iccld.batch import DomainBatch
from iccld.config.optimisation import Optimisation
from iccld.losses import cross_entropy
from iccld.methods.common.daformer_family import SelfTraining, SelfTrainingSettings
from iccld.methods.common.frozen_encoder import reference_encoder
from iccld.methods.common.mixing import at_size, border_mask, label_weight, source_view, strong_view
from iccld.methods.common.parts import Parts, normalise
from iccld.methods.common.previous_stage import averaged_segmenter
from iccld.methods.common.protocol import Method, Stage
from iccld.methods.common.pseudo_label import confident_share, label_statistics, pseudo_label
from iccld.methods.common.supervised import source_then
from iccld.models import Segmenter
from iccld.transforms import Draw, classmix


@dataclass(frozen=True)
class Settings(SelfTrainingSettings):
    """DAFormer's own settings, beside those it shares with what is built on it; pixels as shares of its 512 x 512 crop."""

    margin_top: float = 15 / 512
    """Upper rows of the target crop whose pseudo-labels weigh 0, as a share (rectification)."""
    margin_bottom: float = 120 / 512
    """Lower rows of the target crop whose pseudo-labels weigh 0, as a share (the bonnet)."""


def stages(parts: Parts, settings: Settings, optimisation: Mapping[str, Optimisation]) -> list[Stage]:
    """`source`, then `adapt`.  The paper starts from ImageNet, without the first (0 iterations leave it out)."""

    def adapt(previous: Method | None) -> Method:
        encoder = reference_encoder(settings.reference, previous, parts)
        return Daformer(parts, settings, optimisation["adapt"], averaged_segmenter(previous, parts), encoder)

    return source_then(parts, optimisation, adapt=adapt)


class Daformer(SelfTraining[Settings]):
    """Self-training with a mean teacher; the source keeps the encoder's knowledge of things."""

    model: Segmenter

    def step(self, batch: DomainBatch, iteration: int, draw: Draw) -> dict[str, Tensor]:
        """One update from source and mixed pictures.  Losses in nats, each ()."""
        views, settings, class_weight = self.parts.views, self.settings, self.parts.class_weight
        # 1. A window of each source picture that shows the class it was drawn for (section 3.2); any window of the target.
        source, target = self.windows(batch, draw)
        image = source_view(source.image, views, draw) if settings.source_light else source.image
        # 2. The averaged model labels the target (Eq. 3); all labels weigh the batch's share of confident ones (Eq. 4), 0 on margins.
        with torch.no_grad():
            pseudo = pseudo_label(self.ema.module(normalise(target.image)))  # (B, h, w)
        share = self.engine.all_reduce(confident_share(pseudo.confidence, settings.threshold).mean())  # ()
        trusted = border_mask(self.parts.crop, settings.margin_top, settings.margin_bottom, 0.0, share.device).expand(source.label.shape)
        trusted = trusted & target.valid
        # 3. ClassMix: half of the classes are cut out of the source and pasted on the target, with their labels.
        pasted = self.choose_pasted(source.label, draw)  # (B, H, W)
        label = classmix(pasted, source.label, at_size(pseudo.label, self.parts.crop))
        weight = classmix(pasted, label_weight(source.label, class_weight), share * trusted)
        mixed = strong_view(classmix(pasted, source.image, target.image), views, draw, once=settings.jitter_per == "batch")
        # 4. Cross-entropy on the source (Eq. 1) and on the mixed pictures (Eq. 2); the source's features stay where they were (Eq. 9).
        features = self.model.encoder(normalise(torch.cat([image, mixed])))
        logits_source, logits_mixed = self.model.decoder(features.latent, features.pyramid).chunk(2)  # each (B, K, h, w)
        loss_source = cross_entropy(logits_source, source.label, class_weight=class_weight, count_ignored=settings.count_ignored)
        loss_mixed = cross_entropy(logits_mixed, label, weight, count_ignored=settings.count_ignored)
        latent = features.latent.chunk(2)[0]  # (B, C, h', w')
        with torch.no_grad():
            held = self.reference(normalise(image)).latent
        loss_feature = self.feature_distance(latent, held, source.label)
        # 5. One update, one average.
        self.update("segmenter", loss_source + loss_mixed + settings.feature_weight * loss_feature)
        self.ema.update(self.model, iteration)
        losses = {"source": loss_source.detach(), "mixed": loss_mixed.detach(), "feature": loss_feature.detach()}
        return losses | label_statistics(pseudo, share, self.parts.label_space.num_classes)
