"""HRDA's fusion, by hand: which pixels come from the context, which from the detail."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from iccld.evaluation import sliding_window
from iccld.models import CompactEncoder, InterCoderDecoder, ScaleAttention, Segmenter, TwoResolutions, cut, fuse

from ..rounding import Gradients


def made(detail: tuple[int, int] = (32, 32), enlarge: int = 1, widths: tuple[int, ...] = (8, 8, 16, 16, 16)) -> TwoResolutions:
    torch.manual_seed(0)
    encoder = CompactEncoder(widths, 4)
    segmenter = Segmenter(encoder, InterCoderDecoder(4, encoder.pyramid_channels, 3, width=widths[0]))
    return TwoResolutions(segmenter, widths[0], detail, sliding_window, enlarge).eval()


def test_the_fused_map_is_the_upsampled_rest_of_the_context_and_the_attended_detail() -> None:
    """up((1 - a) LR) + a HR on constant maps; a = 0 outside the detail, so there only the context is left."""
    context, detail = torch.full((1, 2, 4, 4), 10.0), torch.full((1, 2, 4, 4), 2.0)
    attention = torch.tensor([0.25, 1.0]).view(1, 2, 1, 1).expand(1, 2, 4, 4)
    fused = fuse(context, attention, detail, [(4, 4)])
    assert fused.shape == (1, 2, 8, 8)
    # Away from the border, where upsampling mixes nothing: 0.75 * 10 + 0.25 * 2, and 0 * 10 + 1 * 2.
    assert fused[0, :, 6:, 6:].unique(dim=1)[:, 0, 0].tolist() == pytest.approx([8.0, 2.0])
    assert torch.equal(fused[0, :, :3, :], torch.full((2, 3, 8), 10.0))
    assert torch.equal(fused[0, :, :, :3], torch.full((2, 8, 3), 10.0))


def test_every_row_has_its_own_detail() -> None:
    context, attention = torch.zeros(2, 1, 4, 4), torch.ones(2, 1, 4, 4)
    fused = fuse(context, attention, torch.ones(2, 1, 4, 4), [(0, 0), (4, 4)])
    assert float(fused[0, 0, :3, :3].min()) == float(fused[1, 0, 5:, 5:].min()) == 1.0
    assert not fused[0, 0, 5:, 5:].any()
    assert not fused[1, 0, :3, :3].any()


def test_no_attention_is_the_context_and_full_attention_the_detail() -> None:
    generator = torch.Generator().manual_seed(0)
    context, detail = torch.randn(1, 3, 4, 6, generator=generator), torch.randn(1, 3, 8, 12, generator=generator)
    up = torch.nn.functional.interpolate(context, size=(8, 12), mode="bilinear", align_corners=False)
    assert torch.equal(fuse(context, torch.zeros_like(context), detail), up)
    assert torch.equal(fuse(context, torch.ones_like(context), detail), detail)


def test_full_attention_everywhere_is_the_segmenter_at_full_resolution() -> None:
    model = made((32, 32))
    torch.nn.init.constant_(model.attention.classify.bias, 1e4)
    image = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        plain = model.segmenter(image)  # (2, 3, 16, 16)
        assert torch.equal(model.with_one_detail(image, [(0, 0), (0, 0)]).fused, plain)
        torch.testing.assert_close(model(image), plain)


def test_prediction_slides_the_detail_by_half_of_it() -> None:
    model = made((32, 32))
    seen: list[tuple[int, ...]] = []
    model.segmenter.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape)))
    with torch.no_grad():
        assert model(torch.zeros(1, 3, 64, 64)).shape == (1, 3, 32, 32)
    # Nine windows, as many at once as have the picture's area.
    assert seen == [(4, 3, 32, 32), (4, 3, 32, 32), (1, 3, 32, 32)]


def test_prediction_of_another_size_than_the_crop() -> None:
    with torch.no_grad():
        assert made((32, 48))(torch.zeros(2, 3, 32, 80)).shape == (2, 3, 16, 40)
        assert made((32, 48), enlarge=2)(torch.zeros(1, 3, 16, 32)).shape == (1, 3, 16, 32)
        assert made((32, 48))(torch.zeros(2, 3, 32, 81)).shape == (2, 3, 32, 81)  # half a cell is left: at the size of the pixels


def test_context_sees_half_the_resolution_and_detail_the_full() -> None:
    model = made((32, 32))
    seen: list[Tensor] = []
    model.segmenter.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    model.with_one_detail(image, [(16, 32)])
    torch.testing.assert_close(seen[0], torch.nn.functional.avg_pool2d(image, 2))
    assert torch.equal(seen[1], image[:, :, 16:48, 32:64])


def test_gradients_reach_encoder_decoder_and_attention() -> None:
    model = made((32, 32), widths=(16, 16, 32, 32, 32)).double()  # a norm of single channels takes back the biases before it
    with Gradients(model) as gradients:
        model.with_one_detail(torch.randn(1, 3, 64, 64).double(), [(0, 32)]).fused.square().sum().backward()
    assert gradients.unreached() == set()


def test_cut_takes_each_rows_window() -> None:
    rows = torch.arange(2 * 4 * 4).view(2, 4, 4)
    assert cut(rows, [(0, 1), (2, 0)], (2, 2)).tolist() == [[[1, 2], [5, 6]], [[24, 25], [28, 29]]]


def test_attention_is_a_share_for_each_class_and_of_the_published_size() -> None:
    with torch.device("meta"):
        head = ScaleAttention((64, 128, 320, 512), 256, 19)
        levels = [torch.zeros(2, c, 64 >> i, 64 >> i) for i, c in enumerate((64, 128, 320, 512))]
        assert head(levels).shape == (2, 19, 64, 64)
    # Four 1x1 embeddings to 256 with bias, a 1x1 fusion of 1024 with its norm, 19 classes.
    assert sum(p.numel() for p in head.parameters()) == 256 * 1024 + 4 * 256 + 1024 * 256 + 2 * 256 + 256 * 19 + 19
