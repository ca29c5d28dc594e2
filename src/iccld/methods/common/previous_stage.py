"""What a stage takes over from the one before."""

from __future__ import annotations

import copy

from iccld.methods.common.parts import Parts
from iccld.methods.common.protocol import Method
from iccld.models import Segmenter


def averaged_segmenter(previous: Method | None, parts: Parts) -> Segmenter:
    """A trainable copy of the previous stage's averaged segmenter; a freshly initialised one where there is no previous stage."""
    return segmenter_of(previous, parts, "ema")


def segmenter_of(previous: Method | None, parts: Parts, weights: str) -> Segmenter:
    """The same with the averaged ("ema") or the trained ("model") weights."""
    if previous is None:
        return parts.make_segmenter()
    networks = previous.ema_networks() if weights == "ema" else previous.networks()
    segmenter = copy.deepcopy(networks["segmenter"])
    assert isinstance(segmenter, Segmenter)
    return segmenter.requires_grad_(True).train()
