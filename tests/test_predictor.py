"""The predictor's sizes, windows, noise and precision."""

import pytest
import torch
import torch.nn.functional as functional
from torch import nn

from iccld.errors import ConfigError
from iccld.labels import CITYSCAPES19, LabelClass, LabelSpace
from iccld.predictor import LatentNoise, Predictor, positional_noise

SPACE = LabelSpace("three", tuple(LabelClass(name, (i, i, i)) for i, name in enumerate("abc")))
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


class Echo(nn.Module):
    """Logits are the normalised picture; remembers what it was given."""

    def __init__(self, reduce=1):
        super().__init__()
        self.reduce = reduce
        self.images, self.noises = [], []

    def forward(self, images, noise):
        self.images.append(images)
        self.noises.append(noise)
        return functional.avg_pool2d(images, self.reduce)


class Noisy(nn.Module):
    """Logits are the noise, enlarged, plus the picture."""

    def forward(self, images, noise):
        return functional.interpolate(noise, scale_factor=8) + images


def make(network=None, **settings):
    defaults = {"working_size": None, "size_multiple": 8, "mean": MEAN, "std": STD}
    noise = LatentNoise(settings.pop("noise_channels", 0), seed=settings.pop("seed", 0))
    return Predictor(network or Echo(), SPACE, noise=noise, **(defaults | settings))


def picture(height, width, batch=1, seed=0):
    return torch.randint(0, 256, (batch, 3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def normalised(images):
    return (images.float() / 255 - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]


@pytest.mark.parametrize("window", [None, (16, 24)])
@pytest.mark.parametrize("size", [(16, 24), (33, 41), (1, 1), (7, 100)])
def test_predictor_without_working_size_answers_at_the_pictures_size_pixel_by_pixel(size, window):
    predictor = make(window=window)
    images = picture(*size, batch=2)
    logits = predictor(images)
    assert logits.shape == (2, 3, *size)
    torch.testing.assert_close(logits, normalised(images), rtol=1e-5, atol=1e-5)
    assert all(side % 8 == 0 for seen in predictor.network.images for side in seen.shape[2:])


def test_predictor_pads_by_replication():
    predictor = make()
    images = picture(5, 9)
    predictor(images)
    seen = predictor.network.images[0]
    assert seen.shape == (1, 3, 8, 16)
    torch.testing.assert_close(seen[:, :, 7, 15], normalised(images)[:, :, 4, 8])


def test_predictor_resizes_to_the_working_area_keeping_the_aspect():
    predictor = make(working_size=(128, 192))
    for height, width in [(256, 384), (1052, 1914), (200, 1000), (1000, 200), (10, 10), (3000, 3000)]:
        new_height, new_width = predictor.prepared_size(height, width)
        assert new_height % 8 == 0
        assert new_width % 8 == 0
        assert new_height * new_width == pytest.approx(128 * 192, rel=0.08)
        assert new_height / new_width == pytest.approx(height / width, rel=0.1)
    assert predictor.prepared_size(128, 192) == (128, 192)
    assert predictor.prepared_size(1, 10000) == (8, 128 * 192 // 8)
    assert predictor.prepared_size(10000, 1) == (128 * 192 // 8, 8)


def test_predictor_resizes_once_to_any_size():
    predictor = make(Echo(reduce=4), working_size=(32, 48))
    images = picture(64, 96, batch=2)
    at = predictor.logits_at(images, (100, 150))
    small = predictor.network_logits(images)
    assert small.shape == (2, 3, 8, 12)
    assert torch.equal(at, functional.interpolate(small, size=(100, 150), mode="bilinear", align_corners=False))
    assert torch.equal(predictor(images), predictor.logits_at(images, (64, 96)))
    expected = functional.interpolate(images.float() / 255, size=(32, 48), mode="bilinear", antialias=True)
    torch.testing.assert_close(predictor.network.images[0], normalised(expected * 255), rtol=1e-4, atol=1e-4)


def test_predictor_crops_padding_of_low_resolution_logits():
    predictor = make(Echo(reduce=8))
    images = torch.full((1, 3, 13, 21), 255, dtype=torch.uint8)
    assert torch.allclose(predictor(images), normalised(images), atol=1e-5)
    assert predictor.network_logits(images).shape == (1, 3, 13, 21)


def test_batches_do_not_change_answers():
    predictor = make(Noisy(), noise_channels=3)
    images = picture(24, 32, batch=3)
    together = predictor(images)
    for row in range(3):
        assert torch.equal(predictor(images[row : row + 1])[0], together[row])


@pytest.mark.parametrize("at_once", [1, 3])
@pytest.mark.parametrize(("size", "window", "stride"), [((40, 56), (16, 24), 8), ((33, 57), (16, 16), 16), ((16, 16), (32, 32), None)])
def test_windows_do_not_change_the_noise(size, window, stride, at_once):
    images = picture(*size, batch=2)
    whole = make(Noisy(), noise_channels=3, seed=5)
    windows = make(Noisy(), noise_channels=3, seed=5, window=window, stride=stride)
    windows.windows_at_once = at_once
    torch.testing.assert_close(windows(images), whole(images), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("network", [Noisy, lambda: Echo(reduce=8)])
@pytest.mark.parametrize("window", [(32, 56), (40, 56), (64, 64)])
def test_a_window_that_covers_the_picture_gives_the_very_same_logits(network, window):
    images = picture(30, 55, batch=2)
    noise = {"noise_channels": 3} if network is Noisy else {}
    whole = make(network(), **noise)
    assert torch.equal(make(network(), window=window, stride=16, **noise)(images), whole(images))


def test_predictor_takes_noise_from_outside_and_by_seed():
    images = picture(16, 16)
    predictor = make(Noisy(), noise_channels=3)
    given = torch.randn(1, 3, 2, 2)
    expected = functional.interpolate(given, scale_factor=8) + normalised(images)
    torch.testing.assert_close(predictor(images, given), expected)
    other = make(Noisy(), noise_channels=3, seed=1)
    assert not torch.equal(predictor(images), other(images))
    with pytest.raises(TypeError, match="noise has shape"):
        predictor(images, given[:, :, :1])
    with pytest.raises(TypeError, match="takes none"):
        make()(images, given)
    echo = make()
    echo(images)
    assert echo.network.noises == [None]


def test_predictor_autocasts_on_request_and_answers_in_float32():
    network = nn.Conv2d(3, 3, 1)

    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = network
            self.dtypes = []

        def forward(self, images, noise):
            assert images.is_contiguous(memory_format=torch.channels_last)
            logits = self.conv(images)
            self.dtypes.append(logits.dtype)
            return logits

    predictor = make(Wrapped())
    exact = predictor(picture(16, 16))
    predictor.precision = "bf16"
    rounded = predictor(picture(16, 16))
    assert predictor.network.dtypes == [torch.float32, torch.bfloat16]
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(exact, rounded, rtol=0.05, atol=0.05)


def test_predictor_state_is_the_network_alone():
    assert list(make(nn.Conv2d(3, 3, 1)).state_dict()) == ["network.weight", "network.bias"]


@pytest.mark.parametrize(
    "settings",
    [
        {"size_multiple": 0},
        {"noise_channels": 2, "size_multiple": 4},
        {"window": (20, 16)},
        {"window": (16, 16), "stride": 17},
        {"window": (16, 16), "stride": 0},
        {"window": (16, 16), "stride": 4, "noise_channels": 2},
        {"std": (0.0, 1.0, 1.0)},
        {"mean": (0.0, 1.0)},
        {"working_size": (4, 100)},
    ],
)
def test_predictor_refuses_inconsistent_settings(settings):
    with pytest.raises(ConfigError):
        make(**settings)


def test_predictor_refuses_later_settings_and_other_inputs():
    predictor = make()
    with pytest.raises(TypeError, match="uint8"):
        predictor(torch.zeros(1, 3, 8, 8))
    with pytest.raises(TypeError, match="uint8"):
        predictor(torch.zeros(1, 4, 8, 8, dtype=torch.uint8))
    predictor.precision = "fp16"
    with pytest.raises(ConfigError, match="fp16"):
        predictor(picture(8, 8))


def test_positional_noise_is_standard_normal():
    noise = positional_noise((256, 256), 7, channels=4)
    assert noise.shape == (4, 256, 256)
    assert noise.dtype == torch.float32
    num = noise.numel()
    assert abs(noise.mean().item()) < 4 / num**0.5
    assert abs(noise.var().item() - 1) < 4 * (2 / num) ** 0.5
    assert abs((noise**3).mean().item()) < 4 * (15 / num) ** 0.5
    assert abs((noise**4).mean().item() - 3) < 4 * (96 / num) ** 0.5
    assert abs((noise.abs() < 1).float().mean().item() - 0.6827) < 4 * 0.466 / num**0.5


def test_positional_noise_is_uncorrelated_between_neighbours_channels_seeds_and_diagonals():
    noise = positional_noise((128, 128), 0, channels=3)
    pairs = [
        (noise[:, 1:], noise[:, :-1]),
        (noise[:, :, 1:], noise[:, :, :-1]),
        (noise[:1], noise[1:2]),
        (noise, positional_noise((128, 128), 1, channels=3)),
        (noise, positional_noise((128, 128), 1 << 32, channels=3)),
        (noise, noise.transpose(1, 2)),
    ]
    for number, (first, second) in enumerate(pairs):
        # Transposed pairs count twice, and the diagonal is shared.
        slack = 2 / 128 if number == 5 else 0
        assert abs((first * second).mean().item()) < 5 / first.numel() ** 0.5 + slack, number


def test_positional_noise_depends_on_the_absolute_position_alone():
    whole = positional_noise((40, 50), 3, channels=4)
    part = positional_noise((7, 9), 3, 11, 23, channels=2)
    torch.testing.assert_close(part, whole[:2, 11:18, 23:32], rtol=0, atol=1e-6)
    assert whole.unique().numel() > 0.999 * whole.numel()


def test_positional_noise_values_are_pinned():
    """Answers must not change between versions: a run scored today is scored alike tomorrow."""
    expected = torch.tensor([[[1.6954501, -1.0181737], [-0.5114150, -0.5147092]]])
    torch.testing.assert_close(positional_noise((2, 2), 0, channels=1), expected, rtol=0, atol=1e-6)
    far = positional_noise((1, 2), 123456789012, 100, -3, channels=2)
    torch.testing.assert_close(far, torch.tensor([[[-0.9042677, 1.5666711]], [[0.9081379, -1.8479065]]]), rtol=0, atol=1e-6)


def test_predictor_keeps_its_label_space():
    assert Predictor(Echo(), CITYSCAPES19, working_size=None, size_multiple=1, mean=MEAN, std=STD).label_space is CITYSCAPES19
