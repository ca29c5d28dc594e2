"""The alignment of a finished stage: three domains, no picture twice, a denoiser that changes nothing leaves the distances."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from iccld.batch import DomainBatch
from iccld.labels import CITYSCAPES19
from iccld.measure.alignment import DOMAINS, alignment
from iccld.models import CompactEncoder, Denoiser, DiffusionSegmenter, InterCoderDecoder, LatentScale
from iccld.predictor import LatentNoise, Predictor


class Pairs:
    """Batches of two whose target is brighter; picture number n is always the same."""

    def __init__(self, num: int, gap: float) -> None:
        self.num, self.gap = num, gap

    def __getitem__(self, iteration: int) -> DomainBatch:
        index = torch.tensor([2 * iteration % self.num, (2 * iteration + 1) % self.num])
        images = [torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(int(n))) for n in (*index, *(index + self.num))]
        shift = torch.tensor([0.0, 0.0, self.gap, self.gap])[:, None, None, None]
        picture = ((torch.stack(images) * 0.3 + shift) * 255).to(torch.uint8)
        label = (torch.arange(32) // 16).expand(2, 32, 32)
        return DomainBatch(picture[:2], label, picture[2:], index, index)


def measured(num: int, gap: float, sampler: Any = lambda denoise, noise: denoise(noise, torch.full((len(noise),), 999))) -> Any:
    torch.manual_seed(0)
    encoder = CompactEncoder((8, 8, 16, 16, 16), 4)
    decoder = InterCoderDecoder(4, encoder.pyramid_channels, 19, width=16)
    network = DiffusionSegmenter(encoder, decoder, Denoiser(4, (8, 16), 1, 8, residual=True), LatentScale(4), sampler)
    options: dict[str, Any] = {"size_multiple": 16, "mean": (0, 0, 0), "std": (1, 1, 1), "noise": LatentNoise(4)}
    predictor = Predictor(network.eval(), CITYSCAPES19, working_size=(32, 32), **options)
    return SimpleNamespace(**dict(zip(("told", "projection"), alignment(predictor, Pairs(num, gap), (32, 32), 0), strict=True)))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def apart() -> Any:
    return measured(30, 0.6)


def test_domains_that_differ_are_told_apart(apart: Any) -> None:
    assert apart.told["pictures"] == 30  # no picture counts twice
    assert list(apart.told["latent"]["a_distance"]) == ["source_mixed", "source_target", "mixed_target"]
    same = measured(30, 0.0).told["latent"]
    assert apart.told["latent"]["a_distance"]["source_target"] > 0.5 + same["a_distance"]["source_target"]
    assert apart.told["latent"]["mmd"]["source_target"] > 0.05 + same["mmd"]["source_target"]


def test_an_identity_leaves_the_distances_as_they_are(apart: Any) -> None:
    assert apart.told["predicted"] == apart.told["latent"]  # an untrained residual denoiser returns its condition
    assert apart.projection["predicted"] == apart.projection["latent"]
    blind = measured(30, 0.6, sampler=lambda denoise, noise: noise)  # a denoiser that forgets its picture
    assert blind.told["latent"] == apart.told["latent"]
    assert set(blind.told["predicted"]["a_distance"].values()) == {0.0}
    assert set(blind.told["predicted"]["mmd"].values()) == {0.0}


def test_the_projection_has_a_point_a_picture(apart: Any) -> None:
    assert {name: len(points) for name, points in apart.projection["latent"].items()} == dict.fromkeys(DOMAINS, 30)
    assert 0 < sum(apart.projection["explained"]) <= 1.0001


def test_a_measurement_repeats(apart: Any) -> None:
    again = measured(30, 0.6)
    assert (again.told, again.projection) == (apart.told, apart.projection)


def test_too_few_pictures_are_counted_and_not_judged() -> None:
    few = measured(6, 0.6)
    assert few.told == {"pictures": 6}
    assert few.projection == {}
