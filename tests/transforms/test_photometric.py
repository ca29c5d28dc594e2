"""Jitter, blur, noise: ranges, probabilities, and what must not change."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from iccld.transforms import Draw, blur, jitter, sensor_noise
from iccld.transforms.photometric import LUMA, _hue_matrix


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
