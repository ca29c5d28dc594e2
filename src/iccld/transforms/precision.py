"""Keeps pictures and coordinates out of mixed precision."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

import torch
from torch import Tensor

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def full_precision(transform: Callable[Concatenate[Tensor, Arguments], Result]) -> Callable[Concatenate[Tensor, Arguments], Result]:
    """The transform of an image with autocast switched off: the matrix products in a sampling grid or a colour matrix would round
    coordinates and colours to the 8 significant bits of bf16."""

    @functools.wraps(transform)
    def in_full_precision(image: Tensor, /, *arguments: Arguments.args, **options: Arguments.kwargs) -> Result:
        kind = image.device.type
        with torch.autocast(kind if torch.amp.is_autocast_available(kind) else "cpu", enabled=False):  # the meta device has none of its own
            return transform(image, *arguments, **options)

    return in_full_precision
