"""AdaptSegNet's discriminator and DeepLabV2's classifier: published sizes on meta, shapes, and the classifier's quirk."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import nn

from iccld.models import AtrousClassifier, PatchDiscriminator
from iccld.models.atrous import PAPER_RATES


def test_the_discriminator_has_the_published_size() -> None:
    with torch.device("meta"):
        made = PatchDiscriminator(19)
        assert made(torch.empty(1, 19, 512, 1024)).shape == (1, 1, 16, 32)
    widths = (19, 64, 128, 256, 512, 1)
    assert sum(p.numel() for p in made.parameters()) == sum(16 * a * b + b for a, b in pairwise(widths))


@pytest.mark.parametrize("rates", [(6, 12), PAPER_RATES])
def test_the_classifier_adds_up_its_rates(rates: tuple[int, ...]) -> None:
    made = AtrousClassifier(3, 2, rates)
    features = torch.randn(1, 3, 30, 30, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        by_hand = sum(
            nn.functional.conv2d(features, branch.weight, branch.bias, padding=rate, dilation=rate)  # type: ignore[arg-type]
            for branch, rate in zip(made.branches, rates, strict=True)
        )
        torch.testing.assert_close(made(features), by_hand)


def test_the_released_code_stops_after_the_second_rate() -> None:
    assert [branch.dilation for branch in AtrousClassifier(2, 2).branches] == [(6, 6), (12, 12)]
