"""The source stage that every adaptation method starts from: cross-entropy on labelled images (the paper's omitted pre-training)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from iccld.batch import DomainBatch
from iccld.losses import cross_entropy
from iccld.methods.ema import Ema
from iccld.methods.ingredients import Ingredients, Optimisation, normalise
from iccld.methods.method import Method, Schedule
from iccld.methods.optimizers import segmenter_optimizer
from iccld.methods.schedule import warmup_poly
from iccld.models import Segmenter
from iccld.predictor import Predictor
from iccld.transforms import Draw, blur, halve, jitter, random_crop, sensor_noise


class Supervised(Method):
    """Trains a segmenter on the source alone; the average of its weights is kept beside it."""

    def __init__(self, ingredients: Ingredients, optimisation: Optimisation, trained: Segmenter | None = None) -> None:
        """Train a fresh segmenter, or go on with one that is `trained`, at full resolution from the first step."""
        self.ingredients = ingredients
        self.half_until = ingredients.views.half_resolution * optimisation.iterations if trained is None else 0.0
        self.model = ingredients.make_segmenter() if trained is None else trained
        self.ema = Ema(self.model, optimisation.ema_decay)
        self.optimizer = segmenter_optimizer(self.model, optimisation)
        self.schedule = warmup_poly(self.optimizer, optimisation.iterations, optimisation.warmup, optimisation.power)

    def networks(self) -> Mapping[str, nn.Module]:
        return {"segmenter": self.model}

    def ema_networks(self) -> Mapping[str, nn.Module]:
        return {"segmenter": self.ema.module}

    def optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        return {"segmenter": self.optimizer}

    def schedules(self) -> Mapping[str, Schedule]:
        return {"segmenter": self.schedule}

    def step(self, batch: DomainBatch, iteration: int, generator: torch.Generator) -> dict[str, Tensor]:
        """One update from the source.  Loss in nats, ()."""
        views = self.ingredients.views
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
        loss = cross_entropy(logits, label, class_weight=self.ingredients.class_weight)
        self.update("segmenter", loss)
        self.ema.update(self.model, iteration)
        return {"source": loss.detach()}

    def predictor(self, weights: str = "ema") -> Predictor:
        return self.ingredients.predictor(self.ema.module if weights == "ema" else self.model)
