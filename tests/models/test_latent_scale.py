"""Normalising latents and back."""

from __future__ import annotations

import torch

from iccld.models import LatentScale


def latents() -> torch.Tensor:
    noise = torch.randn(6, 3, 5, 7, generator=torch.Generator().manual_seed(0))
    return noise * torch.tensor([0.1, 4.0, 20.0])[:, None, None] + torch.tensor([3.0, -2.0, 0.5])[:, None, None]


def fitted() -> LatentScale:
    scale = LatentScale(3)
    scale.set(latents().mean((0, 2, 3)), latents().std((0, 2, 3), unbiased=False))
    return scale


def test_normalised_latents_have_zero_mean_and_unit_variance() -> None:
    normalised = fitted().normalise(latents())
    torch.testing.assert_close(normalised.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(normalised.var((0, 2, 3), unbiased=False), torch.ones(3), atol=1e-4, rtol=0)


def test_restore_inverts_normalise() -> None:
    scale = fitted()
    torch.testing.assert_close(scale.restore(scale.normalise(latents())), latents(), atol=1e-4, rtol=1e-5)


def test_a_fresh_scale_is_the_identity() -> None:
    assert torch.equal(LatentScale(3).normalise(latents()), latents())


def test_a_constant_channel_is_only_centred() -> None:
    scale = LatentScale(2)
    scale.set(torch.tensor([5.0, 0.0]), torch.tensor([0.0, 2.0]))
    normalised = scale.normalise(torch.full((1, 2, 2, 2), 5.0))
    assert normalised[0, :, 0, 0].tolist() == [0.0, 2.5]


def test_the_statistics_are_stored_and_not_trained() -> None:
    scale, other = fitted(), LatentScale(3)
    assert not list(scale.parameters())
    other.load_state_dict(scale.state_dict())
    assert torch.equal(other.normalise(latents()), scale.normalise(latents()))
