"""Jitter, blur, noise: ranges, probabilities, and what must not change."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from iccld.transforms import Draw, blur, jitter, sensor_noise
from iccld.transforms.photometric import LUMA, _hue_matrix, gaussian_blur


def draw(seed: int = 0) -> Draw:
    return Draw(torch.Generator().manual_seed(seed))


def pictures(batch: int, side: int = 8) -> Tensor:
    return torch.rand(batch, 3, side, side, generator=torch.Generator().manual_seed(1))


CHANGES: dict[str, Callable[[Tensor, float], Tensor]] = {
    "jitter": lambda x, p: jitter(x, draw(), probability=p),
    "blur": lambda x, p: blur(x, draw(), probability=p, sigma=(0.6, 1.0)),
    "noise": lambda x, p: sensor_noise(x, draw(), probability=p),
}


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("probability", [0.0, 0.2, 0.8, 1.0])
def test_each_is_applied_with_its_probability(name: str, probability: float) -> None:
    image = pictures(10_000, 5 if name == "blur" else 2)
    share = float((CHANGES[name](image, probability) != image).flatten(1).any(1).float().mean())
    assert abs(share - probability) <= 4 * (probability * (1 - probability) / 10_000) ** 0.5


@pytest.mark.parametrize(
    "change",
    [
        lambda x: jitter(x, draw(), probability=1, strength=0.5, white_balance=0.5),
        lambda x: blur(x, draw(), probability=1, sigma=(0.15, 3.0)),
        lambda x: sensor_noise(x, draw(), probability=1, std=0.5),
    ],
)
def test_colours_stay_between_0_and_1(change: Callable[[Tensor], Tensor]) -> None:
    image = pictures(64, 16).round()  # black and white, the extremes
    changed = change(image)
    assert changed.shape == image.shape
    assert changed.dtype == torch.float32
    # The weights of a blur kernel sum to 1 up to rounding.
    assert 0 <= float(changed.min()) < float(changed.max()) <= 1 + 1e-6
    assert torch.isfinite(changed).all()


def test_jitter_leaves_grey_pictures_grey() -> None:
    grey = pictures(200, 4)[:, :1].expand(-1, 3, -1, -1).contiguous()
    changed = jitter(grey, draw(), probability=1, strength=0.5)
    assert float((changed.amax(1) - changed.amin(1)).max()) < 1e-4
    assert float((changed - grey).abs().max()) > 0.05
    balanced = jitter(grey, draw(), probability=1, strength=0.5, white_balance=0.2)
    assert float((balanced.amax(1) - balanced.amin(1)).max()) > 0.01


def test_jitter_of_no_strength_is_the_identity() -> None:
    image = pictures(8).clamp(0.01, 0.99)
    torch.testing.assert_close(jitter(image, draw(), probability=1, strength=0.0), image, atol=1e-5, rtol=0)


def test_jitter_is_its_steps_one_after_the_other() -> None:
    """Saturation, hue, gains, contrast about the mean grey, brightness, gamma, each by itself, with the same draws."""
    image, strength, white_balance = pictures(16, 9), 0.4, 0.3

    def amount(spread: float) -> Tensor:
        return 1 + spread * drawn.uniform(16, low=-1, high=1)[:, None, None, None]

    drawn, luma = draw(5), torch.tensor(LUMA)
    brightness, contrast, saturation = amount(strength), amount(strength), amount(2 * strength)
    gamma = torch.exp2(2 * strength * drawn.uniform(16, low=-1, high=1))[:, None, None, None]
    gains = torch.exp2(white_balance * drawn.uniform(16, (3,), low=-1, high=1))[:, :, None, None]
    turn = _hue_matrix(0.5 * strength * drawn.uniform(16, low=-1, high=1), luma)
    grey = (image * luma[:, None, None]).sum(1, keepdim=True)
    x = grey + saturation.clamp(min=0) * (image - grey)
    x = torch.einsum("bij,bjhw->bihw", turn, x) * gains
    middle = grey.mean((2, 3), keepdim=True)
    x = ((middle + contrast * (x - middle)) * brightness).clamp(1e-4, 1).pow(gamma)
    found = jitter(image, draw(5), probability=1, strength=strength, white_balance=white_balance)
    torch.testing.assert_close(found, x, atol=1e-5, rtol=1e-4)


def test_gradients_reach_pictures_that_are_jittered_and_those_that_are_not() -> None:
    image = pictures(8).clamp(0.1, 0.9).requires_grad_()
    jitter(image, draw(), probability=0.5).sum().backward()
    assert image.grad is not None
    assert bool((image.grad != 0).flatten(1).any(1).all())


def test_jitter_turns_the_hue_of_colours() -> None:
    red = torch.tensor([0.6, 0.3, 0.3]).view(1, 3, 1, 1).expand(500, 3, 2, 2)
    changed = jitter(red, draw(), probability=1, strength=0.5)
    assert float((changed[:, 1] - changed[:, 2]).abs().max()) > 0.02


def test_each_row_has_its_own_draw() -> None:
    changed = jitter(pictures(1).expand(50, -1, -1, -1), draw(), probability=1)
    assert len(changed.mean((1, 2, 3)).unique()) == 50


def test_hue_matrix_preserves_luma_and_grey() -> None:
    luma = torch.tensor(LUMA)
    angle = torch.linspace(-3, 3, 31)
    matrix = _hue_matrix(angle, luma)
    torch.testing.assert_close(luma @ matrix, luma.expand(31, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(matrix @ torch.ones(3), torch.ones(31, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(matrix[15], torch.eye(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(matrix @ matrix.flip(0), torch.eye(3).expand(31, 3, 3), atol=1e-4, rtol=0)
    assert float((matrix[0] - torch.eye(3)).abs().max()) > 0.5


def test_blur_keeps_constants_and_spreads_a_point() -> None:
    torch.testing.assert_close(blur(torch.full((2, 3, 9, 9), 0.4), draw(), probability=1), torch.full((2, 3, 9, 9), 0.4))
    point = torch.zeros(1, 3, 15, 15)
    point[..., 7, 7] = 1
    spread = blur(point, draw(), probability=1, sigma=(1.0, 1.0))
    profile = torch.exp(-(torch.arange(-3, 4) ** 2) / 2.0)
    assert float(spread.sum()) == pytest.approx(3, abs=1e-4)
    torch.testing.assert_close(spread[0, 0, 7, 4:11] / spread[0, 0, 7, 7], profile, atol=1e-4, rtol=0)


def test_sensor_noise_is_at_most_its_deviation() -> None:
    grey = torch.full((400, 3, 16, 16), 0.5)
    deviation = (sensor_noise(grey, draw(), probability=1, std=0.04) - grey).flatten(1).std(1)
    assert float(deviation.max()) < 0.044
    assert float(deviation.min()) < 0.002
    assert float(deviation.mean()) == pytest.approx(0.02, abs=0.002)


def blurred_by_hand(image: np.ndarray, sigma: float, radius: int) -> np.ndarray:
    """(C, H, W) float64 by the formula: the sum over a mirrored window, weighted by exp(-(y² + x²) / 2σ²)."""
    offsets = np.arange(-radius, radius + 1)
    weights = np.exp(-(offsets[:, None] ** 2 + offsets[None] ** 2) / (2 * sigma**2))
    padded = np.pad(image, ((0, 0), (radius, radius), (radius, radius)), mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (2 * radius + 1, 2 * radius + 1), axis=(1, 2))  # (C, H, W, k, k)
    return np.einsum("chwij,ij->chw", windows, weights / weights.sum())


@pytest.mark.parametrize("size", [(5, 7), (32, 17)])
@pytest.mark.parametrize("radius", [1, 3, 4])
def test_gaussian_blur_is_the_formula(size: tuple[int, int], radius: int) -> None:
    image = torch.rand(3, 3, *size, generator=torch.Generator().manual_seed(0))
    sigma = torch.tensor([0.15, 0.7, 1.15])
    expected = [blurred_by_hand(one.numpy().astype(np.float64), width, radius) for one, width in zip(image, sigma.tolist(), strict=True)]
    blurred = gaussian_blur(image, sigma, radius)
    torch.testing.assert_close(blurred, torch.from_numpy(np.stack(expected)).float(), rtol=0, atol=1e-6)


def test_gaussian_blur_repeats_what_kornia_gave() -> None:
    """kornia 0.9.0: the second row of gaussian_blur2d(image, (5, 5), sigma) on these two pictures."""
    first = [0.32430324, 0.690465927, 0.500074506, 0.309485644, 0.675617635]
    second = [0.591372013, 0.540231764, 0.465751261, 0.485491961, 0.511882007]
    image = (torch.arange(2 * 1 * 4 * 5).reshape(2, 1, 4, 5) * 7 % 11).float() / 10
    blurred = gaussian_blur(image, torch.tensor([0.5, 1.1]), 2)
    torch.testing.assert_close(blurred[:, 0, 1], torch.tensor([first, second]), rtol=0, atol=1e-6)


def test_gaussian_blur_is_the_same_by_opencv_and_by_pytorch() -> None:
    """PyTorch's serves other devices, and pictures whose gradient is asked for."""
    image, sigma = pictures(4, 12), torch.tensor([0.0, 0.3, 1.1, 2.5])
    by_pytorch = gaussian_blur(image.clone().requires_grad_(), sigma, 3)
    assert by_pytorch.requires_grad
    torch.testing.assert_close(gaussian_blur(image, sigma, 3), by_pytorch.detach(), atol=1e-6, rtol=0)
    assert gaussian_blur(image, sigma.clone().requires_grad_(), 3).requires_grad
    with pytest.raises(RuntimeError, match="Padding size"):  # there is nothing to mirror
        gaussian_blur(image[:, :, :3], sigma, 3)
    part = image[:, :, 1:, 2:]  # not in one piece
    torch.testing.assert_close(gaussian_blur(part, sigma, 3), gaussian_blur(part.contiguous(), sigma, 3), atol=0, rtol=0)


def test_gaussian_blur_of_no_width_changes_nothing() -> None:
    image = torch.rand(2, 3, 9, 9, generator=torch.Generator().manual_seed(0))
    assert torch.equal(gaussian_blur(image, torch.zeros(2), 2), image)
