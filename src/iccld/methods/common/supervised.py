"""The source stage that every adaptation method starts from: cross-entropy on labelled images (the paper's omitted pre-training)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from iccld.batch import DomainBatch
from iccld.losses import cross_entropy
from iccld.methods.common.parts import Optimisation, Parts, normalise
from iccld.methods.common.protocol import Method, Stage
from iccld.methods.common.segmenter_method import SegmenterMethod
from iccld.models import Segmenter
from iccld.transforms import Draw, blur, halve, jitter, random_crop, sensor_noise


class Supervised(SegmenterMethod[None]):
    """Trains a segmenter on the source alone; the average of its weights is kept beside it."""

    model: Segmenter

    def __init__(self, parts: Parts, optimisation: Optimisation, trained: Segmenter | None = None) -> None:
        """Train a fresh segmenter, or go on with one that is `trained`, at full resolution from the first step."""
        super().__init__(parts, None, optimisation, parts.make_segmenter() if trained is None else trained)
        self.half_until = parts.views.half_resolution * optimisation.iterations if trained is None else 0.0

    def step(self, batch: DomainBatch, iteration: int, generator: torch.Generator) -> dict[str, Tensor]:
        """One update from the source.  Loss in nats, ()."""
        views = self.parts.views
        draw = Draw(generator, self.engine.rank, self.engine.world_size, self.engine.device)
        # 1. A random window of each picture, in random light.
        source = random_crop(
            batch.source_image, draw, views.crop, label=batch.source_label, scale=views.source_scale, stretch=views.stretch, flip=views.flip
        )
        assert source.label is not None
        image, label = source.image, source.label
        if iteration < self.half_until:  # classes and layout are learnt as well from small pictures, four times faster
            image, label = halve(image, label)
        image = jitter(image, draw, probability=views.jitter_probability, strength=views.source_jitter, white_balance=views.white_balance)
        image = blur(image, draw, probability=views.blur_probability, sigma=views.blur_sigma)
        image = sensor_noise(image, draw, std=views.noise)  # (B, 3, H, W)
        # 2. Cross-entropy (Eq. 5) on the source.
        logits = self.model(normalise(image))  # (B, K, H/2, W/2)
        loss = cross_entropy(logits, label, class_weight=self.parts.class_weight)
        self.update("segmenter", loss)
        self.ema.update(self.model, iteration)
        return {"source": loss.detach()}


def source_then(parts: Parts, optimisation: Mapping[str, Optimisation], **later: Callable[[Method | None], Method]) -> list[Stage]:
    """`source`, then these by name; each with its iterations, and those without any left out."""

    def source(_: Method | None) -> Method:
        return Supervised(parts, optimisation["source"])

    made = {"source": source, **later}
    return [Stage(name, optimisation[name].iterations, make) for name, make in made.items() if optimisation[name].iterations > 0]
