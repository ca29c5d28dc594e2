"""What ICCLD's steps see: a window of each picture, sources in random light and their target's colours, and ClassMix of the two."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from iccld.batch import DomainBatch
from iccld.labels import IGNORE
from iccld.methods.common.iccld_settings import Settings
from iccld.methods.common.mixing import crop_source, crop_target, in_target_style, mixed_view, strong_view
from iccld.methods.common.parts import Parts
from iccld.models import Features
from iccld.transforms import Crop, Draw, LabelledCrop, blur, choose_classes, in_unit, jitter, sensor_noise


def styled_pair(
    batch: DomainBatch, parts: Parts, settings: Settings, draw: Draw, target_label: Tensor | None = None
) -> tuple[LabelledCrop, Crop, Tensor]:
    """A random window of each picture, and the source's in random light and its target's colours: -> source, target, (B, 3, H, W)."""
    views = parts.views
    probability = settings.style_probability if views.style_probability is None else views.style_probability
    light = jitter(
        in_unit(batch.source_image), draw, probability=views.jitter, strength=views.jitter_strength, white_balance=views.white_balance
    )
    batch = in_target_style(batch._replace(source_image=light), draw, probability=probability, share=settings.style_share)
    source = crop_source(batch, parts.crop, views, draw)
    return source, crop_target(batch, parts.crop, views, draw, target_label), source.image


class ThreeViews(NamedTuple):
    """A batch as step 2 sees it: source, mixed and target picture, and what is known of their classes.

    images: (3B, 3, H, W) in 0..1, source, mixed, target in random light.  plain: (B, 3, H, W), the target as it was taken.
    source_label, target_label: (B, H, W) int64, 255 = ignore; the target's is all 255 where nobody has labelled it yet.
    pasted: (B, H, W) bool, where the mixed picture shows the source.  valid: (B, H, W) bool, where the target may teach.
    """

    images: Tensor
    plain: Tensor
    source_label: Tensor
    target_label: Tensor
    pasted: Tensor
    valid: Tensor


def three_views(batch: DomainBatch, parts: Parts, settings: Settings, draw: Draw, target_label: Tensor | None) -> ThreeViews:
    """The views of a batch.  target_label: (B, H, W) of the whole target pictures, warped with their windows, or None."""
    views = parts.views
    source, target, image = styled_pair(batch, parts, settings, draw, target_label)
    pasted = choose_classes(source.label, draw)
    mixed = mixed_view(pasted, image, target.image, views, draw)
    image = sensor_noise(blur(image, draw, probability=views.blur, sigma=views.blur_sigma), draw, std=views.noise)
    strong = strong_view(target.image, views, draw)
    label = torch.full_like(source.label, IGNORE) if target.label is None else target.label
    label = torch.where(target.valid, label, IGNORE)
    return ThreeViews(torch.cat([image, mixed, strong]), target.image, source.label, label, pasted, target.valid)


class Scene(NamedTuple):
    """What is computed once for a view, however often it is trained on; maps as in `ThreeViews`.

    features: of the 3B pictures source, mixed, target.  plain: of the B targets as they were taken, where the running average labels them.
    """

    features: Features
    plain: Features | None
    source_label: Tensor
    target_label: Tensor
    pasted: Tensor
    valid: Tensor


def flat(scene: Scene) -> list[Tensor]:
    """The scene's tensors in order."""
    plain = [] if scene.plain is None else [scene.plain.latent, *scene.plain.pyramid]
    maps = [scene.source_label, scene.target_label, scene.pasted, scene.valid]
    return [*maps, scene.features.latent, *scene.features.pyramid, *plain]


def from_flat(tensors: list[Tensor], has_plain: bool) -> Scene:
    """`flat` undone."""
    maps, features = tensors[:4], tensors[4:]
    half = len(features) // 2 if has_plain else len(features)
    read, plain = features[:half], features[half:]
    return Scene(Features(read[0], tuple(read[1:])), Features(plain[0], tuple(plain[1:])) if plain else None, *maps)
