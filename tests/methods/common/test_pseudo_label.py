"""Pseudo-labels and their weights by hand."""

from __future__ import annotations

import math

import pytest
import torch

from iccld.methods.common.pseudo_label import class_histogram, confident_share, pseudo_label, pseudo_label_weight


def test_pseudo_label_is_the_most_probable_class() -> None:
    # p = (1/2, 1/4, 1/4) and (1/6, 1/6, 4/6)
    logits = torch.tensor([[math.log(2.0), 0.0], [0.0, 0.0], [0.0, math.log(4.0)]]).view(1, 3, 1, 2)
    answer = pseudo_label(logits)
    assert answer.label.tolist() == [[[0, 2]]]
    torch.testing.assert_close(answer.confidence, torch.tensor([[[1 / 2, 4 / 6]]]))
    entropies = [0.5 * math.log(2) + 0.5 * math.log(4), 2 / 6 * math.log(6) + 4 / 6 * math.log(6 / 4)]
    assert float(answer.entropy) == pytest.approx(sum(entropies) / 2, abs=1e-6)


def test_certain_logits_have_no_entropy() -> None:
    answer = pseudo_label(torch.tensor([500.0, 0.0, -500.0]).view(1, 3, 1, 1).to(torch.bfloat16))
    assert float(answer.entropy) == 0.0
    assert answer.confidence.dtype == torch.float32


def test_confident_share_counts_each_picture_for_itself() -> None:
    confidence = torch.tensor([[[0.968, 0.9], [0.99, 1.0]], [[0.1, 0.2], [0.967, 0.97]]])
    torch.testing.assert_close(confident_share(confidence, 0.968), torch.tensor([0.75, 0.25]))  # the threshold itself counts
    assert confident_share(confidence, 0.0).tolist() == [1.0, 1.0]
    assert confident_share(confidence, 1.01).tolist() == [0.0, 0.0]


def test_class_histogram_gives_shares() -> None:
    label = torch.tensor([[[0, 2], [2, 255]]])
    torch.testing.assert_close(class_histogram(label[:, :1], 4), torch.tensor([0.5, 0, 0.5, 0]))
    torch.testing.assert_close(class_histogram(label, 4), torch.tensor([1 / 3, 0, 2 / 3, 0]))  # ignored pixels do not count
    assert class_histogram(torch.full((1, 2, 2), 255), 4).tolist() == [0, 0, 0, 0]


def test_pseudo_label_weights_by_hand() -> None:
    confidence = torch.tensor([[[0.968, 0.9], [0.99, 1.0]], [[0.1, 0.2], [0.967, 0.97]]])
    share = pseudo_label_weight(confidence, 0.968, "share")
    assert share.tolist() == [[[0.75, 0.75], [0.75, 0.75]], [[0.25, 0.25], [0.25, 0.25]]]
    assert pseudo_label_weight(confidence, 0.968, "pixel").tolist() == [[[1, 0], [1, 1]], [[0, 0], [0, 1]]]
    assert pseudo_label_weight(confidence, 0.968, "one").tolist() == torch.ones(2, 2, 2).tolist()
