"""DAFormer (Hoyer, Dai and Van Gool, CVPR 2022): DACS with rare-class sampling and a feature distance to a frozen encoder.

Equations are the paper's.  Where the released code differs from it, a setting names that, and the released behaviour is the default.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from iccld.batch import DomainBatch
from iccld.losses import cross_entropy, feature_distance, majority_label
from iccld.methods.ema import Ema
from iccld.methods.handover import averaged_segmenter
from iccld.methods.ingredients import Ingredients, Optimisation, normalise
from iccld.methods.method import Method, Schedule, Stage
from iccld.methods.mixing import at_size, border_mask, crop_rare_pair, label_weight, source_view, strong_view
from iccld.methods.optimizers import segmenter_optimizer
from iccld.methods.pseudo_label import class_histogram, confident_share, pseudo_label
from iccld.methods.reference import THINGS, reference_encoder, thing_ids
from iccld.methods.schedule import warmup_poly
from iccld.methods.supervised import Supervised
from iccld.models import Segmenter
from iccld.predictor import Predictor
from iccld.transforms import Draw, choose_classes, classes_present, classmix


@dataclass(frozen=True)
class Settings:
    """DAFormer's own settings; defaults from its released configuration, pixels as shares of its 512 x 512 crop."""

    threshold: float = 0.968
    """Confidence that a pseudo-label must reach to count in the batch's weight (Eq. 4)."""
    feature_weight: float = 0.005
    """Weight of the feature distance (Eq. 9)."""
    feature_classes: tuple[str, ...] = THINGS
    """Classes on which features are held (Eq. 7)."""
    feature_ratio: float = 0.75
    """Share of a feature's cell that one class must cover for the cell to count as that class (Eq. 8)."""
    reference: Literal["source", "initial"] = "source"
    """Frozen encoder that features are held to: "source", that of the source stage, or "initial", the pre-trained one."""
    window_share: float = 1500 / 512**2
    """Share of the source crop that the class drawn by rare-class sampling must cover, else another window is tried."""
    window_max_share: float = 0.75
    """Share of the source crop's labelled pixels that no class may reach, else another window is tried."""
    window_tries: int = 10
    """Windows tried before the last one is taken as it is."""
    margin_top: float = 15 / 512
    """Upper rows of the target crop whose pseudo-labels weigh 0, as a share (rectification)."""
    margin_bottom: float = 120 / 512
    """Lower rows of the target crop whose pseudo-labels weigh 0, as a share (the bonnet)."""
    mix_from: Literal["batch", "picture"] = "batch"
    """Where ClassMix takes the classes it halves from: the "batch" (released), or each "picture" (the paper)."""
    mix_ignore: bool = True
    """Whether unlabelled counts as a class of ClassMix (released)."""
    jitter_per: Literal["batch", "picture"] = "batch"
    """Whether to jitter and blur mixed pictures is drawn once a "batch" (released) or for each "picture"."""
    count_ignored: bool = True
    """Whether the cross-entropy is averaged over unlabelled pixels too (released)."""
    source_light: bool = True
    """Whether source pictures take the recipe's random light; the released code only crops them."""
    evaluate: Literal["model", "ema"] = "model"
    """Weights of the headline score: the trained "model" (released) or its average, "ema"."""


def stages(ingredients: Ingredients, settings: Settings, optimisation: Mapping[str, Optimisation]) -> list[Stage]:
    """`source`, then `adapt`.  The paper starts from ImageNet, without the first (0 iterations leave it out)."""

    def source(_: Method | None) -> Method:
        return Supervised(ingredients, optimisation["source"])

    def adapt(previous: Method | None) -> Method:
        encoder = reference_encoder(settings.reference, previous, ingredients)
        return Daformer(ingredients, settings, optimisation["adapt"], averaged_segmenter(previous, ingredients), encoder)

    made = {"source": source, "adapt": adapt}
    return [Stage(name, optimisation[name].iterations, made[name]) for name in made if optimisation[name].iterations > 0]


class Daformer(Method):
    """Self-training with a mean teacher; the source keeps the encoder's knowledge of things."""

    def __init__(
        self, ingredients: Ingredients, settings: Settings, optimisation: Optimisation, segmenter: Segmenter, reference: nn.Module
    ) -> None:
        self.ingredients = ingredients
        self.settings = settings
        self.headline_weights = settings.evaluate
        self.model = segmenter
        self.ema = Ema(segmenter, optimisation.ema_decay)
        self.reference = reference
        self.things = thing_ids(ingredients.label_space, settings.feature_classes)
        self.optimizer = segmenter_optimizer(segmenter, optimisation)
        self.schedule = warmup_poly(self.optimizer, optimisation.iterations, optimisation.warmup, optimisation.power)

    def networks(self) -> Mapping[str, nn.Module]:
        return {"segmenter": self.model, "reference": self.reference}

    def ema_networks(self) -> Mapping[str, nn.Module]:
        return {"segmenter": self.ema.module}

    def optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        return {"segmenter": self.optimizer}

    def schedules(self) -> Mapping[str, Schedule]:
        return {"segmenter": self.schedule}

    def step(self, batch: DomainBatch, iteration: int, generator: torch.Generator) -> dict[str, Tensor]:
        """One update from source and mixed pictures.  Losses in nats, each ()."""
        views, settings, class_weight = self.ingredients.views, self.settings, self.ingredients.class_weight
        draw = Draw(generator, self.engine.rank, self.engine.world_size, self.engine.device)
        # 1. A window of each source picture that shows the class it was drawn for (section 3.2); any window of the target.
        source, target = crop_rare_pair(
            batch, views, draw, min_share=settings.window_share, max_share=settings.window_max_share, tries=settings.window_tries
        )
        assert source.label is not None
        image = source_view(source.image, views, draw) if settings.source_light else source.image
        # 2. The averaged model labels the target (Eq. 3); all labels weigh the batch's share of confident ones (Eq. 4), 0 on margins.
        with torch.no_grad():
            pseudo = pseudo_label(self.ema.module(normalise(target.image)))  # (B, h, w)
        share = self.engine.all_reduce(confident_share(pseudo.confidence, settings.threshold).mean())  # ()
        trusted = border_mask(views.crop, settings.margin_top, settings.margin_bottom, 0.0, share.device).expand(source.label.shape)
        if target.valid is not None:
            trusted = trusted & target.valid
        # 3. ClassMix: half of the classes are cut out of the source and pasted on the target, with their labels.
        classes = classes_present(source.label).any(0).float() if settings.mix_from == "batch" else None
        classes = None if classes is None else self.engine.all_reduce(classes, "sum") > 0
        pasted = choose_classes(source.label, draw, with_ignore=settings.mix_ignore, present=classes)  # (B, H, W)
        label = classmix(pasted, source.label, at_size(pseudo.label, views.crop))
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
        majority = majority_label(source.label, latent.shape[-2:], self.ingredients.label_space.num_classes, settings.feature_ratio)
        loss_feature = feature_distance(latent, held, torch.isin(majority, self.things.to(majority.device)))
        # 5. One update, one average.
        self.update("segmenter", loss_source + loss_mixed + settings.feature_weight * loss_feature)
        self.ema.update(self.model, iteration)
        return {
            "source": loss_source.detach(),
            "mixed": loss_mixed.detach(),
            "feature": loss_feature.detach(),
            "pseudo_label_share": share,
            "pseudo_label_histogram": class_histogram(pseudo.label, self.ingredients.label_space.num_classes),
            "entropy": pseudo.entropy,
        }

    def predictor(self, weights: str = "ema") -> Predictor:
        return self.ingredients.predictor(self.ema.module if weights == "ema" else self.model)
