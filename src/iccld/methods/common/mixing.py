"""How source and target are seen, and how they are put into one picture and one label: pure functions of their draws."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from iccld.batch import DomainBatch
from iccld.config.views import Views
from iccld.models.blocks import resize_like
from iccld.transforms import (
    Crop,
    Draw,
    LabelledCrop,
    WindowRule,
    blur,
    choose_classes,
    choosy_crop,
    classmix,
    exchange_amplitude,
    in_unit,
    jitter,
    labelled_crop,
    match_moments,
    random_crop,
    sensor_noise,
)

STYLE_SHARE = (0.005, 0.02)
"""Range of the half-side of the exchanged low-frequency square, over the picture's shorter side; a choice, below FDA's 0.01 to 0.09."""


def crop_source(batch: DomainBatch, crop: tuple[int, int], views: Views, draw: Draw) -> LabelledCrop:
    """A random window of each source picture with its maps, otherwise as it was taken."""
    return labelled_crop(
        batch.source_image,
        draw,
        crop,
        label=batch.source_label,
        depth=batch.source_depth,
        true_size=batch.source_size,
        scale=views.source_scale,
        stretch=views.stretch,
        flip=views.flip,
    )


def crop_target(batch: DomainBatch, crop: tuple[int, int], views: Views, draw: Draw, label: Tensor | None = None) -> Crop:
    """A random window of each target picture with its maps, otherwise as it was taken.  label: (B, H, W), one that somebody gave it."""
    return random_crop(
        batch.target_image,
        draw,
        crop,
        valid=batch.target_valid,
        depth=batch.target_depth,
        label=label,
        true_size=batch.target_size,
        scale=views.target_scale,
        flip=views.flip,
    )


def crop_pair(batch: DomainBatch, crop: tuple[int, int], views: Views, draw: Draw) -> tuple[LabelledCrop, Crop]:
    """A random window of each picture with its maps: -> (source, target).  Sources in their target's colours where `views` lends them."""
    batch = lent_style(batch, views, draw)
    return crop_source(batch, crop, views, draw), crop_target(batch, crop, views, draw)


def crop_rare_pair(batch: DomainBatch, crop: tuple[int, int], views: Views, draw: Draw, rule: WindowRule) -> tuple[LabelledCrop, Crop]:
    """`crop_pair` whose source windows show the class each picture was drawn for, and no class too much (`choosy_crop`)."""
    batch = lent_style(batch, views, draw)
    source = choosy_crop(
        batch.source_image,
        draw,
        crop,
        label=batch.source_label,
        wanted=batch.source_class,
        true_size=batch.source_size,
        rule=rule,
        scale=views.source_scale,
        stretch=views.stretch,
        flip=views.flip,
    )
    return source, crop_target(batch, crop, views, draw)


def lent_style(batch: DomainBatch, views: Views, draw: Draw) -> DomainBatch:
    """The sources in their target's colours with `views.style_probability`; as they are, and without a draw, where that is None or 0."""
    return in_target_style(batch, draw, probability=views.style_probability) if views.style_probability else batch


def in_target_style(batch: DomainBatch, draw: Draw, *, probability: float, share: tuple[float, float] = STYLE_SHARE) -> DomainBatch:
    """The batch with each source picture in the colours of its target picture, see `in_style`; its pictures are float32 in 0..1 then.

    Of whole pictures, before windows are cut: two windows show other parts of a street, and a sky that takes the colours of a road
    is no picture of the target.
    """
    source, target = in_unit(batch.source_image), in_unit(batch.target_image)
    if batch.source_size is None and batch.target_size is None:
        styled = in_style(source, resize_like(target, source), draw, probability=probability, share=share)
        return batch._replace(source_image=styled, target_image=target)
    styled = source.clone()
    for row, (image, style) in enumerate(zip(_rows(source, batch.source_size), _rows(target, batch.target_size), strict=True)):
        height, width = image.shape[2:]
        styled[row, :, :height, :width] = in_style(image, resize_like(style, image), draw, probability=probability, share=share)[0]
    return batch._replace(source_image=styled, target_image=target)


def _rows(images: Tensor, sizes: Tensor | None) -> list[Tensor]:
    """The pictures of a batch one by one, each (1, 3, h, w) without what fills its row up."""
    whole = [tuple(images.shape[2:])] * len(images) if sizes is None else sizes.tolist()
    return [image[None, :, :height, :width] for image, (height, width) in zip(images, whole, strict=True)]


def in_style(image: Tensor, style: Tensor, draw: Draw, *, probability: float, share: tuple[float, float] = STYLE_SHARE) -> Tensor:
    """Each picture with the colour moments of its style picture, and, drawn apart, its Fourier amplitude at the lowest frequencies.

    (B, 3, H, W) twice, 0..1 -> (B, 3, H, W), 0..1.  share: see `exchange_amplitude`.
    """
    image = match_moments(image, style, draw, probability=probability)
    return exchange_amplitude(image, style, draw, probability=probability, share=share)


def whole_targets(batch: DomainBatch, multiple: int) -> Iterator[Tensor]:
    """The batch's target pictures whole, at the working size, those of one size together: each (b, 3, h, w) in 0..1.

    Their sides are cut down to multiples of what the network takes, or padded up to one by replication.
    """
    images, sizes = batch.target_image, batch.target_size
    for part in [images] if sizes is None else _rows(images, sizes):
        height, width = (max(side // multiple, 1) * multiple for side in part.shape[2:])
        part = part[:, :, :height, :width].float() / 255
        missing = height - part.shape[2], width - part.shape[3]
        yield nn.functional.pad(part, (0, missing[1], 0, missing[0]), mode="replicate") if any(missing) else part


def source_view(image: Tensor, views: Views, draw: Draw) -> Tensor:
    """The source in random light, as the source stage sees it: (B, 3, H, W) in 0..1 -> the same."""
    image = jitter(image, draw, probability=views.jitter, strength=views.jitter_strength, white_balance=views.white_balance)
    image = blur(image, draw, probability=views.blur, sigma=views.blur_sigma)
    return sensor_noise(image, draw, std=views.noise)


def mixed_view(mask: Tensor, source: Tensor, target: Tensor, views: Views, draw: Draw) -> Tensor:
    """The pasted picture in random light: (B, H, W) bool, two (B, 3, H, W) in 0..1 -> (B, 3, H, W)."""
    return strong_view(classmix(mask, source, target), views, draw)


def strong_view(image: Tensor, views: Views, draw: Draw, *, once: bool = False) -> Tensor:
    """A picture in random light: (B, 3, H, W) in 0..1 -> the same.

    once: whether to jitter and whether to blur is drawn once for the batch, as in the released code of DAFormer; how much is drawn for
    each picture either way.
    """
    if not once:
        image = jitter(image, draw, probability=views.jitter, strength=views.mixed_jitter_strength)
        return blur(image, draw, probability=views.blur, sigma=views.blur_sigma)
    batch = draw.shared()
    jittered = jitter(image, draw, probability=1.0, strength=views.mixed_jitter_strength)
    image = torch.where(batch.chosen(1, views.jitter)[:, None, None, None], jittered, image)
    blurred = blur(image, draw, probability=1.0, sigma=views.blur_sigma)
    return torch.where(batch.chosen(1, views.blur)[:, None, None, None], blurred, image)


def label_weight(label: Tensor, class_weight: Tensor | None) -> Tensor:
    """(B, H, W) int64 -> (B, H, W): weight of pasted pixels, 1 or their class's.

    Pseudo-labels take no class weight: it would multiply the errors of rare classes, which are the most often wrong.
    """
    if class_weight is None:
        return torch.ones(label.shape, device=label.device)
    return torch.cat([class_weight.to(label.device), class_weight.new_zeros(256 - len(class_weight)).to(label.device)])[label]


def border_mask(size: tuple[int, int], top: float, bottom: float, side: float, device: torch.device) -> Tensor:
    """(H, W) bool, False on borders whose pseudo-labels are not trusted; `top`, `bottom`: shares of the height, `side`: of the width."""
    height, width = size
    rows, columns = torch.arange(height, device=device), torch.arange(width, device=device)
    inside_rows = (rows >= round(top * height)) & (rows < height - round(bottom * height))
    inside_columns = (columns >= round(side * width)) & (columns < width - round(side * width))
    return inside_rows[:, None] & inside_columns


def at_size(values: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, h, w) -> (B, H, W), nearest."""
    resized = nn.functional.interpolate(values[:, None].float(), size=size, mode="nearest-exact")[:, 0]
    return resized.to(values.dtype)


def plain_domains(batch: DomainBatch, draw: Draw, crop: tuple[int, int]) -> Tensor:
    """Unaugmented crops of the three domains, as statistics are measured on: -> (3B, 3, H, W) in 0..1; source, mixed, target."""
    source = labelled_crop(batch.source_image, draw, crop, label=batch.source_label, true_size=batch.source_size)
    target = random_crop(batch.target_image, draw, crop, true_size=batch.target_size)
    mixed = classmix(choose_classes(source.label, draw), source.image, target.image)
    return torch.cat([source.image, mixed, target.image])


def paint(label: Tensor, palette: Tensor) -> Tensor:
    """A label map as a picture: (B, H, W) int64, (K, 3) in 0..1 -> (B, 3, H, W) in 0..1; black where ignored."""
    colours = torch.zeros(256, 3, device=label.device)
    colours[: len(palette)] = palette.to(label.device)
    return colours[label.long()].permute(0, 3, 1, 2)
