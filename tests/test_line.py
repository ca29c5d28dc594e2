"""Pictures on their way beside each other: order, memory, and what is left when it ends early."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from iccld.errors import DataError
from iccld.labels import LabelClass, LabelSpace
from iccld.predict import Wanted, predict_paths
from iccld.predict.admission import Admission, replicas
from iccld.predictor import Predictor

SPACE = LabelSpace("three", (LabelClass("red", (255, 0, 0)), LabelClass("green", (0, 255, 0)), LabelClass("blue", (0, 0, 255))))


class Brightest(nn.Module):
    """The class is the strongest channel."""

    def forward(self, images: Tensor, noise: Tensor | None) -> Tensor:
        return images * 10


def make(network: nn.Module | None = None) -> Predictor:
    return Predictor(network or Brightest(), SPACE, working_size=None, size_multiple=1, mean=(0, 0, 0), std=(1, 1, 1))


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    paths = [tmp_path / "in" / f"{number:02}.png" for number in range(12)]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (8, 12, 3), dtype=np.uint8)).save(path)
    return paths


@pytest.fixture
def four_threads() -> object:
    threads = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(threads)


def partial_files(out: Path) -> list[Path]:
    return list(out.rglob("*.partial"))


@pytest.mark.usefixtures("four_threads")
def test_pictures_beside_each_other_come_out_in_order(tmp_path: Path, pictures: list[Path]) -> None:
    class Uneven(Brightest):
        """Takes longer for some, and works beside itself."""

        together = 0
        most_together = 0
        lock = threading.Lock()

        def forward(self, images: Tensor, noise: Tensor | None) -> Tensor:
            with Uneven.lock:
                Uneven.together += 1
                Uneven.most_together = max(Uneven.most_together, Uneven.together)
            time.sleep(0.05 * float(images.mean()))
            with Uneven.lock:
                Uneven.together -= 1
            return super().forward(images, noise)

    (tmp_path / "in" / "05.png").write_bytes(b"no picture")
    report = predict_paths(make(Uneven()), [tmp_path / "in"], tmp_path / "out")
    assert report.done == [path for path in pictures if path.name != "05.png"]
    assert [path.name for path, _ in report.failed] == ["05.png"]
    assert Uneven.most_together > 1
    assert torch.get_num_threads() == 4
    for path in report.done:
        with Image.open(path) as image, Image.open(tmp_path / "out" / "train_ids" / path.name) as mask:
            assert np.array_equal(np.asarray(mask), np.asarray(image).argmax(2))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["predictions.json", "train_ids"]
    assert "confidence" not in json.loads((tmp_path / "out/predictions.json").read_text())["images"][str(pictures[0])]


@pytest.mark.usefixtures("four_threads")
def test_what_ends_it_leaves_whole_files_and_a_true_index(tmp_path: Path, pictures: list[Path]) -> None:
    """Ctrl-C while several pictures are on their way."""

    class Interrupted(Brightest):
        calls = 0

        def forward(self, images: Tensor, noise: Tensor | None) -> Tensor:
            Interrupted.calls += 1
            if Interrupted.calls == 6:
                raise KeyboardInterrupt
            time.sleep(0.01)
            return super().forward(images, noise)

    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        predict_paths(make(Interrupted()), [tmp_path / "in"], out)
    known = json.loads((out / "predictions.json").read_text())["images"]
    assert 0 < len(known) < 12
    assert {f"train_ids/{Path(source).stem}.png" for source in known} == {
        path.relative_to(out).as_posix() for path in (out / "train_ids").iterdir()
    }
    assert partial_files(out) == []
    report = predict_paths(make(), [tmp_path / "in"], out)
    assert sorted(report.done + report.skipped) == pictures
    assert len(report.skipped) == len(known)


@pytest.mark.usefixtures("four_threads")
def test_a_network_that_nobody_waits_for_gives_up_between_its_parts(tmp_path: Path, pictures: list[Path]) -> None:
    class Part(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            time.sleep(0.02)
            return images

    class Long(nn.Module):
        calls = 0
        steps = 0

        def __init__(self) -> None:
            super().__init__()
            self.part = Part()

        def forward(self, images: Tensor, noise: Tensor | None) -> Tensor:
            Long.calls += 1
            if Long.calls == 3:
                time.sleep(0.1)
                raise RuntimeError("broken")
            for _ in range(1 if Long.calls < 2 else 5000):
                Long.steps += 1
                images = self.part(images)
            return images * 10

    start = time.monotonic()
    with pytest.raises(RuntimeError, match="broken"):
        predict_paths(make(Long()), [tmp_path / "in"], tmp_path / "out")
    assert Long.steps < 5000
    assert time.monotonic() - start < 60


def test_out_of_memory_beside_others_is_tried_again_alone(tmp_path: Path, pictures: list[Path], four_threads: object) -> None:
    class Crowded(Brightest):
        inside = 0
        refused = 0

        def forward(self, images: Tensor, noise: Tensor | None) -> Tensor:
            Crowded.inside += 1
            try:
                time.sleep(0.02)
                if Crowded.inside > 1:
                    Crowded.refused += 1
                    raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes.")
                return super().forward(images, noise)
            finally:
                Crowded.inside -= 1

    report = predict_paths(make(Crowded()), [tmp_path / "in"], tmp_path / "out")
    assert report.done == pictures
    assert Crowded.refused > 0


def test_admission_lets_a_larger_picture_in_alone_and_gives_it_all_threads(four_threads: object) -> None:
    admission = Admission(3, 4)
    admission.known_pixels = 100
    inside, events = threading.Barrier(3, timeout=20), []

    def small() -> None:
        with admission.place(100) as is_alone:
            inside.wait()
            events.append((is_alone, torch.get_num_threads()))

    small_ones = [threading.Thread(target=small) for _ in range(2)]
    for thread in small_ones:
        thread.start()

    def large() -> None:
        with admission.place(1000) as is_alone:
            events.append((is_alone, torch.get_num_threads()))

    large_one = threading.Thread(target=large)
    large_one.start()
    inside.wait()
    for thread in [*small_ones, large_one]:
        thread.join(20)
    assert events[:2] == [(False, 1)] * 2
    assert events[2] == (True, 4)
    assert admission.known_pixels == 1000
    assert admission.running == 0
    admission.only_alone()
    with admission.place(1) as is_alone:
        assert is_alone


def test_admission_counts_what_the_memory_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    from iccld.predict import admission as module

    monkeypatch.setattr(module, "free_memory_gib", lambda: 10.0)
    monkeypatch.setattr(module, "memory_gib", lambda field: {"VmRSS": 1.0, "VmHWM": 4.0}[field])
    admission = Admission(64, torch.get_num_threads())
    with admission.place(100):
        pass
    assert admission.most == 1 + int(0.7 * 10 / 3)  # beside the memory that the first one leaves behind


def test_replicas_share_weights_and_nothing_else() -> None:
    network = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))
    first, second = replicas(make(network), 2)
    assert first.network is network
    assert second.network is not network
    assert [tensor.data_ptr() for tensor in first.state_dict().values()] == [tensor.data_ptr() for tensor in second.state_dict().values()]
    network.lock = threading.Lock()  # cannot be copied
    assert len(replicas(make(network), 2)) == 1


def test_a_full_disk_ends_it_in_one_line(tmp_path: Path, pictures: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    from iccld.predict import writer

    def full(*arguments: object, **more: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writer, "write_atomically", full)
    with pytest.raises(DataError, match=r"No space left on device with [0-9]+ bytes free"):
        predict_paths(make(), [tmp_path / "in"], tmp_path / "out", wanted=Wanted(("train_ids",)))
