"""Order is a pure function of (seed, iteration); workers and ranks change nothing."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import pickle
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from iccld.batch import DomainBatch
from iccld.data import FileDataset, open_dataset
from iccld.data.pairs import CeilingPairs, Order, PairDataset, Sizes, pair_loader
from iccld.data.rare_class import class_probabilities, rare_class_sampler
from iccld.errors import ConfigError, DataError
from iccld.labels import LabelClass, LabelSpace

TWO = LabelSpace("two", (LabelClass("road", (0, 0, 0)), LabelClass("sky", (1, 1, 1))))
SIZE = (8, 12)


def write_folder(root: Path, num: int, masks: bool) -> Path:
    rng = np.random.default_rng(num)
    for number in range(num):
        for name in ("images", "masks", "depth") if masks else ("images",):
            (root / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (16, 24, 3), dtype=np.uint8)).save(root / "images" / f"{number}.png")
        if masks:
            Image.fromarray(rng.choice(np.array([0, 1, 255], dtype=np.uint8), (16, 24))).save(root / "masks" / f"{number}.png")
            np.save(root / "depth" / f"{number}.npy", np.full((16, 24), number, dtype=np.float32))
    return root


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> FileDataset:
    return open_dataset(write_folder(tmp_path_factory.mktemp("source"), 5, masks=True), label_space=TWO)


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> FileDataset:
    return open_dataset(write_folder(tmp_path_factory.mktemp("target"), 3, masks=False), label_space=TWO)


def arranged(settings: dict[str, Any]) -> dict[str, Any]:
    """Flat settings -> the arguments of a PairDataset."""
    order = Order(**{name: settings.pop(name) for name in Order._fields if name in settings})
    keep_aspect = settings.pop("keep_aspect", True)
    return {"order": order, "sizes": Sizes(settings.pop("source_size"), settings.pop("target_size"), keep_aspect), **settings}


def pairs(source: FileDataset, target: FileDataset, **options: object) -> PairDataset:
    settings = {"batch_size": 2, "seed": 1, "source_size": SIZE, "target_size": (16, 24), **options}
    return PairDataset(source, target, **arranged(settings))


def assert_equal(first: DomainBatch, second: DomainBatch) -> None:
    for name, a, b in zip(first._fields, first, second, strict=True):
        assert (a is None) == (b is None), name
        if a is not None:
            torch.testing.assert_close(a, b, rtol=0, atol=0, msg=name)


def test_batch_shapes_types_and_pixels(source: FileDataset, target: FileDataset) -> None:
    batch = pairs(source, target)[0]
    assert (batch.source_image.shape, batch.source_image.dtype) == ((2, 3, *SIZE), torch.uint8)
    assert (batch.source_label.shape, batch.source_label.dtype) == ((2, *SIZE), torch.uint8)
    assert batch.target_image.shape == (2, 3, 16, 24)
    assert batch.source_depth is None
    assert batch.target_valid is None
    assert batch.source_image.is_contiguous()
    whole = target.read_image(int(batch.target_index[0]))  # already at the working size: unchanged
    np.testing.assert_array_equal(batch.target_image[0].permute(1, 2, 0).numpy(), whole)


def test_resize_is_a_box_average_and_labels_stay_labels(source: FileDataset, target: FileDataset) -> None:
    batch = pairs(source, target)[0]
    index = int(batch.source_index[0])
    image, label = source.read_image(index), source.read_label(index)
    average = image.reshape(8, 2, 12, 2, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(batch.source_image[0].permute(1, 2, 0).numpy(), average, atol=0.51)
    blocks = label.reshape(8, 2, 12, 2).transpose(0, 2, 1, 3).reshape(8, 12, 4)
    assert (blocks == batch.source_label[0].numpy()[..., None]).any(axis=-1).all()


def test_every_picture_comes_once_an_epoch(source: FileDataset, target: FileDataset) -> None:
    dataset = pairs(source, target)
    order = [dataset.indices(i) for i in range(15)]
    source_order = [index for rows, _ in order for index in rows]
    target_order = [index for _, rows in order for index in rows]
    for epoch in range(6):
        assert sorted(source_order[5 * epoch : 5 * epoch + 5]) == [0, 1, 2, 3, 4]
    for epoch in range(10):
        assert sorted(target_order[3 * epoch : 3 * epoch + 3]) == [0, 1, 2]
    assert len({tuple(source_order[5 * epoch : 5 * epoch + 5]) for epoch in range(6)}) > 1


def test_batch_is_a_pure_function_of_seed_and_iteration(source: FileDataset, target: FileDataset) -> None:
    first, again = pairs(source, target), pairs(source, target)
    for iteration in (7, 0, 7, 3):
        assert_equal(first[iteration], again[iteration])
    assert [pairs(source, target, seed=2).indices(i) for i in range(6)] != [first.indices(i) for i in range(6)]


def test_two_ranks_see_what_one_sees_at_twice_the_batch(source: FileDataset, target: FileDataset) -> None:
    whole = pairs(source, target, batch_size=4)
    ranks = [pairs(source, target, batch_size=2, rank=rank, world_size=2) for rank in range(2)]
    for iteration in range(4):
        for rank, part in enumerate(ranks):
            batch = part[iteration]
            reference = whole[iteration]
            assert_equal(batch, DomainBatch(*(None if maps is None else maps[rank::2] for maps in reference)))


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="this system has no memory without a name")
def test_a_rank_does_not_read_again_what_another_has_read(
    source: FileDataset, target: FileDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = [pairs(source, target, rank=rank, world_size=2)[3] for rank in (0, 1)]
    first, second = (pairs(source, target, rank=rank, world_size=2) for rank in (0, 1))
    assert second.share_cache(first.cache_places())
    for iteration in range(20):  # in that many epochs rank 0 comes by every picture
        first[iteration]
    monkeypatch.setattr(FileDataset, "read_image", lambda self, index: pytest.fail("read again"))
    assert_equal(first[3], alone[0])
    assert_equal(second[3], alone[1])


@pytest.mark.parametrize("cache_bytes", [0, 1000, 1 << 20])
def test_workers_and_cache_change_nothing(source: FileDataset, target: FileDataset, cache_bytes: int) -> None:
    reference = pairs(source, target, cache_bytes=0)
    for workers in (0, 2):
        dataset = pairs(source, target, cache_bytes=cache_bytes)
        state = torch.random.get_rng_state()
        batches = list(pair_loader(dataset, 2, 9, workers))
        assert torch.equal(torch.random.get_rng_state(), state)  # the global generator belongs to training
        assert len(batches) == 7
        for iteration, batch in enumerate(batches, start=2):
            assert_equal(batch, reference[iteration])


def test_cache_spares_the_second_reading(source: FileDataset, target: FileDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = pairs(source, target)
    first = [dataset[i] for i in range(3)]  # 6 rows: all five sources and three targets
    monkeypatch.setattr(FileDataset, "read_image", lambda self, index: pytest.fail("read again"))
    for iteration, batch in enumerate(first):
        assert_equal(dataset[iteration], batch)


def test_workers_fill_the_cache_of_the_main_process(source: FileDataset, target: FileDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = pairs(source, target)
    batches = list(pair_loader(dataset, 0, 3, 1))
    monkeypatch.setattr(FileDataset, "read_image", lambda self, index: pytest.fail("read again"))
    for iteration, batch in enumerate(batches):
        assert_equal(dataset[iteration], batch)


def test_dataset_survives_pickling(source: FileDataset, target: FileDataset) -> None:
    dataset = pairs(source, target)
    dataset[0]
    assert_equal(pickle.loads(pickle.dumps(dataset))[1], dataset[1])


def test_rare_class_sampling_replaces_the_source_order_alone(source: FileDataset, target: FileDataset) -> None:
    counts = np.array([[100, 0], [100, 0], [100, 0], [100, 0], [100, 50]], dtype=np.int64)
    sampler = rare_class_sampler(counts, temperature=0.5)
    dataset = pairs(source, target, rare_class=sampler)
    drawn = [index for i in range(5000) for index in dataset.indices(i)[0]]  # 10,000 draws
    rare = class_probabilities(counts, 0.5)[1]
    share = np.bincount(drawn, minlength=5) / len(drawn)
    np.testing.assert_allclose(share, [(1 - rare) / 5] * 4 + [(1 - rare) / 5 + rare], atol=0.02)
    plain = pairs(source, target)
    assert [dataset.indices(i)[1] for i in range(20)] == [plain.indices(i)[1] for i in range(20)]
    assert dataset.indices(9) == dataset.indices(9)


def test_a_batch_tells_the_class_each_source_picture_was_drawn_for(source: FileDataset, target: FileDataset) -> None:
    counts = np.array([[100, 0, 0], [0, 100, 0], [0, 0, 100], [0, 0, 100], [0, 0, 100]], dtype=np.int64)
    dataset = pairs(source, target, rare_class=rare_class_sampler(counts, temperature=0.5))
    for i in range(10):
        batch = dataset[i]
        assert batch.source_class is not None
        assert batch.source_class.tolist() == [min(index, 2) for index in batch.source_index.tolist()]
    assert pairs(source, target)[0].source_class is None


def test_depth_and_valid_maps(source: FileDataset, target: FileDataset) -> None:
    valid = np.ones((32, 48), dtype=bool)
    valid[24:] = False
    batch = pairs(source, source, with_depth=True, target_valid=valid)[0]
    assert batch.source_depth is not None
    assert batch.target_depth is not None
    assert batch.source_depth.dtype == torch.float32
    assert batch.source_depth[:, 0, 0].tolist() == batch.source_index.tolist()
    assert batch.target_valid is not None
    assert batch.target_valid.dtype == torch.bool
    assert batch.target_valid[1, :, 0].tolist() == [True] * 12 + [False] * 4
    with pytest.raises(DataError, match="the target needs a depth map"):
        pairs(source, target, with_depth=True)


def test_labels_of_the_target_come_with_ceiling_pairs_alone(source: FileDataset, target: FileDataset) -> None:
    settings = {"batch_size": 2, "seed": 1, "source_size": SIZE, "target_size": (16, 24)}
    plain, ceiling = PairDataset(source, source, **arranged({**settings})), CeilingPairs(source, source, **arranged({**settings}))
    assert plain[0].target_label is None  # though the files are there
    for cached in (False, True):
        batch = ceiling[0]
        assert batch.target_label is not None, cached
        expected = np.stack([source.read_label(int(index)) for index in batch.target_index])
        np.testing.assert_array_equal(batch.target_label.numpy(), expected)
        assert_equal(batch._replace(target_label=None), plain[0])
    with pytest.raises(DataError, match="the target needs labels: expected 3 masks, found 0"):
        CeilingPairs(source, target, **arranged({**settings}))


def test_source_without_labels_is_an_error(source: FileDataset, target: FileDataset) -> None:
    with pytest.raises(DataError, match=r"the source needs labels: expected 3 masks, found 0; expected them in .*masks"):
        pairs(target, source)


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"seed": -1}, {"rank": 2, "world_size": 2}, {"source_size": (0, 8)}])
def test_impossible_settings_are_refused(source: FileDataset, target: FileDataset, options: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        pairs(source, target, **options)


@pytest.mark.parametrize("workers", [0, 1])
def test_fault_25_damaged_file_is_one_line_from_any_worker(tmp_path: Path, target: FileDataset, workers: int) -> None:
    root = write_folder(tmp_path / "s", 2, masks=True)
    (root / "images" / "1.png").write_bytes(b"noise")
    loader = pair_loader(pairs(open_dataset(root, label_space=TWO), target), 0, 3, workers)
    with pytest.raises(DataError, match=r"images/1\.png: not a picture") as caught:
        list(loader)
    assert "\n" not in str(caught.value)


def test_fault_22_killed_worker_is_an_error(source: FileDataset, target: FileDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    parent = os.getpid()

    def die(self: PairDataset, iteration: int) -> DomainBatch:
        assert os.getpid() != parent
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    monkeypatch.setattr(PairDataset, "__getitem__", die)
    with pytest.raises(DataError, match="a data worker died or stalled"):
        list(pair_loader(pairs(source, target), 0, 2, 1))


def test_workers_outlive_a_group_sigterm_and_obey_their_parent(source: FileDataset, target: FileDataset) -> None:
    batches = iter(pair_loader(pairs(source, target), 0, 40, 1))
    next(batches)
    (worker,) = multiprocessing.active_children()
    assert worker.pid is not None
    subprocess.run(["sh", "-c", f"kill -TERM {worker.pid}; kill -USR1 {worker.pid}; kill -INT {worker.pid}"], check=True)
    assert len(list(itertools.islice(batches, 20))) == 20
    assert worker.is_alive()
    worker.terminate()  # as at the exit of a process that was left with an unfinished loader
    worker.join(5)
    assert not worker.is_alive()


def test_unfinished_loader_leaves_no_worker(source: FileDataset, target: FileDataset) -> None:
    batches = iter(pair_loader(pairs(source, target), 0, 40, 2))
    next(batches)
    start = time.monotonic()
    del batches
    assert multiprocessing.active_children() == []
    assert time.monotonic() - start < 4  # DataLoader waits 5 s for a worker that does not answer


def test_fault_26_size_mismatch_names_the_pair(tmp_path: Path, target: FileDataset) -> None:
    root = write_folder(tmp_path / "s", 1, masks=True)
    Image.new("RGB", (5, 5)).save(root / "images" / "0.png")
    with pytest.raises(DataError, match=r"images/0\.png: is 5x5, but .*masks/0\.png is 24x16"):
        pairs(open_dataset(root, label_space=TWO), target)[0]


def test_enlarging_is_smooth(source: FileDataset, target: FileDataset) -> None:
    batch = pairs(source, target, source_size=(32, 48))[0]
    image = source.read_image(int(batch.source_index[0]))
    expected = cv2.resize(image, (48, 32), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(batch.source_image[0].permute(1, 2, 0).numpy(), expected)
