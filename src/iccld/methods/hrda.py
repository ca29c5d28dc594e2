"""HRDA (Hoyer, Dai and Van Gool, ECCV 2022): DAFormer's self-training at two resolutions that an attention fuses.

Equations are the paper's.  Where the released code differs from it, a setting names that, and the released behaviour is the default.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from iccld.batch import DomainBatch
from iccld.losses import feature_distance, majority_label
from iccld.methods.ema import Ema
from iccld.methods.handover import averaged_segmenter
from iccld.methods.ingredients import Ingredients, Optimisation, normalise
from iccld.methods.method import Method, Schedule, Stage
from iccld.methods.mixing import at_size, crop_rare_pair, label_weight, source_view, strong_view
from iccld.methods.optimizers import segmenter_optimizer
from iccld.methods.pseudo_label import class_histogram, confident_share, pseudo_label
from iccld.methods.reference import THINGS, reference_encoder, thing_ids
from iccld.methods.resolutions import draw_offsets, fused_cross_entropy, two_resolutions, with_borders
from iccld.methods.schedule import warmup_poly
from iccld.methods.supervised import Supervised
from iccld.models import Look, Offsets, Segmenter, halved
from iccld.predictor import Predictor
from iccld.transforms import Draw, choose_classes, classes_present, classmix


@dataclass(frozen=True)
class Settings:
    """HRDA's own settings and those of what it builds on; defaults from its released configuration, pixels as shares."""

    detail_weight: float = 0.1
    """Weight of the detail's own loss; the fused prediction has the rest (Eq. 12)."""
    attention_width: int = 32
    """Channels of the scale attention; 256 in the released code."""
    enlarge: int = 1
    """By how much pictures are enlarged first: 1, the context has half the working resolution (released); 2, the working resolution."""
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
    window_share: float = 6000 / 1024**2
    """Share of the source crop that the class drawn by rare-class sampling must cover, else another window is tried."""
    window_max_share: float = 0.75
    """Share of the source crop's labelled pixels that no class may reach, else another window is tried."""
    window_tries: int = 10
    """Windows tried before the last one is taken as it is."""
    margin_top: float = 30 / 1024
    """Upper share of a target picture whose pseudo-labels weigh 0."""
    margin_bottom: float = 240 / 1024
    """Lower share of a target picture whose pseudo-labels weigh 0 (the bonnet)."""
    margin_side: float = 30 / 2048
    """Left and right share of a target picture whose pseudo-labels weigh 0."""
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
        return Hrda(ingredients, settings, optimisation["adapt"], averaged_segmenter(previous, ingredients), encoder)

    made = {"source": source, "adapt": adapt}
    return [Stage(name, optimisation[name].iterations, made[name]) for name in made if optimisation[name].iterations > 0]


class Hrda(Method):
    """Self-training with a mean teacher, on a context and a detail of each picture."""

    def __init__(
        self, ingredients: Ingredients, settings: Settings, optimisation: Optimisation, segmenter: Segmenter, reference: nn.Module
    ) -> None:
        self.ingredients = ingredients
        self.settings = settings
        self.headline_weights = settings.evaluate
        self.model = two_resolutions(segmenter, ingredients.views.crop, settings.attention_width, settings.enlarge)
        self.ema = Ema(self.model, optimisation.ema_decay)
        self.reference = reference
        self.things = thing_ids(ingredients.label_space, settings.feature_classes)
        self.optimizer = segmenter_optimizer(segmenter, optimisation, self.model.attention)
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
        bordered = with_borders(batch, settings.margin_top, settings.margin_bottom, settings.margin_side)
        source, target = crop_rare_pair(
            bordered, views, draw, min_share=settings.window_share, max_share=settings.window_max_share, tries=settings.window_tries
        )
        assert source.label is not None
        assert target.valid is not None
        image = source_view(source.image, views, draw) if settings.source_light else source.image
        # 2. The averaged model labels the target (Eq. 3); all labels weigh the batch's share of confident ones (Eq. 4), 0 at borders.
        with torch.no_grad():
            pseudo = pseudo_label(self.ema.module(normalise(target.image)))  # (B, h, w)
        share = self.engine.all_reduce(confident_share(pseudo.confidence, settings.threshold).mean())  # ()
        # 3. ClassMix: half of the classes are cut out of the source and pasted on the target, with their labels.
        classes = classes_present(source.label).any(0).float() if settings.mix_from == "batch" else None
        classes = None if classes is None else self.engine.all_reduce(classes, "sum") > 0
        pasted = choose_classes(source.label, draw, with_ignore=settings.mix_ignore, present=classes)  # (B, H, W)
        label = classmix(pasted, source.label, at_size(pseudo.label, views.crop))
        weight = classmix(pasted, label_weight(source.label, class_weight), share * target.valid)
        mixed = strong_view(classmix(pasted, source.image, target.image), views, draw, once=settings.jitter_per == "batch")
        # 4. Context and detail of source and mixed pictures, fused (Eq. 11), and the loss of both (Eq. 12).
        offsets_source, offsets_mixed = (draw_offsets(self.model, views.crop, len(image), draw) for _ in range(2))
        look = self.model.look(normalise(torch.cat([image, mixed])), [*offsets_source, *offsets_mixed])
        look_source, look_mixed = look.chunk(2)
        loss_source = self._cross_entropy(look_source, offsets_source, source.label, None, class_weight)
        loss_mixed = self._cross_entropy(look_mixed, offsets_mixed, label, weight)
        # 5. The context's features of the source stay where they were (DAFormer, Eq. 9).
        with torch.no_grad():
            held = self.reference(halved(self.model.enlarged(normalise(image)))).latent
        majority = majority_label(source.label, held.shape[-2:], self.ingredients.label_space.num_classes, settings.feature_ratio)
        loss_feature = feature_distance(look_source.latent, held, torch.isin(majority, self.things.to(majority.device)))
        # 6. One update, one average.
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

    def _cross_entropy(
        self, look: Look, offsets: Offsets, label: Tensor, weight: Tensor | None = None, class_weight: Tensor | None = None
    ) -> Tensor:
        how = self.settings
        return fused_cross_entropy(
            self.model, look, offsets, label, weight, class_weight, detail_weight=how.detail_weight, count_ignored=how.count_ignored
        )

    def predictor(self, weights: str = "ema") -> Predictor:
        return self.ingredients.predictor(self.ema.module if weights == "ema" else self.model)
