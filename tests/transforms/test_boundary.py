"""Distances to the edge of what was pasted, against brute force."""

from __future__ import annotations

import torch

from iccld.transforms import boundary_distance


def test_distance_is_that_to_the_nearest_pixel_of_the_other_kind() -> None:
    mask = torch.rand(3, 9, 13, generator=torch.Generator().manual_seed(0)) < 0.3
    rows, columns = torch.meshgrid(torch.arange(9.0), torch.arange(13.0), indexing="ij")
    place = torch.stack([rows, columns], -1).reshape(-1, 2)
    apart = torch.cdist(place, place)
    for one, distance in zip(mask, boundary_distance(mask), strict=True):
        other = one.flatten()[:, None] != one.flatten()[None]
        expected = torch.where(other, apart, torch.inf).amin(1).view(9, 13)
        torch.testing.assert_close(distance, expected, atol=1e-4, rtol=0)


def test_nothing_pasted_has_no_edge() -> None:
    mask = torch.zeros(2, 4, 4, dtype=torch.bool)
    mask[1] = True
    assert bool(boundary_distance(mask).isinf().all())


def test_fault_13_distances_are_exact_to_the_last_bit() -> None:
    """OpenCV's last bit differs between calls on the same mask; a resumed training would go another way."""
    mask = torch.rand(8, 32, 32, generator=torch.Generator().manual_seed(1)) < 0.7
    distance = boundary_distance(mask)
    assert torch.equal(distance, distance.double().square().round().sqrt().float())
    assert all(torch.equal(boundary_distance(mask.clone()), distance) for _ in range(20))
