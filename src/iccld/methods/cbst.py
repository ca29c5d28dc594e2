"""CBST (Zou et al., ECCV 2018): rounds of labelling the target, an equal share of each class, and training on it."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from iccld.batch import DomainBatch
from iccld.config.optimisation import Optimisation
from iccld.errors import ConfigError
from iccld.labels import IGNORE
from iccld.losses import cross_entropy
from iccld.methods.common.mixing import at_size, crop_pair, source_view
from iccld.methods.common.parts import Parts, normalise
from iccld.methods.common.previous_stage import averaged_segmenter
from iccld.methods.common.protocol import Method, Stage
from iccld.methods.common.pseudo_label import class_histogram
from iccld.methods.common.segmenter_method import SegmenterMethod
from iccld.methods.common.supervised import source_then
from iccld.models import Segmenter
from iccld.transforms import Draw

BINS = 4096
"""Bins of the confidences' histograms: λ_c is exact to 1/4096, and histograms of several processes add up; sorted lists would not."""


@dataclass(frozen=True)
class Settings:
    """Defaults are the released code's for GTA5; `docs` of each recipe say where another source differs."""

    rounds: int = 6
    """Times that the target is labelled anew; the stage's iterations are shared out evenly."""
    portion: float = 0.15
    """Share of each class's pixels that the first round keeps; 0.15 for GTA5, 0.20 for SYNTHIA."""
    portion_step: float = 0.05
    """What each further round adds to that share."""
    portion_cap: float = 0.5
    """Largest share."""
    batches: int = 50
    """Target batches on which a round finds its thresholds; the released code takes the whole target."""
    light: bool = True
    """Whether source and target pictures take the recipe's random light; the released code crops, scales and mirrors only."""

    def __post_init__(self) -> None:
        if self.rounds < 1 or self.batches < 1:
            raise ConfigError(f"settings.rounds is {self.rounds} and settings.batches {self.batches}; use at least 1")


def stages(parts: Parts, settings: Settings, optimisation: Mapping[str, Optimisation]) -> list[Stage]:
    """`source`, then `adapt` with all rounds."""

    def adapt(previous: Method | None) -> Method:
        return Cbst(parts, settings, optimisation["adapt"], averaged_segmenter(previous, parts))

    return source_then(parts, optimisation, adapt=adapt)


def confidence_counts(probability: Tensor) -> Tensor:
    """(B, K, h, w) -> (K, BINS): how often each class is predicted with a confidence in each bin."""
    confidence, label = probability.max(1)
    bins = (confidence * BINS).long().clamp(max=BINS - 1)
    num_classes = probability.shape[1]
    return torch.bincount((label * BINS + bins).flatten(), minlength=num_classes * BINS).view(num_classes, BINS).double()


def class_thresholds(counts: Tensor, portion: float) -> Tensor:
    """λ_c of Eq. 6, the confidence that the most confident `portion` of class c's pixels reach: (K, BINS) -> (K,) float32.

    The lower edge of the highest bin down to which at least that share lies.  A class that is never predicted has 1, as in the released
    code: nothing but certainty would be kept of it.
    """
    above = counts.flip(1).cumsum(1)  # pixels in the highest bin, in the two highest, ...
    totals = above[:, -1:]
    wanted = (portion * totals).clamp(min=1)
    bins_down = (above < wanted).sum(1)  # (K,) bins above the one that holds the threshold
    thresholds = (BINS - 1 - bins_down).clamp(min=1) / BINS
    return torch.where(totals[:, 0] > 0, thresholds, torch.ones_like(thresholds)).float()


def balanced_label(probability: Tensor, thresholds: Tensor) -> Tensor:
    """Eq. 7: argmax p_c / λ_c where that maximum is at least 1, otherwise 255: (B, K, h, w), (K,) -> (B, h, w) int64."""
    score, label = (probability / thresholds[:, None, None]).max(1)
    return torch.where(score >= 1, label, IGNORE)


class Cbst(SegmenterMethod[Settings]):
    """Cross-entropy on the source and on the target's class-balanced labels of this round (Eq. 4).

    Differs from the released code, which writes label files: the model of the round's beginning is kept and labels crops as they come.
    Without the paper's spatial priors (CBST, not CBST-SP).
    """

    headline_weights = "model"  # the released code knows no average

    def __init__(self, parts: Parts, settings: Settings, optimisation: Optimisation, segmenter: Segmenter) -> None:
        super().__init__(parts, settings, optimisation, segmenter)
        self.round_batches = settings.batches
        self.round_length = max(-(-optimisation.iterations // settings.rounds), 1)
        self.finished_rounds = -1
        self.thresholds = torch.ones(parts.label_space.num_classes)
        self.labeller = copy.deepcopy(segmenter).eval().requires_grad_(False)

    def networks(self) -> Mapping[str, nn.Module]:
        return {**super().networks(), "labeller": self.labeller}

    def state_dict(self) -> dict[str, Any]:
        return {"finished_rounds": self.finished_rounds, "thresholds": self.thresholds}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.finished_rounds, self.thresholds = int(state["finished_rounds"]), state["thresholds"].to(self.engine.device)

    def starts_round(self, iteration: int) -> bool:
        return iteration % self.round_length == 0

    @torch.no_grad()
    def start_round(self, target_loader: Iterable[DomainBatch]) -> None:
        """Freeze the model as this round's labeller, and find λ_c on its predictions of whole target pictures (Algorithm 1)."""
        self.labeller.load_state_dict(self.model.state_dict())
        counts = torch.zeros(self.parts.label_space.num_classes, BINS, dtype=torch.float64, device=self.engine.device)
        for batch in target_loader:
            with self.engine.autocast():
                counts += confidence_counts(self.labeller(normalise(batch.target_image.float() / 255)).float().softmax(1))
        self.finished_rounds += 1
        self.thresholds = class_thresholds(self.engine.all_reduce(counts, "sum"), self.portion)

    @property
    def portion(self) -> float:
        """Share of each class that this round keeps."""
        settings = self.settings
        return min(settings.portion + settings.portion_step * max(self.finished_rounds, 0), settings.portion_cap)

    def step(self, batch: DomainBatch, iteration: int, draw: Draw) -> dict[str, Tensor]:
        """One update from source and target.  Losses in nats, each ()."""
        views, classes = self.parts.views, self.parts.class_weight
        # 1. A random window of each picture.
        source, target = crop_pair(batch, self.parts.crop, views, draw)
        # 2. This round's labels of the target (Eq. 7).
        with torch.no_grad():
            label = balanced_label(self.labeller(normalise(target.image)).float().softmax(1), self.thresholds)  # (B, h, w)
        share = (label != IGNORE).float().mean()
        label = torch.where(target.valid, at_size(label, self.parts.crop), IGNORE)  # (B, H, W)
        # 3. Cross-entropy on both (Eq. 4); one update.
        images = torch.cat([source.image, target.image])
        if self.settings.light:
            images = source_view(images, views, draw)
        logits_source, logits_target = self.model(normalise(images)).chunk(2)  # (B, K, h, w)
        loss_source = cross_entropy(logits_source, source.label, class_weight=classes)
        loss_target = cross_entropy(logits_target, label)
        self.update("segmenter", loss_source + loss_target)
        self.ema.update(self.model, iteration)
        return {
            "source": loss_source.detach(),
            "target": loss_target.detach(),
            "pseudo_label_share": share,
            "pseudo_label_histogram": class_histogram(label, self.parts.label_space.num_classes),
        }
