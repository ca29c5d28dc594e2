"""HRDA and CLUDA: the loss of two resolutions, where details lie, and what is trusted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest
import torch

from iccld.losses import cross_entropy
from iccld.methods import cluda, hrda, mic
from iccld.methods.common.frozen_encoder import reference_encoder
from iccld.methods.common.protocol import Method
from iccld.methods.common.two_resolutions import draw_offsets, fused_cross_entropy, two_resolutions, uncertain_offsets, with_borders
from iccld.models import TwoResolutions
from iccld.transforms import Draw

from ..rounding import Gradients


def made(tiny: ModuleType, module: Any = hrda, **settings: Any) -> Any:
    parts = tiny.parts(views=tiny.STILL)
    chosen = replace(module.Settings(threshold=0.0, attention_width=8), **settings)
    kind = {hrda: "Hrda", cluda: "Cluda", mic: "Mic"}[module]
    method = getattr(module, kind)(parts, chosen, tiny.optimisation(), parts.make_segmenter(), reference_encoder("initial", None, parts))
    return tiny.ready(method)


def model_of(tiny: ModuleType, crop: tuple[int, int] = (64, 64), enlarge: int = 1) -> TwoResolutions:
    torch.manual_seed(0)
    return two_resolutions(tiny.make_segmenter(), crop, 8, enlarge).eval()


def test_nine_tenths_of_the_loss_are_the_fused_maps(tiny: ModuleType) -> None:
    model, offsets = model_of(tiny), [(16, 32), (16, 32)]
    image = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    label = torch.randint(0, 4, (2, 64, 64), generator=torch.Generator().manual_seed(1))
    weight = torch.rand(2, 64, 64, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        output = model.with_one_detail(image, offsets)
    fused = cross_entropy(output.fused, label, weight)
    detail = cross_entropy(output.detail, label[:, 16:48, 32:64], weight[:, 16:48, 32:64])
    assert float(fused_cross_entropy(model, output, offsets, label, weight)) == pytest.approx(float(0.9 * fused + 0.1 * detail))


@pytest.mark.parametrize(("crop", "enlarge", "detail"), [((64, 96), 1, (32, 48)), ((32, 48), 2, (32, 48)), ((1024, 1024), 1, (512, 512))])
def test_details_are_half_of_the_crop_and_lie_anywhere_in_it(
    tiny: ModuleType, crop: tuple[int, int], enlarge: int, detail: tuple[int, int]
) -> None:
    model = model_of(tiny, crop, enlarge)
    assert model.detail == detail
    draw = Draw(torch.Generator().manual_seed(0))
    offsets = [draw_offsets(model, crop, 3, draw) for _ in range(300)]
    assert all(len(set(one)) == 1 and len(one) == 3 for one in offsets)  # one place a batch
    for axis in (0, 1):
        places = {one[0][axis] for one in offsets}
        assert min(places) == 0
        assert max(places) + detail[axis] <= enlarge * crop[axis]
        assert len(places) == (enlarge * crop[axis] - detail[axis]) // 16 + 1


def test_the_detail_goes_where_the_context_is_least_certain(tiny: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(tiny)
    logits = torch.zeros(2, 4, 16, 16)
    logits[:, 0] = 20.0  # certain everywhere but in one corner of each picture
    logits[0, 0, :4, 12:] = 0.0
    logits[1, 0, 12:, :4] = 0.0
    monkeypatch.setattr(model, "context_logits", lambda image: logits)
    assert uncertain_offsets(model, torch.zeros(2, 3, 64, 64)) == [(0, 32), (32, 0)]


def test_borders_of_the_whole_picture_are_not_trusted(tiny: ModuleType) -> None:
    data = with_borders(tiny.batch(size=(64, 128)), 30 / 1024, 240 / 1024, 30 / 2048)
    assert data.target_valid is not None
    assert data.target_valid[0].nonzero().amin(0).tolist() == [2, 2]
    assert data.target_valid[0].nonzero().amax(0).tolist() == [64 - 15 - 1, 128 - 2 - 1]
    own = torch.zeros(2, 64, 128, dtype=torch.bool)
    combined = with_borders(tiny.batch(size=(64, 128))._replace(target_valid=own), 0.0, 0.0, 0.0).target_valid
    assert combined is not None
    assert not combined.any()


STEPS: dict[str, Callable[[ModuleType], Method]] = {
    "hrda": lambda tiny: made(tiny),
    "hrda enlarged": lambda tiny: made(tiny, enlarge=2),
    "cluda": lambda tiny: made(tiny, cluda, uncertain_from=0.0),
    "mic on hrda": lambda tiny: made(tiny, mic, resolutions=2),
}


@pytest.mark.parametrize("name", STEPS)
def test_a_step_moves_network_and_attention_and_leaves_the_reference(name: str, tiny: ModuleType) -> None:
    method: Any = STEPS[name](tiny)
    before = {part: tiny.values(getattr(method.model.segmenter, part)) for part in ("encoder", "decoder")}
    before["attention"], frozen = tiny.values(method.model.attention), tiny.values(method.reference)
    with Gradients(method.model) as gradients:
        losses = tiny.step(method, 0)
    assert {"attention", "segmenter"} <= {name.split(".")[0] for name in gradients.reached()}
    assert {"segmenter.encoder", "segmenter.decoder"} <= {".".join(name.split(".")[:2]) for name in gradients.reached()}
    assert all(torch.isfinite(value).all() for value in losses.values())
    assert not torch.equal(tiny.values(method.model.attention), before["attention"])
    for part in ("encoder", "decoder"):
        assert not torch.equal(tiny.values(getattr(method.model.segmenter, part)), before[part])
    assert torch.equal(tiny.values(method.reference), frozen)
    # The predictor's network is the whole of both resolutions: its windows stay inside.
    image = torch.zeros(1, 3, 40, 56, dtype=torch.uint8)
    with torch.no_grad():
        assert method.predictor("ema")(image).shape == (1, 4, 40, 56)
    assert isinstance(method.predictor("ema").network, TwoResolutions)


def test_the_contrast_enters_the_loss(tiny: ModuleType) -> None:
    off, on = made(tiny, cluda, contrast_weight=0.0), made(tiny, cluda, contrast_weight=2.0)
    totals = [tiny.asked(method) for method in (off, on)]
    contrast, same = (float(tiny.step(method, 0)["contrast"]) for method in (off, on))
    assert contrast == same > 0.01
    assert totals[1]["segmenter"][0] - totals[0]["segmenter"][0] == pytest.approx(2 * contrast, rel=1e-3)


def test_only_after_a_while_do_details_seek_uncertainty(tiny: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def spy(model: TwoResolutions, images: torch.Tensor) -> list[tuple[int, int]]:
        asked.append(len(images))
        return [(0, 0)] * len(images)

    monkeypatch.setattr(cluda, "uncertain_offsets", spy)
    method = made(tiny, cluda, uncertain_from=12_000 / 40_000)
    tiny.step(method, 2_999)  # of 10,000
    assert asked == []
    tiny.step(method, 3_000)
    assert asked == [2]
