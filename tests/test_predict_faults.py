"""Prediction among hostile files, into folders that hold something, and killed half way."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from argparse import Namespace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from iccld import predict, progress
from iccld.cli import main
from iccld.cli import predict as command
from iccld.errors import DataError
from iccld.labels import LabelClass, LabelSpace
from iccld.predict import Wanted, index
from iccld.predict.names import PICTURES, output_files
from iccld.predictor import Predictor
from iccld.runs import Standing

SPACE = LabelSpace("three", (LabelClass("red", (255, 0, 0)), LabelClass("green", (0, 255, 0)), LabelClass("blue", (0, 0, 255))))
predict_paths = partial(predict.predict_paths, wanted=Wanted(("all",)))
KILLS = 20 if os.environ.get("FAULTS") == "full" else 1


class Brightest(nn.Module):
    """The class is the strongest channel."""

    def forward(self, images: Tensor, noise: Tensor | None) -> Tensor:
        return images * 10


def make() -> Predictor:
    return Predictor(Brightest(), SPACE, working_size=None, size_multiple=4, mean=(0, 0, 0), std=(1, 1, 1))


def save(path: Path, color: tuple[int, int, int] = (200, 10, 10), size: tuple[int, int] = (12, 8)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path)
    return path


def written(out: Path) -> dict[str, bytes]:
    return {
        path.relative_to(out).as_posix(): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file() and path.suffix != ".json"
    }


def test_fault_35_what_is_no_file_is_reported_and_the_rest_done(tmp_path: Path) -> None:
    good = save(tmp_path / "in" / "good.png")
    os.mkfifo(tmp_path / "in" / "pipe.png")
    (tmp_path / "in" / "device.png").symlink_to("/dev/zero")
    (tmp_path / "in" / "self.png").symlink_to(tmp_path / "in" / "self.png")
    (tmp_path / "in" / "empty.png").touch()
    report = predict_paths(make(), [tmp_path / "in"], tmp_path / "out")
    assert report.done == [good]
    reasons = {path.name: reason for path, reason in report.failed}
    assert set(reasons) == {"pipe.png", "device.png", "self.png", "empty.png"}
    assert "pipe, socket or device" in reasons["pipe.png"]
    assert "pipe, socket or device" in reasons["device.png"]


def test_fault_35_folder_named_like_an_output_keeps_its_pictures(tmp_path: Path) -> None:
    """`a.png` writes color/a.png, where `a.png/b.png` of another folder wants a folder."""
    first, second = save(tmp_path / "one" / "a.png"), save(tmp_path / "two" / "a.png" / "b.png", (0, 200, 0))
    third = save(tmp_path / "two" / "a.png~" / "b.png", (0, 0, 200))
    report = predict_paths(make(), [tmp_path / "one", tmp_path / "two"], tmp_path / "out")
    assert sorted(report.done) == sorted([first, second, third])
    assert report.failed == []
    assert len(list((tmp_path / "out" / "train_ids").rglob("*.png"))) == 3


def test_fault_35_names_too_long_or_not_unicode(tmp_path: Path) -> None:
    long, odd = save(tmp_path / "in" / ("x" * 250 + ".png")), save(tmp_path / "in" / os.fsdecode(b"latin-\xe9.png"))
    report = predict_paths(make(), [tmp_path / "in", tmp_path / ("y" * 300)], tmp_path / "out")
    assert sorted(report.done) == sorted([long, odd])
    assert [reason for _, reason in report.failed] == ["no such file or folder"]
    assert set(json.loads((tmp_path / "out" / "predictions.json").read_text())["images"]) == {str(long), str(odd)}


def test_fault_35_files_of_another_origin_are_never_written_over(tmp_path: Path) -> None:
    picture = save(tmp_path / "in" / "a.png")
    precious = save(tmp_path / "out" / "color" / "a.png", (1, 2, 3))
    before = precious.read_bytes()
    with pytest.raises(DataError, match=r"color/a\.png: exists and was not predicted here"):
        predict_paths(make(), [picture], tmp_path / "out")
    assert written(tmp_path / "out") == {"color/a.png": before}
    save(tmp_path / "in" / "b.png")
    assert predict_paths(make(), [tmp_path / "in" / "b.png"], tmp_path / "out").failed == []
    assert precious.read_bytes() == before


def test_fault_35_an_input_is_never_its_own_output(tmp_path: Path) -> None:
    other, inside = save(tmp_path / "b.png"), save(tmp_path / "color" / "a.png", (1, 2, 3))
    before = inside.read_bytes()
    report = predict_paths(make(), [other, inside], tmp_path)
    assert report.done == [other]
    assert [path for path, _ in report.failed] == [inside]
    assert "lies among the predictions" in report.failed[0][1]
    assert inside.read_bytes() == before


@pytest.mark.parametrize("seed", range(4))
def test_fault_35_random_trees_map_one_to_one(tmp_path: Path, seed: int) -> None:
    """Few parts, so that they meet: equal stems, folders like files, names that differ in case or Unicode form."""
    rng = random.Random(seed)
    parts = ["a", "A", "b c", "caf\u00e9", "cafe\u0301", "a.png", "a.jpg", "in", "x.y"]
    pictures = set()
    for _ in range(25):
        folder = tmp_path / rng.choice(["one", "two"]) / "/".join(rng.choice(parts) for _ in range(rng.randrange(3)))
        path = folder / (rng.choice(parts) + rng.choice([".png", ".PNG", ".bmp", ".jpg"]))
        if path.is_dir() or any(parent.is_file() for parent in path.parents):
            continue
        pictures.add(save(path, size=(2, 2)))
    report = predict_paths(make(), [tmp_path / "one", tmp_path / "two"], tmp_path / "out", batch=8)
    assert report.failed == []
    assert sorted(report.done) == sorted(pictures)
    entries = json.loads((tmp_path / "out" / "predictions.json").read_text())["images"]
    assert set(entries) == {str(path) for path in pictures}
    for folder in PICTURES:
        files = [entry["outputs"][folder] for entry in entries.values()]
        assert len({file.casefold() for file in files}) == len(pictures)
        assert all((tmp_path / "out" / file).is_file() for file in files)


class Slow(Brightest):
    def forward(self, images: Tensor, noise: Tensor | None) -> Tensor:
        time.sleep(0.01)
        return super().forward(images, noise)


def in_child(network: nn.Module, source: Path, out: Path) -> int:
    """Predict in a forked process, whose id is returned."""
    child = os.fork()
    if child == 0:
        try:
            torch.set_num_threads(1)  # OpenMP's threads do not survive a fork
            predictor = make()
            predictor.network = network
            predict_paths(predictor, [source], out)
        finally:
            os._exit(0)
    return child


def test_fault_36_killed_at_any_moment_a_rerun_does_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGKILL at random moments; then every output is that of a straight run, byte for byte, and what was finished was not done again."""
    monkeypatch.setattr(index, "SAVE_SECONDS", 0.02)
    rng = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    for i in range(30):
        Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)).save(tmp_path / "in" / f"{i:02}.png")
    predict_paths(make(), [tmp_path / "in"], tmp_path / "straight")
    straight = written(tmp_path / "straight")
    skipped = 0
    for kill in range(KILLS):
        out = tmp_path / f"out{kill}"
        wanted = int(rng.integers(1 if KILLS > 1 else 10, 20))  # one kill alone should find something finished
        child = in_child(Slow(), tmp_path / "in", out)
        limit = time.monotonic() + 60
        while len(list(out.glob("color/*.png"))) < wanted and time.monotonic() < limit:
            time.sleep(0.002)
        os.kill(child, signal.SIGKILL)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        left = written(out)
        assert all(straight[name] == data for name, data in left.items() if not name.endswith(".partial")), "a half-written output"
        report = predict_paths(make(), [tmp_path / "in"], out)
        assert len(report.done) + len(report.skipped) == 30
        assert len(report.done) > 0
        skipped += len(report.skipped)
        assert written(out) == straight
    assert skipped > 0


def test_fault_36_outputs_exist_only_once_the_index_knows_the_folder(tmp_path: Path) -> None:
    """What a run leaves that is killed before its index's first regular writing is still known as its own."""
    picture = save(tmp_path / "a.png")

    class Killed(Brightest):
        def forward(self, images: Tensor, noise: Tensor | None) -> Tensor:
            for file in output_files("a").values():
                save(tmp_path / "out" / file)
            os._exit(9)

    child = in_child(Killed(), picture, tmp_path / "out")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert predict_paths(make(), [picture], tmp_path / "out").done == [picture]


def test_fault_25_command_tells_each_failure_sums_up_and_exits_3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    save(tmp_path / "in" / "good.png")
    (tmp_path / "in" / "bad.png").write_bytes(b"noise")
    run = tmp_path / "run"
    (run / "checkpoints" / "source" / "00000001").mkdir(parents=True)
    (run / "config.yaml").touch()
    (run / "checkpoints" / "source" / "00000001" / "manifest.json").touch()

    def ready(arguments: Namespace) -> tuple[Predictor, Standing]:
        return make(), Standing("source", 1, 1, "ema", True, (0, 65535))

    monkeypatch.setattr(command, "open_predictor", ready)
    monkeypatch.setattr(command, "weights_identity", lambda run, adapter: "weights")
    progress.set_quiet(False)
    arguments = ["predict", str(run), str(tmp_path / "in"), "--out", str(tmp_path / "out")]
    assert main(arguments) == 3
    told = capsys.readouterr().err
    errors = [line for line in told.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert f"{tmp_path}/in/bad.png: not a picture" in errors[0]
    assert "1 predicted, 0 done before, 1 failed" in told
    (tmp_path / "in" / "bad.png").unlink()
    assert main(arguments) == 0
    assert "0 predicted, 1 done before, 0 failed" in capsys.readouterr().err
