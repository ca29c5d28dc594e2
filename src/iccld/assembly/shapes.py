"""Sizes that the target's pictures choose (`size.shape target`).  Torch-free: headers are read, no picture is."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from statistics import median

from iccld.assembly.domains import open_domain
from iccld.config import Config, WorkingSize, parse_size
from iccld.config.domains import SourceConfig
from iccld.data.sizes import sizes_of
from iccld.geometry import Shape, shape_of_area
from iccld.labels import get_label_space
from iccld.progress import say

MOST_PICTURES = 500
"""Whose headers are read."""
WIDEST = 3.0
"""Largest aspect that windows and scenes take; its inverse is the smallest."""
ALIKE = 0.03
"""Relative difference of aspects below which a size is kept as it is given."""
MULTIPLE = 16
"""Of pixels, sides of working sizes and windows; a latent stride that is larger takes its place."""
SCENE_MULTIPLE = 8
"""The same of scenes."""


def with_target_shape(config: Config) -> Config:
    """Sizes in the aspect of the target's pictures where `size.shape` asks for it, told in a line, and `size.shape given`.

    The aspect is the median of up to `MOST_PICTURES` of them, generated ones included, between 1 to `WIDEST` and `WIDEST` to 1.  Areas stay
    as they are, and so does what takes time and memory.  A target that is not there is left to whoever reads it.
    """
    if config.size.shape == "given":
        return config
    shapes = _target_shapes(config)
    if not shapes:
        return replace(config, size=replace(config.size, shape="given"))
    aspect = min(max(median(width / height for height, width in shapes), 1 / WIDEST), WIDEST)
    multiple = max(MULTIPLE, config.network.latent_stride)
    source, from_source = config.source, config.size.source
    if source.path is None:
        source, from_source = _drawn_in(source, aspect), _in_aspect(config.size.source, aspect, multiple)
    target = _in_aspect(config.size.target, aspect, multiple)
    crop = _within(parse_size(_in_aspect(config.size.crop, aspect, multiple)), (parse_size(from_source), parse_size(target)), multiple)
    size = WorkingSize(source=from_source, target=target, crop=crop, keep_aspect=config.size.keep_aspect)
    if (size.target, size.crop) != (config.size.target, config.size.crop):
        drawn = f", scenes drawn at {source.generate.size}" if source.path is None else ""
        say(f"sizes: the target's pictures are {aspect:.2f} times as wide as high, so windows are {crop} of {target}{drawn} (size.shape)")
    return replace(config, size=size, source=source)


def _target_shapes(config: Config) -> list[Shape]:
    domain = config.target
    if domain.path is None:
        return [parse_size(domain.generate.size)] if domain.generate.num else []
    if not all(part.path is not None and Path(part.path).exists() for part in domain.parts):
        return []
    dataset = open_domain(domain, get_label_space(config.label_space), labels=False, usual_split="train")
    return [] if dataset is None else sizes_of(dataset, MOST_PICTURES)


def _in_aspect(text: str, aspect: float, multiple: int) -> str:
    """HEIGHTxWIDTH of the area of `text` and this aspect; `text` itself where it has it."""
    size = parse_size(text)
    if abs(math.log(size[1] / size[0] / aspect)) < ALIKE:
        return text
    height, width = shape_of_area(size, aspect, multiple)
    return f"{height}x{width}"


def _drawn_in(source: SourceConfig, aspect: float) -> SourceConfig:
    return replace(source, generate=replace(source.generate, size=_in_aspect(source.generate.size, aspect, SCENE_MULTIPLE)))


def _within(crop: Shape, sizes: tuple[Shape, ...], multiple: int) -> str:
    """The window, no larger than any of the working sizes."""
    height, width = (min(side, *(size[axis] // multiple * multiple for size in sizes)) for axis, side in enumerate(crop))
    return f"{height}x{width}"
