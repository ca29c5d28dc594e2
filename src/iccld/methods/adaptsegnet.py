"""AdaptSegNet (Tsai et al., CVPR 2018): class maps of the target are trained to be taken for the source's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import torch
from torch import Tensor, nn

from iccld.batch import DomainBatch
from iccld.config.optimisation import Optimisation
from iccld.errors import ConfigError
from iccld.losses import SOURCE, TARGET, cross_entropy, domain_bce
from iccld.methods.common.mixing import crop_pair, source_view
from iccld.methods.common.parts import Parts, normalise
from iccld.methods.common.previous_stage import averaged_segmenter
from iccld.methods.common.protocol import Method, Schedule, Stage
from iccld.methods.common.schedule import warmup_poly
from iccld.methods.common.segmenter_method import SegmenterMethod
from iccld.methods.common.supervised import source_then
from iccld.models import AtrousClassifier, Features, PatchDiscriminator, Segmenter
from iccld.transforms import Draw


@dataclass(frozen=True)
class Settings:
    """Defaults are the released code's (wasidennis/AdaptSegNet, train_gta2cityscapes_multi.py) but for the last four."""

    levels: int = 1
    """1, or 2 with an auxiliary classifier and discriminator on the encoder's second-last level.  41.4 in the paper's table is 1."""
    adversarial_weight: float = 0.001
    """Weight of Eq. 4 at the last level."""
    auxiliary_adversarial_weight: float = 0.0002
    """Weight of Eq. 4 at the auxiliary level."""
    auxiliary_weight: float = 0.1
    """Weight of the auxiliary classifier's cross-entropy."""
    discriminator_learning_rate: float = 1e-4
    """Learning rate of the discriminators' Adam (0.9, 0.99); it decays with the segmenter's."""
    discriminator_width: int = 32
    """Channels of the discriminator's first layer; 64 in the released code."""
    full_size: bool = False
    """Whether discriminators see maps at the crop's size, as in the released code, instead of the size the network gives them."""
    source_light: bool = True
    """Whether source pictures take the recipe's random light; the released code does not even crop them."""

    def __post_init__(self) -> None:
        if self.levels not in (1, 2):
            raise ConfigError(f"settings.levels is {self.levels}; use 1 or 2")


def stages(parts: Parts, settings: Settings, optimisation: Mapping[str, Optimisation]) -> list[Stage]:
    """`source`, then `adapt`.  Released code has no source stage: it starts from an encoder trained on ImageNet."""

    def adapt(previous: Method | None) -> Method:
        return AdaptSegNet(parts, settings, optimisation["adapt"], averaged_segmenter(previous, parts))

    return source_then(parts, optimisation, adapt=adapt)


class AdaptSegNet(SegmenterMethod[Settings]):
    """Cross-entropy on the source, and an adversary of the target's class maps, at one level or two (Eq. 1, 5)."""

    headline_weights = "model"  # the released code knows no average
    model: Segmenter

    def __init__(self, parts: Parts, settings: Settings, optimisation: Optimisation, segmenter: Segmenter) -> None:
        num_classes, width = parts.label_space.num_classes, settings.discriminator_width
        self.discriminators = nn.ModuleList(PatchDiscriminator(num_classes, width) for _ in range(settings.levels))
        channels = cast(tuple[int, ...], segmenter.encoder.pyramid_channels)[-1]
        self.auxiliary = AtrousClassifier(channels, num_classes) if settings.levels == 2 else None
        super().__init__(parts, settings, optimisation, segmenter, heads=[] if self.auxiliary is None else [self.auxiliary])
        self.plan = optimisation

    @cached_property
    def discriminator_optimizer(self) -> torch.optim.Optimizer:
        """The discriminators' Adam."""
        return torch.optim.Adam(self.discriminators.parameters(), lr=self.settings.discriminator_learning_rate, betas=(0.9, 0.99))

    @cached_property
    def discriminator_schedule(self) -> Schedule:
        """Its learning rate decays with the segmenter's."""
        return warmup_poly(self.discriminator_optimizer, self.plan.iterations, self.plan.warmup_steps, self.plan.power)

    def networks(self) -> Mapping[str, nn.Module]:
        auxiliary = {} if self.auxiliary is None else {"auxiliary": self.auxiliary}
        return {**super().networks(), "discriminators": self.discriminators, **auxiliary}

    def optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        return {**super().optimizers(), "discriminator": self.discriminator_optimizer}

    def schedules(self) -> Mapping[str, Schedule]:
        return {**super().schedules(), "discriminator": self.discriminator_schedule}

    def step(self, batch: DomainBatch, iteration: int, draw: Draw) -> dict[str, Tensor]:
        """Update the segmenter once, then the discriminators once.  Losses in nats, each ()."""
        views, settings, classes = self.parts.views, self.settings, self.parts.class_weight
        # 1. A random window of each picture.
        source, target = crop_pair(batch, self.parts.crop, views, draw)
        image = source_view(source.image, views, draw) if settings.source_light else source.image
        # 2. Class maps of both domains; the auxiliary level, where there is one, comes second.
        levels = self._logits(normalise(torch.cat([image, target.image])))  # each (2B, K, h, w)
        # 3. Segmenter: label the source (Eq. 3), and let target maps pass for source maps (Eq. 4).
        weights = ((1.0, settings.adversarial_weight), (settings.auxiliary_weight, settings.auxiliary_adversarial_weight))
        losses: dict[str, Tensor] = {}
        total = torch.zeros((), device=image.device)
        # One level or two: the tuples of weights and names are as long as the most.
        for logits, discriminator, (weight, adversarial), name in zip(levels, self.discriminators, weights, ("", "_aux"), strict=False):
            logits_source, logits_target = logits.chunk(2)
            loss_source = cross_entropy(logits_source, source.label, class_weight=classes)
            loss_adversarial = domain_bce(discriminator(self._map(logits_target)), SOURCE)
            total = total + weight * loss_source + adversarial * loss_adversarial  # Eq. 1; summed over levels, Eq. 5
            losses |= {f"source{name}": loss_source.detach(), f"adversarial{name}": loss_adversarial.detach()}
        self.update("segmenter", total)
        # 4. Discriminators: tell the domains apart (Eq. 2), on detached maps; half weight each, as in the released code.
        loss_domain = torch.zeros((), device=image.device)
        for logits, discriminator in zip(levels, self.discriminators, strict=True):
            answer_source, answer_target = discriminator(self._map(logits.detach())).chunk(2)
            loss_domain = loss_domain + (domain_bce(answer_source, SOURCE) + domain_bce(answer_target, TARGET)) / 2
        self.update("discriminator", loss_domain)
        self.ema.update(self.model, iteration)
        return losses | {"domain": loss_domain.detach()}

    def _logits(self, images: Tensor) -> list[Tensor]:
        features: Features = self.model.encoder(images)
        logits: Tensor = self.model.decoder(features.latent, features.pyramid)
        return [logits] if self.auxiliary is None else [logits, self.auxiliary(features.pyramid[-1])]

    def _map(self, logits: Tensor) -> Tensor:
        """What a discriminator sees: class probabilities, of at least 32 cells a side."""
        crop = self.parts.crop
        if self.settings.full_size or min(logits.shape[-2:]) < 32:
            logits = nn.functional.interpolate(logits, size=crop, mode="bilinear", align_corners=False)
        return logits.float().softmax(1)
