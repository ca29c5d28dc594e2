"""CorDA's network: it starts as the segmenter it was given, and depth reaches the classes."""

from __future__ import annotations

import torch

from iccld.models import CompactEncoder, DepthSegmenter, InterCoderDecoder, Segmenter, disparity

from ..rounding import Gradients


def network(width: int = 8) -> DepthSegmenter:
    torch.manual_seed(0)
    encoder = CompactEncoder((8, 8, 16, 16, 16), 4)
    return DepthSegmenter(Segmenter(encoder, InterCoderDecoder(4, encoder.pyramid_channels, 5, width=16)), 5, width=width)


def test_it_starts_as_the_segmenter() -> None:
    made, image = network(), torch.randn(2, 3, 32, 48, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found = made.predictions(image)
        assert torch.equal(made(image), made.segmenter(image))
    assert found.logits.shape == found.first_logits.shape == (2, 5, 16, 24)
    assert found.depth.shape == found.first_depth.shape == (2, 2, 8, 12)


def test_features_are_exchanged_both_ways() -> None:
    """Every parameter of the way from depth to classes hears the classes' loss, and the other way about."""
    made = network(width=16)  # a norm of single channels takes back the biases before it
    torch.nn.init.normal_(made.refine.weight)
    found = made.predictions(torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(1)))
    with Gradients(made) as classes:
        found.logits.square().mean().backward(retain_graph=True)
    made.zero_grad()
    with Gradients(made) as depth:
        found.depth.mean().backward()
    assert not [name for name in classes.unreached() if name.startswith("to_depth.")]
    assert not [name for name in depth.unreached() if name.startswith("to_semantic.")]


def test_disparity_is_1_at_infinity_and_where_depth_is_not_known() -> None:
    depth = torch.tensor([0.0, 1.0, 50.0, torch.inf])
    assert disparity(depth).tolist() == [1.0, 101.0, 3.0, 1.0]
