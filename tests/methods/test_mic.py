"""MIC: what is hidden, and what the masked pictures teach."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from iccld.methods.common.frozen_encoder import reference_encoder
from iccld.methods.mic import Mic, Settings


def made(tiny: ModuleType, **settings: Any) -> Mic:
    parts = tiny.parts(views=tiny.STILL)
    chosen = replace(Settings(threshold=0.0, margin_top=0.0, margin_bottom=0.0), **settings)
    method = Mic(parts, chosen, tiny.optimisation(), parts.make_segmenter(), reference_encoder("initial", None, parts))
    tiny.ready(method)
    return method


def seen(method: Mic) -> list[Tensor]:
    """Where the trained encoder's pictures will be recorded."""
    pictures: list[Tensor] = []
    method.model.encoder.register_forward_pre_hook(lambda _, inputs: pictures.append(inputs[0].detach()))
    return pictures


def test_published_values() -> None:
    settings = Settings()
    assert (settings.mask_ratio, settings.masked_weight) == (0.7, 1.0)
    assert round(settings.mask_block * 1024) == 64


def test_hidden_blocks_are_zero_after_normalisation(tiny: ModuleType) -> None:
    method = made(tiny, mask_block=0.25, masked_view="plain")
    pictures = seen(method)
    for iteration in range(10):
        tiny.step(method, iteration, tiny.batch(size=(32, 32)))
    masked = torch.stack([one[4:] for one in pictures])  # (10, 2, 3, 32, 32): rows of source, mixed, masked
    blocks = (masked == 0).all(2).view(10, 2, 4, 8, 4, 8)
    hidden = blocks.all(5).all(3)
    assert torch.equal(hidden, blocks.any(5).any(3))  # whole blocks of 8 = a quarter of 32
    assert float(hidden.float().mean()) == pytest.approx(0.7, abs=4 * (0.21 / 320) ** 0.5)
    assert not bool((pictures[0][:4] == 0).all(1).any())


def test_masked_loss_is_cross_entropy_to_the_averages_answer(tiny: ModuleType) -> None:
    """Nothing hidden, nothing jittered, the average equal to the model: the loss is the mean entropy's lower bound, -log of the maximum."""
    method = made(tiny, mask_ratio=0.0, masked_view="plain")
    data = tiny.batch(size=(32, 32))
    pictures = seen(method)
    masked = float(tiny.step(method, 0, data)["masked"])
    fresh = made(tiny)
    with torch.no_grad():
        p = fresh.ema.module(pictures[0][4:]).softmax(1).amax(1)
    assert masked == pytest.approx(float(-p.log().mean()), rel=1e-4)


def test_the_weight_of_the_masked_loss(tiny: ModuleType) -> None:
    data = tiny.batch(size=(32, 32))
    off, on = made(tiny, masked_weight=0.0), made(tiny, masked_weight=2.0)
    totals = [tiny.asked(method) for method in (off, on)]
    masked, same = (float(tiny.step(method, 0, data)["masked"]) for method in (off, on))
    assert masked == same > 0.1
    assert totals[1]["segmenter"][0] - totals[0]["segmenter"][0] == pytest.approx(2 * masked, rel=1e-4)
