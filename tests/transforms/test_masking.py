"""Block masks: how much is hidden, and in which pieces."""

from __future__ import annotations

import torch

from iccld.transforms import Draw, block_mask


def draw(seed: int = 0) -> Draw:
    return Draw(torch.Generator().manual_seed(seed))


def test_each_sample_hides_its_own_ratio_of_blocks() -> None:
    ratio = torch.tensor([0.0, 0.2, 0.7, 1.0])
    kept = block_mask(ratio, (200, 200), draw(), block=2)  # 10,000 blocks each
    assert kept.shape == (4, 1, 200, 200)
    hidden = 1 - kept.mean((1, 2, 3))
    assert float((hidden - ratio).abs().max()) < 4 * (0.25 / 10_000) ** 0.5
    assert float(hidden[0]) == 0.0
    assert float(hidden[3]) == 1.0


def test_masks_are_made_of_whole_blocks() -> None:
    kept = block_mask(torch.full((3,), 0.5), (12, 20), draw(), block=4)
    assert kept.unique().tolist() == [0.0, 1.0]
    blocks = kept.view(3, 3, 4, 5, 4)
    assert torch.equal(blocks.amax((2, 4)), blocks.amin((2, 4)))
    assert not torch.equal(kept[0], kept[1])


def test_sizes_that_are_no_multiples_cut_the_last_blocks() -> None:
    kept = block_mask(torch.full((1,), 0.5), (10, 7), draw(), block=4)
    assert kept.shape == (1, 1, 10, 7)
    assert torch.equal(kept, block_mask(torch.full((1,), 0.5), (12, 8), draw(), block=4)[..., :10, :7])
