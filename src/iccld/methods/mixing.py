"""How source and target are seen, and how they are put into one picture and one label: pure functions of their draws."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from iccld.batch import DomainBatch
from iccld.methods.ingredients import Views
from iccld.transforms import Cropped, Draw, blur, classmix, jitter, random_crop, sensor_noise


def crop_pair(batch: DomainBatch, views: Views, draw: Draw) -> tuple[Cropped, Cropped]:
    """A random window of each picture with its maps, otherwise as it was taken: -> (source, target)."""
    source = random_crop(
        batch.source_image,
        draw,
        views.crop,
        label=batch.source_label,
        depth=batch.source_depth,
        scale=views.source_scale,
        stretch=views.stretch,
        flip=views.flip,
    )
    target = random_crop(
        batch.target_image,
        draw,
        views.crop,
        valid=batch.target_valid,
        depth=batch.target_depth,
        scale=views.target_scale,
        flip=views.flip,
    )
    return source, target


def source_view(image: Tensor, views: Views, draw: Draw) -> Tensor:
    """The source in random light, as the source stage sees it: (B, 3, H, W) in 0..1 -> the same."""
    image = jitter(image, draw, probability=views.jitter_probability, strength=views.source_jitter, white_balance=views.white_balance)
    image = blur(image, draw, probability=views.blur_probability, sigma=views.blur_sigma)
    return sensor_noise(image, draw, std=views.noise)


def mixed_view(mask: Tensor, source: Tensor, target: Tensor, views: Views, draw: Draw) -> Tensor:
    """The pasted picture in random light: (B, H, W) bool, two (B, 3, H, W) in 0..1 -> (B, 3, H, W)."""
    mixed = classmix(mask, source, target)
    mixed = jitter(mixed, draw, probability=views.jitter_probability, strength=views.mixed_jitter)
    return blur(mixed, draw, probability=views.blur_probability, sigma=views.blur_sigma)


def label_weight(label: Tensor, class_weight: Tensor | None) -> Tensor:
    """(B, H, W) int64 -> (B, H, W): weight of pasted pixels, 1 or their class's.

    Pseudo-labels take no class weight: it would multiply the errors of rare classes, which are the most often wrong.
    """
    if class_weight is None:
        return torch.ones(label.shape, device=label.device)
    return torch.cat([class_weight.to(label.device), class_weight.new_zeros(256 - len(class_weight)).to(label.device)])[label]


def at_size(values: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, h, w) -> (B, H, W), nearest."""
    resized = nn.functional.interpolate(values[:, None].float(), size=size, mode="nearest-exact")[:, 0]
    return resized.to(values.dtype)
