"""Every problem is collected; class counts equal brute force; the cache follows the files and survives damage."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from iccld import progress
from iccld.data import open_dataset
from iccld.data.check import cache_folder, check_dataset, class_statistics
from iccld.data.dataset import FileDataset
from iccld.errors import DataError
from iccld.labels import LabelClass, LabelSpace

THREE = LabelSpace("three", tuple(LabelClass(name, (i, i, i)) for i, name in enumerate(("road", "sky", "car"))))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("ICCLD_CACHE", str(tmp_path / "cache"))
    progress.set_quiet(True)
    yield tmp_path / "cache"
    progress.set_quiet(False)


def write_folder(root: Path, num: int = 4, size: tuple[int, int] = (16, 24)) -> list[np.ndarray]:
    rng = np.random.default_rng(3)
    labels = [rng.choice(np.array([0, 1, 255], dtype=np.uint8), size) for _ in range(num)]
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True, exist_ok=True)
    for number, label in enumerate(labels):
        Image.fromarray(rng.integers(0, 255, (*size, 3), dtype=np.uint8)).save(root / "images" / f"{number}.png")
        Image.fromarray(label).save(root / "masks" / f"{number}.png")
    return labels


def opened(root: Path) -> FileDataset:
    return open_dataset(root, label_space=THREE, strict=False)  # faults are what is tested


def test_sound_dataset_is_counted(tmp_path: Path) -> None:
    root = tmp_path / "data"
    labels = write_folder(root)
    report = check_dataset(opened(root), workers=2)
    assert report.ok
    assert (report.num_images, report.num_labelled, report.sizes) == (4, 4, Counter({(16, 24): 4}))
    assert report.counts.tolist() == [[int((label == c).sum()) for c in range(3)] for label in labels]
    assert report.num_ignored_pixels == sum(int((label == 255).sum()) for label in labels)
    assert sum(report.class_shares.values()) == pytest.approx(1)
    summary = json.loads(json.dumps(report.as_dict()))
    assert summary["sizes"] == {"24x16": 4}
    assert summary["absent_classes"] == ["car"]
    assert summary["classes"]["road"]["images"] == 4
    assert summary["ok"] is True


def test_fault_25_every_problem_is_collected(tmp_path: Path) -> None:
    root = tmp_path / "data"
    write_folder(root, num=8)
    images, masks = root / "images", root / "masks"
    (images / "0.png").write_bytes((images / "0.png").read_bytes()[:300])
    (images / "1.png").write_bytes(b"noise" * 50)
    (masks / "2.png").unlink()
    Image.new("L", (24, 16), 9).save(masks / "3.png")
    Image.new("L", (20, 16), 0).save(masks / "4.png")
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.new("L", (24, 16), 0).save(masks / "5.png", exif=exif)
    Image.new("RGB", (30, 30)).save(images / "6.png")
    Image.new("L", (30, 30), 0).save(masks / "6.png")
    Image.new("L", (24, 16), 0).save(masks / "orphan.png")
    report = check_dataset(opened(root), workers=2)
    expected = [
        ("images/2.png", "no mask"),
        ("masks/orphan.png", "no picture"),
        ("images/0.png", "truncated"),
        ("images/1.png", "not a picture"),
        ("masks/3.png", "unknown label value 9"),
        ("images/4.png", "is 24x16, but"),
        ("masks/5.png", "EXIF"),
        ("images/6.png", "odd size 30x30"),
    ]
    assert not report.ok
    assert len(report.problems) == len(expected)
    for (file, words), problem in zip(expected, report.problems, strict=True):
        assert file in problem
        assert words in problem
        assert "\n" not in problem


@pytest.mark.parametrize(
    ("sizes", "num_odd"),
    [
        ([(1052, 1914), (1046, 1914), (1052, 1914)], 0),
        ([(64, 96), (64, 96), (50, 70)], 1),
        ([(30, 40), (40, 30), (64, 96)], 0),
        ([(1, 1)], 1),
        ([(20, 200)], 1),
    ],
)
def test_odd_sizes(tmp_path: Path, sizes: list[tuple[int, int]], num_odd: int) -> None:
    for number, (height, width) in enumerate(sizes):
        Image.new("RGB", (width, height)).save(tmp_path / f"{number}.png")
    assert len(check_dataset(opened(tmp_path)).problems) == num_odd


def test_progress_counts_every_picture(tmp_path: Path) -> None:
    write_folder(tmp_path / "data")
    seen: list[int] = []

    class Counting:
        def advance(self, steps: int = 1, note: str = "") -> None:
            seen.append(steps)

    @contextmanager
    def counting(title: str, total: int) -> Iterator[Counting]:
        assert total == 4
        yield Counting()

    check_dataset(opened(tmp_path / "data"), progress=counting)
    assert sum(seen) == 4


def test_class_statistics_are_cached_outside_the_data(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "data"
    labels = write_folder(root)
    before = sorted(root.rglob("*"))
    counts = class_statistics(opened(root))
    assert counts.dtype == np.int64
    assert counts.tolist() == [[int((label == c).sum()) for c in range(3)] for label in labels]
    assert sorted(root.rglob("*")) == before
    assert cache_folder() == cache
    assert len(list(cache.rglob("*.npy"))) == 1

    def unread(self: FileDataset, index: int) -> np.ndarray:
        raise AssertionError("a mask was read again")

    dataset = opened(root)
    monkeypatch.setattr(FileDataset, "read_label", unread)
    np.testing.assert_array_equal(class_statistics(dataset), counts)


def test_check_fills_the_cache_of_class_statistics(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path / "data")
    dataset = opened(tmp_path / "data")
    report = check_dataset(dataset)
    monkeypatch.setattr(FileDataset, "read_label", lambda self, index: pytest.fail("a mask was read again"))
    np.testing.assert_array_equal(class_statistics(dataset), report.counts)


@pytest.mark.parametrize("damage", [b"", b"noise", None])
def test_damaged_cache_is_rebuilt(tmp_path: Path, cache: Path, damage: bytes | None) -> None:
    write_folder(tmp_path / "data")
    counts = class_statistics(opened(tmp_path / "data"))
    file = next(cache.rglob("*.npy"))
    whole = file.read_bytes()
    file.write_bytes(whole[:-5] if damage is None else damage)
    np.testing.assert_array_equal(class_statistics(opened(tmp_path / "data")), counts)
    assert file.read_bytes() == whole


def test_cache_follows_the_files_and_the_label_space(tmp_path: Path) -> None:
    root = tmp_path / "data"
    write_folder(root)
    first = class_statistics(opened(root))
    Image.new("L", (24, 16), 2).save(root / "masks" / "0.png")
    second = class_statistics(opened(root))
    assert second[0].tolist() == [0, 0, 16 * 24]
    assert first[1:].tolist() == second[1:].tolist()
    swapped = LabelSpace("three", tuple(reversed(THREE.classes)))
    (root / "dataset.yaml").write_text("classes: [{name: road, ids: [0]}, {name: sky, ids: [1]}, {name: car, ids: [2]}]\nignore_ids: [255]")
    third = class_statistics(open_dataset(root, label_space=swapped))
    assert third.tolist() == second[:, ::-1].tolist()


def test_unwritable_cache_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path / "data")
    (tmp_path / "file").touch()
    monkeypatch.setenv("ICCLD_CACHE", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="class counts were not cached"):
        assert class_statistics(opened(tmp_path / "data")).shape == (4, 3)


def test_class_statistics_need_labels_and_known_ids(tmp_path: Path) -> None:
    root = tmp_path / "data"
    write_folder(root)
    with pytest.raises(DataError, match="class statistics need labels"):
        class_statistics(open_dataset(root, label_space=THREE, labels=False))
    Image.new("L", (24, 16), 77).save(root / "masks" / "2.png")
    with pytest.raises(DataError, match=r"2\.png: unknown label value 77"):
        class_statistics(opened(root))
