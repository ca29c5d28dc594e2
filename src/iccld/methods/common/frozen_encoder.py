"""The frozen encoder that DAFormer and what builds on it stay close to, and the classes it is consulted for."""

from __future__ import annotations

import copy
from typing import Literal

import torch
from torch import Tensor, nn

from iccld.labels import LabelSpace
from iccld.methods.common.parts import Parts
from iccld.methods.common.protocol import Method

THINGS = (
    "traffic light", "traffic sign", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle",
)  # fmt: skip
"""Cityscapes' thing classes, 6, 7 and 11 to 18: what ImageNet knows (DAFormer, section 3.3)."""


def reference_encoder(kind: Literal["source", "initial"], previous: Method | None, parts: Parts) -> nn.Module:
    """The frozen encoder: of the previous stage's averaged weights ("source"), or as a fresh network has it ("initial": ImageNet's)."""
    if kind == "source" and previous is not None:
        encoder = copy.deepcopy(previous.ema_networks()["segmenter"].get_submodule("encoder"))
    else:
        encoder = parts.make_segmenter().encoder
    return encoder.requires_grad_(False).eval()


def thing_ids(label_space: LabelSpace, names: tuple[str, ...] = THINGS) -> Tensor:
    """(n,) int64: the ids of the classes that are, or absorb, one of the named."""
    wanted = set(names)
    return torch.tensor([i for i, one in enumerate(label_space.classes) if wanted & {one.name, *one.absorbs}], dtype=torch.int64)
