"""DeepLabV2's classifier: parallel dilated convolutions whose answers are added (Chen et al., TPAMI 2018)."""

from __future__ import annotations

from torch import Tensor, nn

RATES = (6, 12)
"""Rates that the released DeepLabV2 code of AdaptSegNet, and of all that build on it, adds up: its loop over 6, 12, 18 and 24 returns
after the second."""
PAPER_RATES = (6, 12, 18, 24)


class AtrousClassifier(nn.Module):
    """(B, C, h, w) features -> (B, K, h, w) logits: the sum of 3x3 convolutions at these dilations."""

    def __init__(self, channels: int, num_classes: int, rates: tuple[int, ...] = RATES) -> None:
        super().__init__()
        self.branches = nn.ModuleList(nn.Conv2d(channels, num_classes, 3, padding=rate, dilation=rate) for rate in rates)
        for branch in self.branches:
            nn.init.normal_(branch.weight, std=0.01)  # type: ignore[arg-type]

    def forward(self, features: Tensor) -> Tensor:
        answers = [branch(features) for branch in self.branches]
        total: Tensor = sum(answers[1:], answers[0])
        return total
