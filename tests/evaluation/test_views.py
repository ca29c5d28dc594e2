"""Several views of a picture: mirrored and scaled predictions, averaged as probabilities at the picture's own geometry."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from iccld.errors import ConfigError
from iccld.evaluation import decide, teacher_logits
from iccld.evaluation.views import mean_log_probability, views_of
from iccld.geometry import check_scales
from iccld.labels import LabelClass, LabelSpace
from iccld.predict.memory import label_pictures
from iccld.predictor import LatentNoise, Predictor

SPACE = LabelSpace("three", tuple(LabelClass(name, (10 * i, 0, 0)) for i, name in enumerate(("a", "b", "c"))))
OPTIONS = {"size_multiple": 8, "mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.25)}


class Convolution(nn.Module):
    """A random 3x3 convolution at half resolution; with `symmetric`, at full resolution with mirror-symmetric weights."""

    def __init__(self, symmetric: bool = False) -> None:
        super().__init__()
        self.weight = torch.randn(3, 3, 3, 3, generator=torch.Generator().manual_seed(0))
        if symmetric:  # no rounding: whole weights, and sums whose order does not matter
            self.weight = (4 * (self.weight + self.weight.flip(3))).round()
        self.symmetric = symmetric

    def forward(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        if noise is not None:
            images = images + functional.interpolate(noise, scale_factor=8)
        if self.symmetric:
            return functional.conv2d((16 * images).round(), self.weight, padding=1)
        return functional.conv2d(functional.avg_pool2d(images, 2), self.weight, padding=1)


def pictures(height: int = 40, width: int = 72, rows: int = 2) -> Tensor:
    return torch.randint(0, 256, (rows, 3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(4))


def make(scales: tuple[float, ...] = (1.0,), flip: bool = False, **options: object) -> Predictor:
    network = options.pop("network", None) or Convolution()
    noise = LatentNoise(options.pop("noise_channels", 0))  # type: ignore[arg-type]
    predictor = Predictor(network, SPACE, noise=noise, **({"working_size": (32, 64)} | OPTIONS | options))  # type: ignore[arg-type]
    predictor.scales, predictor.flip = scales, flip
    return predictor


def probabilities(predictor: Predictor, images: Tensor) -> Tensor:
    return predictor(images).softmax(1)


@pytest.mark.parametrize("window", [None, (16, 32)])
@pytest.mark.parametrize("working_size", [None, (32, 64)])
def test_one_view_is_the_plain_prediction_bit_for_bit(working_size: tuple[int, int] | None, window: tuple[int, int] | None) -> None:
    plain = make(working_size=working_size, window=window)
    images = pictures()
    network, mean, std = plain.network, torch.tensor(plain.mean)[:, None, None], torch.tensor(plain.std)[:, None, None]
    shown = images.float() / 255
    if working_size is not None:
        shown = functional.interpolate(shown, size=plain.content_size(40, 72), mode="bilinear", antialias=True)
    size = plain.prepared_size(40, 72)
    beyond = size[0] - shown.shape[2], size[1] - shown.shape[3]
    if window is None:
        logits = network((functional.pad(shown, (0, beyond[1], 0, beyond[0]), mode="replicate") - mean) / std)
        if any(beyond):
            logits = functional.interpolate(logits, size=size, mode="bilinear")[:, :, : shown.shape[2], : shown.shape[3]]
        # Pictures are resized by sums in another order than interpolate's.
        torch.testing.assert_close(plain.view_logits(images)[0], logits, atol=0 if working_size is None else 1e-5, rtol=0)
    assert torch.equal(plain.network_logits(images), plain.view_logits(images)[0])
    again = make((1.0,), False, working_size=working_size, window=window)
    assert torch.equal(plain(images), again(images))
    labels, sure = label_pictures(plain, images)
    by_hand = plain(images)
    assert torch.equal(labels, by_hand.argmax(1).to(torch.uint8))
    torch.testing.assert_close(sure.float() / 255, by_hand.softmax(1).amax(1), atol=0.003, rtol=0)


@pytest.mark.parametrize("size", [(40, 72), (33, 57), (64, 32)])
def test_a_mirrored_view_of_a_symmetric_network_changes_nothing(size: tuple[int, int]) -> None:
    """Padding and noise belong to their pixels and turn with them: exact, at any width."""
    for options in ({}, {"noise_channels": 3}, {"working_size": None}):
        plain = make(network=Convolution(symmetric=True), **options)
        both = make(flip=True, network=Convolution(symmetric=True), **options)
        images = pictures(*size)
        first, second = both.view_logits(images)
        assert torch.equal(first, second)
        assert torch.equal(first, plain.view_logits(images)[0])
        torch.testing.assert_close(probabilities(both, images), probabilities(plain, images), atol=1e-6, rtol=0)


def test_the_answer_is_the_mean_of_the_views_probabilities() -> None:
    images = pictures(40, 80)  # of the working size's aspect: at none of the scales is anything padded, so that both sides are alike
    predictor = make((0.5, 1.0, 1.5), True)
    expected = torch.zeros(2, 3, 40, 80)
    for scale in (0.5, 1.0, 1.5):
        size = (round(32 * scale), round(64 * scale))
        alone = make(working_size=size)
        assert alone.prepared_size(40, 80) == alone.content_size(40, 80) == size
        expected += (probabilities(alone, images) + probabilities(alone, images.flip(3)).flip(3)) / 6
    # A mirrored picture is resized by sums in another order: a few units in the last place of logits around 10.
    torch.testing.assert_close(probabilities(predictor, images), expected, atol=5e-6, rtol=0)
    torch.testing.assert_close(predictor.network_logits(images).softmax(1), expected, atol=5e-6, rtol=0)
    labels, sure = decide(predictor.view_logits(images), (40, 80), confidence=True)
    assert sure is not None
    torch.testing.assert_close(sure, expected.amax(1), atol=1e-5, rtol=1e-5)
    certain = expected.topk(2, 1).values.diff(dim=1).abs()[:, 0] > 1e-5
    assert torch.equal(labels[certain].long(), expected.argmax(1)[certain])
    again, _ = label_pictures(predictor, images)
    assert torch.equal(again, labels)
    assert torch.equal(again, label_pictures(make((0.5, 1.0, 1.5), True), images)[0])  # nothing is drawn


def test_a_mirrored_view_is_the_mirrored_answer_to_the_mirrored_picture() -> None:
    images = pictures(32, 64)  # at the working size: nothing is padded
    predictor = make(flip=True)
    plain, mirrored = predictor.view_logits(images)
    assert torch.equal(plain, make().view_logits(images)[0])
    assert torch.equal(mirrored, make().view_logits(images.flip(3))[0].flip(3))


def test_views_do_not_depend_on_the_batch_and_see_their_scale() -> None:
    predictor = make((0.75, 1.25), True, noise_channels=3)
    images = pictures(rows=3)
    together = predictor(images)
    for row in range(3):
        torch.testing.assert_close(predictor(images[row : row + 1])[0], together[row], atol=1e-5, rtol=1e-5)
    assert predictor.content_size(40, 80, 0.75) == (24, 48)
    assert predictor.content_size(60, 60, 0.75) == (34, 34)  # the area of 24 x 48
    assert predictor.prepared_size(60, 60, 0.75) == (40, 40)
    assert [tuple(view.shape[2:]) for view in make((0.5, 1.0)).view_logits(pictures(32, 64))] == [(8, 16), (16, 32)]


def test_bands_do_not_change_the_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    views = [torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1)) for size in ((8, 9), (16, 20))]
    whole = decide(views, (50, 60), confidence=True)
    monkeypatch.setattr("iccld.evaluation.decision.BAND_VALUES", 2 * 3 * 60 * 7)
    banded = decide(views, (50, 60), confidence=True)
    assert torch.equal(whole[0], banded[0])
    torch.testing.assert_close(whole[1], banded[1], atol=1e-6, rtol=0)


def test_certainty_of_a_hopeless_class_stays_finite() -> None:
    sure = torch.tensor([0.0, 1000.0, -1000.0]).view(1, 3, 1, 1)
    mean = mean_log_probability([sure, sure], lambda logits: logits)
    assert torch.isfinite(mean).all()
    assert mean.softmax(1).flatten().tolist() == pytest.approx([0, 1, 0], abs=1e-30)


@pytest.mark.parametrize("scales", [(), (0.0,), (1.0, 1.0), (-1.0,), (float("nan"),), (9.0,)])
def test_impossible_scales_are_refused(scales: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError, match=r"scales is .*; use one or more different numbers"):
        check_scales(scales)
    with pytest.raises(ConfigError, match="scales is"):
        make(scales)(pictures())
    assert views_of((0.5, 1.0), True) == [(0.5, False), (0.5, True), (1.0, False), (1.0, True)]


def test_a_view_smaller_than_the_network_takes_is_refused_and_noise_goes_with_scale_1() -> None:
    with pytest.raises(ConfigError, match=r"at scale 0\.1 working size"):
        make((0.1, 1.0))(pictures())
    with pytest.raises(TypeError, match="noise was given for one size"):
        make((0.5, 1.0), noise_channels=3)(pictures(), torch.zeros(2, 3, 4, 8))


def test_a_teacher_in_one_plain_view_is_the_network_itself_and_in_several_their_mean() -> None:
    network = Convolution()
    images = torch.randn(2, 3, 32, 48, generator=torch.Generator().manual_seed(2))
    assert torch.equal(teacher_logits(network, images, (1.0,), False, 8), network(images))
    several = teacher_logits(network, images, (0.5, 1.0), True, 8)
    assert several.shape == network(images).shape
    expected = torch.zeros(2, 3, 16, 24)
    for scale in (0.5, 1.0):
        size = (round(32 * scale), round(48 * scale))
        shown = images if scale == 1 else functional.interpolate(images, size=size, mode="bilinear", antialias=True)
        for logits in (network(shown), network(shown.flip(3)).flip(3)):
            expected += functional.interpolate(logits, size=(16, 24), mode="bilinear").softmax(1) / 4
    torch.testing.assert_close(several.softmax(1), expected, atol=1e-6, rtol=1e-5)
    odd = teacher_logits(network, images, (0.7, 1.0), False, 8)  # 22 x 34 is padded to 24 x 40, and cut off again
    assert odd.shape == network(images).shape
    level = torch.full((1, 3, 32, 48), 0.3)  # of an even picture, padding is no edge: what is cut off tells nothing that is kept
    torch.testing.assert_close(
        *(teacher_logits(torch.nn.Identity(), level, scales, False, 8).softmax(1) for scales in ((0.7, 1.0), (1.0,)))
    )
