"""The exchange of amplitudes against NumPy's transform."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from iccld.transforms import Draw, exchange_amplitude, match_moments
from iccld.transforms.fourier import _among_all, _among_few


def draw(seed: int = 0) -> Draw:
    return Draw(torch.Generator().manual_seed(seed))


def faint(batch: int, height: int, width: int, seed: int, level: float = 0.5) -> Tensor:
    """Low-contrast pictures, which no exchange drives out of 0..1."""
    return level + 0.05 * (torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(seed)) - 0.5)


@pytest.mark.parametrize("size", [(16, 16), (15, 21), (16, 12)])
def test_a_share_of_everything_gives_the_amplitude_of_the_style_and_keeps_the_phase(size: tuple[int, int]) -> None:
    image, style = faint(2, *size, seed=0), faint(2, *size, seed=1, level=0.6)
    restyled = exchange_amplitude(image, style, draw(), share=(1.0, 1.0))
    ours, own, other = (np.fft.fft2(x.double().numpy()) for x in (restyled, image, style))
    np.testing.assert_allclose(np.abs(ours), np.abs(other), atol=1e-3)
    turned = ours * np.conj(own)  # phase difference, weighted by amplitude
    np.testing.assert_allclose(turned.imag, 0, atol=1e-3 * np.abs(turned).max())
    strong = np.abs(own) > 0.1
    np.testing.assert_allclose(np.angle(turned)[strong & (np.abs(other) > 0.1)], 0, atol=1e-3)


def test_an_exchange_with_itself_is_the_identity() -> None:
    image = torch.rand(2, 3, 15, 20, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(exchange_amplitude(image, image, draw(), share=(0.1, 0.5)), image, atol=1e-5, rtol=0)


def test_the_smallest_share_exchanges_the_mean_colour_alone() -> None:
    image, style = faint(2, 16, 24, seed=0), faint(2, 16, 24, seed=1, level=0.7)
    restyled = exchange_amplitude(image, style, draw(), share=(0.0, 0.0))
    expected = image - image.mean((2, 3), keepdim=True) + style.mean((2, 3), keepdim=True)
    torch.testing.assert_close(restyled, expected, atol=1e-5, rtol=0)


def test_high_frequencies_stay() -> None:
    image, style = faint(1, 16, 24, seed=0), faint(1, 16, 24, seed=1)
    ours, own, other = (
        np.fft.fft2(x.double().numpy()) for x in (exchange_amplitude(image, style, draw(), share=(0.13, 0.13)), image, style)
    )
    fy, fx = np.abs(np.fft.fftfreq(16) * 16)[:, None], np.abs(np.fft.fftfreq(24) * 24)[None]
    low = np.maximum(fy, fx) <= 2  # floor(0.13 * 16)
    np.testing.assert_allclose(ours[..., ~low], own[..., ~low], atol=1e-3)
    np.testing.assert_allclose(np.abs(ours[..., low]), np.abs(other[..., low]), atol=1e-3)
    assert np.abs(np.abs(own[..., low]) - np.abs(other[..., low])).max() > 0.05


@pytest.mark.parametrize(("size", "share"), [((48, 64), (0.0, 0.02)), ((40, 33), (0.1, 0.2)), ((64, 48), (0.24, 0.24))])
def test_few_frequencies_by_their_waves_are_those_of_the_whole_transform(size: tuple[int, int], share: tuple[float, float]) -> None:
    image, style = (torch.rand(3, 3, *size, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    radius = torch.tensor([math.floor(share[0] * min(size)), math.floor(share[1] * min(size)), 0])
    largest = int(radius.max())
    few, everything = _among_few(image, style, radius, largest), _among_all(image, style, radius, largest)
    torch.testing.assert_close(few, everything, atol=2e-5, rtol=0)
    assert (few - image).abs().amax((1, 2, 3)).min() > 1e-3  # each picture has changed


@pytest.mark.parametrize("probability", [0.0, 0.5, 0.9, 1.0])
def test_the_exchange_is_applied_with_its_probability(probability: float) -> None:
    image, style = faint(10_000, 4, 4, seed=0), faint(10_000, 4, 4, seed=1, level=0.6)
    changed = (exchange_amplitude(image, style, draw(), probability=probability) != image).flatten(1).any(1)
    assert abs(float(changed.float().mean()) - probability) <= 4 * (probability * (1 - probability) / 10_000) ** 0.5


def test_colours_stay_between_0_and_1() -> None:
    image = torch.rand(16, 3, 12, 12, generator=torch.Generator().manual_seed(0)).round()
    restyled = exchange_amplitude(image, image.flip(0).roll(1, 1), draw(), share=(0.0, 1.0))
    assert 0 <= float(restyled.min()) < float(restyled.max()) <= 1
    black = exchange_amplitude(torch.zeros(2, 3, 8, 8), image[:2, :, :8, :8], draw(), share=(1.0, 1.0))
    assert torch.isfinite(black).all()


def test_match_moments_takes_the_style_of_each_channel_and_itself_changes_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    image = 0.4 + 0.1 * torch.rand(2, 3, 16, 24, generator=generator)
    style = 0.2 + 0.3 * torch.rand(2, 3, 16, 24, generator=generator)
    matched = match_moments(image, style, Draw(generator))
    torch.testing.assert_close(matched.mean((2, 3)), style.mean((2, 3)), atol=2e-3, rtol=0)
    torch.testing.assert_close(matched.std((2, 3)), style.std((2, 3)), atol=2e-3, rtol=0)
    torch.testing.assert_close(match_moments(image, image, Draw(generator)), image, atol=1e-6, rtol=0)


def test_match_moments_is_applied_with_its_probability() -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(10_000, 3, 2, 2, generator=generator)
    changed = (match_moments(image, image.flip(0), Draw(generator), probability=0.3) != image).flatten(1).any(1)
    assert abs(float(changed.float().mean()) - 0.3) < 0.02
