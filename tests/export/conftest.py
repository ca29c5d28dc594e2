"""The workshop of tiny runs, and a small segmenter that has learned something."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
import torch

from iccld.city import render_scene
from iccld.labels import CITYSCAPES19
from iccld.losses import cross_entropy
from iccld.methods.common.parts import MEAN, STD, normalise
from iccld.models import CompactEncoder, InterCoderDecoder, Segmenter
from iccld.predictor import Predictor
from iccld.runs import Standing

from ..workshop import cache, finished, no_estimate, one_thread, workshop

__all__ = ["cache", "finished", "no_estimate", "one_thread", "workshop"]

SIZES = ((64, 96), (96, 64), (48, 128), (61, 83))
NUM = 50


class Drawn(NamedTuple):
    """Scenes of the city: pictures (H, W, 3) uint8 of several sizes and their labels."""

    images: list[np.ndarray]
    labels: list[np.ndarray]


@pytest.fixture(scope="session")
def drawn() -> Drawn:
    scenes = [render_scene("camera", seed, SIZES[seed % len(SIZES)]) for seed in range(NUM)]
    return Drawn([scene.image for scene in scenes], [scene.label for scene in scenes])


def learned(network: torch.nn.Module, drawn: Drawn, steps: int, size: tuple[int, int], most: int = 8) -> torch.nn.Module:
    """The network after some steps on up to `most` scenes of one size: it tells road, sky and houses apart, enough to compare masks."""
    torch.set_num_threads(1)
    chosen = [number for number, image in enumerate(drawn.images) if image.shape[:2] == size][:most]
    images = torch.stack([torch.from_numpy(drawn.images[number].copy()) for number in chosen]).permute(0, 3, 1, 2) / 255
    labels = torch.stack([torch.from_numpy(drawn.labels[number].copy()) for number in chosen]).long()
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    for step in range(steps):
        rows = [(step * 4 + row) % len(chosen) for row in range(4)]
        loss = cross_entropy(network(normalise(images[rows])), labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network.eval()


def predictor_of(network: torch.nn.Module, size: tuple[int, int], multiple: int) -> Predictor:
    return Predictor(network, CITYSCAPES19, working_size=size, size_multiple=multiple, mean=MEAN, std=STD).eval()


@pytest.fixture(scope="session")
def trained(drawn: Drawn) -> Predictor:
    """The compact network at a tiny size, trained for a few seconds."""
    torch.manual_seed(0)
    network = Segmenter(CompactEncoder((8, 16, 24, 32, 32), 16), InterCoderDecoder(16, (8, 16, 24), 19, 24))
    return predictor_of(learned(network, drawn, 80, (64, 96)), (64, 96), 16)


@pytest.fixture(scope="session")
def standing() -> Standing:
    return Standing("step1", 5, 5, "ema", True, (0, 65535))
