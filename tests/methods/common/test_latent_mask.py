"""What a mask hides leaves no trace, at any level; what it shows stays as it is."""

from __future__ import annotations

import pytest
import torch

from iccld.methods.common.latent_mask import at_level, draw_visible, filled_by_mean, hidden_levels
from iccld.transforms import Draw


def draw(seed: int = 0) -> Draw:
    return Draw(torch.Generator().manual_seed(seed))


def test_the_share_of_hidden_blocks_is_the_ratio_and_every_picture_has_its_own() -> None:
    visible = draw_visible(torch.zeros(200, 3, 12, 16), 0.4, 2, draw())
    assert visible.shape == (200, 1, 12, 16)
    assert float(1 - visible.mean()) == pytest.approx(0.4, abs=0.02)
    blocks = visible[:, :, ::2, ::2].repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert torch.equal(blocks, visible)
    assert not torch.equal(visible[0], visible[1])


def test_a_ratio_of_0_hides_nothing_and_draws_nothing() -> None:
    one, other = draw(), draw()
    assert torch.equal(draw_visible(torch.zeros(2, 3, 4, 6), 0.0, 2, one), torch.ones(2, 1, 4, 6))
    assert torch.equal(one.uniform(3), other.uniform(3))


@pytest.mark.parametrize("size", [(12, 16), (24, 32), (48, 64), (13, 17)])
def test_hidden_places_read_the_mean_of_what_is_visible(size: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(1)
    visible = draw_visible(torch.zeros(2, 1, 12, 16), 0.4, 2, draw())
    level = torch.randn(2, 5, *size, generator=generator)
    mask = at_level(visible, level).bool().expand_as(level)
    (read,) = hidden_levels((level,), visible)
    assert torch.equal(read[mask], level[mask])
    for picture in range(2):
        for channel in range(5):
            shown = mask[picture, channel]
            expected = level[picture, channel][shown].mean().expand(int((~shown).sum()))
            torch.testing.assert_close(read[picture, channel][~shown], expected)
    changed = torch.where(mask, level, 100 * torch.randn(level.shape, generator=generator))
    assert torch.equal(filled_by_mean(changed, mask[:, :1].float()), read)


def test_the_mean_is_the_same_whichever_way_the_cells_lie() -> None:
    values = torch.randn(3, 5, 12, 16, generator=torch.Generator().manual_seed(3))
    visible = draw_visible(values, 0.4, 2, draw())
    last = filled_by_mean(values.contiguous(memory_format=torch.channels_last), visible)
    torch.testing.assert_close(last, filled_by_mean(values, visible))
    assert last.is_contiguous(memory_format=torch.channels_last)


def test_a_picture_of_which_nothing_is_visible_reads_0() -> None:
    assert torch.equal(filled_by_mean(torch.ones(1, 2, 3, 3), torch.zeros(1, 1, 3, 3)), torch.zeros(1, 2, 3, 3))
