"""What a corrupted condition keeps."""

from __future__ import annotations

import torch

from iccld.methods.common.conditioning import corrupt
from iccld.transforms import Draw

LATENT = torch.randn(2000, 2, 8, 8, generator=torch.Generator().manual_seed(0))


def draw() -> Draw:
    return Draw(torch.Generator().manual_seed(1))


def test_the_same_condition_is_left_alone() -> None:
    assert corrupt(LATENT, "same", 0.9, draw()) is LATENT
    assert corrupt(LATENT, "view", 0.9, draw()) is LATENT


def test_noise_has_a_deviation_of_its_own_in_each_picture() -> None:
    std = (corrupt(LATENT, "noise", 0.6, draw()) - LATENT).flatten(1).std(1)
    assert float(std.max()) < 0.6 * 1.25
    assert abs(float(std.mean()) - 0.3) < 0.02  # uniform from 0 to 0.6
    assert float((std < 0.1).float().mean()) > 0.1


def test_a_drop_takes_whole_pictures_with_its_probability() -> None:
    answer = corrupt(LATENT, "drop", 0.3, draw())
    dropped = (answer == 0).flatten(1).all(1)
    assert abs(float(dropped.float().mean()) - 0.3) < 0.04
    assert torch.equal(answer[~dropped], LATENT[~dropped])


def test_a_mask_hides_whole_blocks_up_to_its_share() -> None:
    hidden = corrupt(LATENT, "mask", 0.5, draw()) == 0
    blocks = hidden.view(2000, 2, 2, 4, 2, 4)
    assert torch.equal(blocks.all(3).all(4), blocks.any(3).any(4))
    assert abs(float(hidden.float().mean()) - 0.25) < 0.03  # uniform from 0 to 0.5
