"""One geometry for training and prediction: discs of pictures of any aspect stay discs of one size in both."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from iccld.batch import DomainBatch
from iccld.data import FileDataset, open_dataset
from iccld.data.pairs import Order, PairDataset, Sizes, pair_loader
from iccld.geometry import SHORTEST_SIDE, largest_area, working_shape
from iccld.labels import LabelClass, LabelSpace
from iccld.predictor import Predictor
from iccld.transforms import Draw, labelled_crop, random_crop

DISC = LabelSpace("disc", (LabelClass("ground", (0, 0, 0)), LabelClass("disc", (255, 255, 255))))
SIZES = [(300, 600), (600, 300), (1000, 200), (480, 360), (200, 1000), (360, 480), (301, 599)]
WORKING = (192, 384)


def disc(height: int, width: int) -> np.ndarray:
    """(H, W) uint8, 255 inside a disc of half the shorter side in the middle."""
    drawn = np.zeros((height, width), dtype=np.uint8)
    cv2.circle(drawn, (width // 2, height // 2), min(height, width) // 4, 255, -1)
    return drawn


@pytest.fixture(scope="module")
def discs(tmp_path_factory: pytest.TempPathFactory) -> FileDataset:
    """One folder of pictures of every aspect, in the order of SIZES; depth is 5 m on the disc and 9 m beside it."""
    root = tmp_path_factory.mktemp("discs")
    for name in ("images", "masks", "depth"):
        (root / name).mkdir()
    for number, size in enumerate(SIZES):
        drawn = disc(*size)
        cv2.imwrite(str(root / "images" / f"{number}.png"), np.repeat(drawn[..., None], 3, axis=2))
        cv2.imwrite(str(root / "masks" / f"{number}.png"), drawn // 255)
        np.save(root / "depth" / f"{number}.npy", np.where(drawn > 0, 5, 9).astype(np.float32))
    return open_dataset(root, label_space=DISC)


def arranged(settings: dict[str, Any]) -> dict[str, Any]:
    """Flat settings -> the arguments of a PairDataset."""
    order = Order(**{name: settings.pop(name) for name in Order._fields if name in settings})
    keep_aspect = settings.pop("keep_aspect", True)
    return {"order": order, "sizes": Sizes(settings.pop("source_size"), settings.pop("target_size"), keep_aspect), **settings}


def pairs(discs: FileDataset, **options: object) -> PairDataset:
    settings = {"batch_size": len(SIZES), "seed": 3, "source_size": WORKING, "target_size": WORKING, **options}
    return PairDataset(discs, discs, **arranged(settings))


def axes(weight: Tensor) -> tuple[float, float]:
    """Vertical and horizontal diameter of a filled disc, from its second moments: (H, W) in 0..1 -> pixels."""
    weight = weight.double() / weight.double().sum()
    found = []
    for along in (weight.sum(1), weight.sum(0)):
        place = torch.arange(len(along), dtype=torch.float64)
        found.append(4 * float((along * (place - (along * place).sum()) ** 2).sum().sqrt()))
    return found[0], found[1]


class Seen(nn.Module):
    """Keeps what it was shown, and answers with two of its channels."""

    def forward(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        self.images = images
        return images[:, :2]


@pytest.mark.parametrize("scale", [1.0, 0.7, 1.3])
def test_fault_59_a_disc_reaches_training_as_the_disc_that_prediction_sees(discs: FileDataset, scale: float) -> None:
    dataset = pairs(discs, with_depth=True)
    batch = dataset[0]
    assert batch.source_size is not None
    # A crop that takes any of them whole: what it has beyond the picture is not valid, and no border of the picture.
    options: dict[str, Any] = {"depth": batch.source_depth, "true_size": batch.source_size, "scale": (scale, scale)}
    first, second = (Draw(torch.Generator().manual_seed(0)) for _ in range(2))
    crop = labelled_crop(batch.source_image, first, (832, 832), label=batch.source_label, **options)
    valid = random_crop(batch.source_image, second, (832, 832), **options).valid
    assert crop.depth is not None
    predictor = Predictor(Seen(), DISC, working_size=WORKING, size_multiple=16, mean=(0, 0, 0), std=(1, 1, 1))
    for row, index in enumerate(batch.source_index.tolist()):
        picture = torch.from_numpy(disc(*SIZES[index])).expand(1, 3, -1, -1)
        predictor(picture)
        at_prediction = axes(predictor.network.images[0, 0])
        for seen in (crop.image[row, 0] * valid[row], (crop.label[row] == 1).float(), (crop.depth[row] == 5).float()):
            vertical, horizontal = axes(seen)
            assert vertical / horizontal == pytest.approx(1, abs=0.03)
            assert vertical / scale == pytest.approx(at_prediction[0], rel=0.03)
            assert horizontal / scale == pytest.approx(at_prediction[1], rel=0.03)
        assert at_prediction[0] / at_prediction[1] == pytest.approx(1, abs=0.03)
        assert torch.equal(crop.label[row] != 255, valid[row])
        assert torch.equal(crop.depth[row] > 0, valid[row])
        area = WORKING[0] * WORKING[1] * scale**2
        assert float(valid[row].sum()) == pytest.approx(area, rel=0.03)  # one area, whatever the aspect


def test_fault_59_stretching_is_an_explicit_setting(discs: FileDataset) -> None:
    batch = pairs(discs, keep_aspect=False)[0]
    assert batch.source_image.shape == (len(SIZES), 3, *WORKING)
    assert batch.source_size is None
    row = batch.source_index.tolist().index(1)  # 600 x 300, of the other aspect
    vertical, horizontal = axes(batch.source_image[row, 0] / 255)
    assert horizontal / vertical == pytest.approx(4, rel=0.03)


def test_predictions_come_at_the_pictures_own_size_and_place() -> None:
    """An echo of the picture answers with the disc where it is, at any aspect, padding cut off."""
    for height, width in SIZES:
        predictor = Predictor(Seen(), DISC, working_size=WORKING, size_multiple=16, mean=(0, 0, 0), std=(1, 1, 1))
        drawn = torch.from_numpy(disc(height, width))
        answer = predictor(drawn.expand(1, 3, -1, -1))[0, 0]
        assert answer.shape == (height, width)
        assert float((answer - drawn / 255).abs().mean()) < 0.02
        assert axes(answer) == pytest.approx(axes(drawn / 255), rel=0.01)


@pytest.mark.parametrize("size", [(192, 384), (192, 256), (8, 12), (512, 1024), (17, 1000)])
def test_the_working_size_itself_and_its_aspect_are_met_exactly(size: tuple[int, int]) -> None:
    for factor in (1, 2, 5):
        assert working_shape(factor * size[0], factor * size[1], size) == size


def test_area_and_aspect_of_any_picture() -> None:
    generator = np.random.default_rng(0)
    for _ in range(2000):
        height, width = (int(side) for side in np.exp(generator.uniform(0, np.log(5000), 2)) // 1 + 1)
        size = (int(generator.integers(1, 700)), int(generator.integers(1, 700)))
        new = working_shape(height, width, size)
        assert min(new) >= 1
        assert new[0] * new[1] <= largest_area(size)
        if min(new) > SHORTEST_SIDE:
            assert new[0] * new[1] == pytest.approx(size[0] * size[1], rel=0.05)
        if min(new) > 1:
            assert abs(new[0] - new[1] * height / width) <= 0.5 * (1 + height / width) + 1e-9


def test_rows_of_a_batch_are_their_pictures_and_nothing_beside(discs: FileDataset) -> None:
    """Each row holds its picture at the upper left; ranks, workers, the cache and a later start change no pixel of it."""
    valid = np.ones((100, 100), dtype=bool)
    valid[90:] = False
    options: dict[str, object] = {"with_depth": True, "target_valid": valid}
    whole = pairs(discs, batch_size=4, cache_bytes=0, **options)
    ranks = [pairs(discs, batch_size=2, rank=rank, world_size=2, **options) for rank in range(2)]
    for iteration in range(4):
        batch = whole[iteration]
        assert batch.source_size is not None
        sizes = [working_shape(*SIZES[index], WORKING) for index in batch.source_index.tolist()]
        assert batch.source_size.tolist() == [list(size) for size in sizes]
        assert batch.source_image.shape[2:] == tuple(max(sides) for sides in zip(*sizes, strict=True))
        for row, (height, width) in enumerate(sizes):
            beside = torch.ones(batch.source_image.shape[2:], dtype=torch.bool)
            beside[:height, :width] = False
            assert (batch.source_label[row][beside] == 255).all()
            assert not (batch.source_label[row][~beside] == 255).any()
        assert batch.target_valid is not None
        assert batch.target_size is not None
        for allowed, (height, width) in zip(batch.target_valid, batch.target_size.tolist(), strict=True):
            assert allowed.sum() == pytest.approx(0.9 * height * width, rel=0.02)
        for rank, dataset in enumerate(ranks):
            assert_same_pictures(dataset[iteration], batch, range(rank, 4, 2))
    for workers, cache_bytes in ((0, 1 << 24), (2, 1 << 24), (2, 200_000)):
        dataset = pairs(discs, batch_size=4, cache_bytes=cache_bytes, **options)
        for iteration, batch in enumerate(pair_loader(dataset, 2, 7, workers), start=2):
            assert_same_pictures(batch, whole[iteration], range(4))


def assert_same_pictures(batch: DomainBatch, reference: DomainBatch, rows: range) -> None:
    """Rows of a batch are these rows of another, padding apart."""
    for kind in ("source", "target"):
        for name in ("image", "label", "depth", "valid"):
            ours, theirs = (getattr(one, f"{kind}_{name}", None) for one in (batch, reference))
            assert (ours is None) == (theirs is None)
            if ours is None:
                continue
            for own, row in zip(ours, rows, strict=True):
                true = getattr(reference, f"{kind}_size")
                height, width = theirs.shape[-2:] if true is None else true[row].tolist()
                assert torch.equal(own[..., :height, :width], theirs[row][..., :height, :width]), (kind, name)


def test_the_cache_stays_within_its_bytes_and_spares_the_second_reading(discs: FileDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = pairs(discs)
    held = 0
    for cache in dataset._caches.values():
        held += cache.slots * cache.area * (3 + cache.has_label)
    assert held <= 1 << 30
    small = pairs(discs, cache_bytes=1_000_000)
    assert sum(cache.slots * cache.area * (3 + cache.has_label) for cache in small._caches.values()) <= 1_000_000
    first = dataset[0]
    monkeypatch.setattr(FileDataset, "read_image", lambda self, index: pytest.fail("read again"))
    assert torch.equal(dataset[0].source_image, first.source_image)
