"""What DAFormer and the methods built on it share: their settings, the frozen encoder, and the parts of a step that stay the same."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn

from iccld.batch import DomainBatch
from iccld.config.optimisation import Optimisation
from iccld.losses import feature_distance, majority_label
from iccld.methods.common.frozen_encoder import THINGS, thing_ids
from iccld.methods.common.mixing import crop_rare_pair
from iccld.methods.common.parts import Parts
from iccld.methods.common.segmenter_method import SegmenterMethod
from iccld.models import Segmenter
from iccld.transforms import Crop, Draw, LabelledCrop, WindowRule, choose_classes, classes_present


@dataclass(frozen=True)
class SelfTrainingSettings:
    """Settings with which DAFormer began; equations are its paper's, defaults its released configuration's, pixels shares of the crop."""

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
    """Share of the source crop that the class drawn by rare-class sampling must cover, else another window is tried: 1500 pixels of
    512 x 512 (DAFormer), 6000 of 1024 x 1024 (HRDA)."""
    window_max_share: float = 0.75
    """Share of the source crop's labelled pixels that no class may reach, else another window is tried."""
    window_tries: int = 10
    """Windows tried before the last one is taken as it is."""
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


S = TypeVar("S", bound=SelfTrainingSettings)
"""The method's own settings."""


class SelfTraining(SegmenterMethod[S]):
    """A segmenter that learns from its average's labels, and a frozen encoder that knows things."""

    def __init__(
        self,
        parts: Parts,
        settings: S,
        optimisation: Optimisation,
        segmenter: Segmenter,
        reference: nn.Module,
        *,
        model: nn.Module | None = None,
        heads: Iterable[nn.Module] = (),
    ) -> None:
        super().__init__(parts, settings, optimisation, segmenter, model=model, heads=heads)
        self.headline_weights = settings.evaluate
        self.reference = reference
        self.things = thing_ids(parts.label_space, settings.feature_classes)

    def networks(self) -> Mapping[str, nn.Module]:
        return {**super().networks(), "reference": self.reference}

    def windows(self, batch: DomainBatch, draw: Draw) -> tuple[LabelledCrop, Crop]:
        """A window of each source picture that shows the class it was drawn for, and any window of the target (DAFormer, section 3.2)."""
        rule = WindowRule(self.settings.window_share, self.settings.window_max_share, self.settings.window_tries)
        return crop_rare_pair(batch, self.parts.crop, self.parts.views, draw, rule)

    def choose_pasted(self, label: Tensor, draw: Draw) -> Tensor:
        """ClassMix's pixels, those of half of the classes of the batch or of each picture: (B, H, W) int64 -> (B, H, W) bool."""
        present = None
        if self.settings.mix_from == "batch":
            present = self.engine.all_reduce(classes_present(label).any(0).float(), "sum") > 0  # over all ranks
        return choose_classes(label, draw, with_ignore=self.settings.mix_ignore, present=present)

    def feature_distance(self, latent: Tensor, held: Tensor, label: Tensor) -> Tensor:
        """How far features lie from the frozen encoder's on cells of things (DAFormer, Eq. 7-9): (B, C, h, w) twice, (B, H, W) -> ()."""
        size = (int(held.shape[-2]), int(held.shape[-1]))
        majority = majority_label(label, size, self.parts.label_space.num_classes, self.settings.feature_ratio)
        return feature_distance(latent, held, torch.isin(majority, self.things.to(majority.device)))
