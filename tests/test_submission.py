"""Files for the benchmark's server: names, size, ids and number, checked before anything is predicted."""

from __future__ import annotations

import fnmatch
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from iccld.cli import main
from iccld.errors import ConfigError, DataError
from iccld.labels import CAMVID11, CITYSCAPES16, CITYSCAPES19, LabelSpace
from iccld.predict import predict_submission
from iccld.predict.names import Job
from iccld.predict.submission import SubmissionWriter
from iccld.predictor import Predictor

FRAMES = ("berlin_000000_000019", "bad-honnef_000001_000019")


class Stripes(nn.Module):
    """All classes side by side, at half the working size."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.calls = 0

    def __deepcopy__(self, memo: dict[int, object]) -> Stripes:
        return self  # one count for all threads

    def forward(self, images: Tensor, noise: Tensor | None) -> Tensor:
        self.calls += 1
        height, width = images.shape[2] // 2, images.shape[3] // 2
        classes = (torch.arange(width) * self.num_classes // width).expand(height, width)
        return nn.functional.one_hot(classes, self.num_classes).permute(2, 0, 1)[None].float()


def make(space: LabelSpace = CITYSCAPES19) -> Predictor:
    return Predictor(Stripes(space.num_classes), space, working_size=(64, 128), size_multiple=64, mean=(0, 0, 0), std=(1, 1, 1))


def save(folder: Path, frames: tuple[str, ...] = FRAMES, size: tuple[int, int] = (2048, 1024)) -> Path:
    for frame in frames:
        path = folder / frame.split("_")[0] / f"{frame}_leftImg8bit.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size).save(path, compress_level=0)
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("cityscapes") / "leftImg8bit" / "test")


def written(out: Path) -> list[str]:
    return sorted(path.relative_to(out).as_posix() for path in out.rglob("*.png"))


def test_submission_is_one_file_of_label_ids_a_picture(tmp_path: Path, pictures: Path) -> None:
    predictor = make()
    report = predict_submission(predictor, [pictures], tmp_path, num=2)
    assert len(report.done) == 2
    assert report.failed == []
    names = written(tmp_path)
    for frame in FRAMES:  # as the evaluator looks for them
        assert len(fnmatch.filter(names, f"{frame}*.png")) == 1
    assert len(names) == 2
    with Image.open(tmp_path / f"{FRAMES[0]}_pred_labelIds.png") as image:
        assert (image.mode, image.size, image.format) == ("L", (2048, 1024), "PNG")
        ids = np.unique(np.array(image))
    assert set(ids.tolist()) <= {7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33}
    assert {7, 33} <= set(ids.tolist())
    assert predict_submission(predictor, [pictures], tmp_path, num=2).skipped == report.done
    assert predictor.network.calls == 2


def test_submission_of_a_16_way_head_has_no_dropped_class(tmp_path: Path) -> None:
    writer, image = SubmissionWriter(tmp_path, CITYSCAPES16), np.zeros((1, 1, 3), np.uint8)
    labels = np.repeat(np.arange(16, dtype=np.uint8), 2048 * 64).reshape(1024, 2048)
    entry = writer.write(Job(tmp_path / "a.png", "a"), image, labels, labels)
    with Image.open(tmp_path / entry["outputs"]["label_ids"]) as written_ids:
        assert np.array(written_ids)[::64, 0].tolist() == [7, 8, 11, 12, 13, 17, 19, 20, 21, 23, 24, 25, 26, 28, 32, 33]
    with pytest.raises(ValueError, match="is 1024x2048 once upright"):
        writer.write(Job(tmp_path / "b.png", "b"), image, labels.T, labels.T)


def refused(paths: list[Path], out: Path, says: str, num: int = 2, predictor: Predictor | None = None) -> None:
    """One line, nothing predicted."""
    predictor = predictor or make()
    with pytest.raises((DataError, ConfigError), match=says) as caught:
        predict_submission(predictor, paths, out, num=num)
    assert "\n" not in str(caught.value)
    assert predictor.network.calls == 0


def test_submission_of_a_wrong_number_is_refused(tmp_path: Path, pictures: Path) -> None:
    refused([pictures], tmp_path / "out", "found 2 pictures for a submission of 1525; name leftImg8bit/test, or set --expect", num=1525)
    refused([pictures, tmp_path / "gone"], tmp_path / "out", "gone: no such file or folder")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("size", [(1024, 512), (1024, 2048), (2048, 1023)])
def test_submission_of_a_wrong_size_is_refused(tmp_path: Path, size: tuple[int, int]) -> None:
    save(tmp_path / "in", ("aachen_000000_000019",), size)
    refused([tmp_path / "in"], tmp_path / "out", rf"aachen_.*\.png: is {size[0]}x{size[1]}; a submission's pictures are 2048x1024", num=1)


def test_submission_of_other_names_doubled_frames_or_noise_is_refused(tmp_path: Path, pictures: Path) -> None:
    for name in ("00001", "berlin_1_2_leftImg8bit", "berlin_000000_000019_gtFine_color"):
        Image.new("RGB", (2048, 1024)).save(tmp_path / f"{name}.png")
        refused([tmp_path / f"{name}.png"], tmp_path / "out", "are named <city>_<sequence>_<frame>_leftImg8bit", num=1)
    again = save(tmp_path / "again", FRAMES[:1])
    refused([pictures, again], tmp_path / "out", r"frame berlin_000000_000019 is also .*cityscapes", num=3)
    noise = tmp_path / "noise_000000_000019.png"
    noise.write_bytes(b"no picture")
    refused([noise], tmp_path / "out", r"noise_000000_000019\.png: cannot be read as a picture", num=1)


def test_submission_among_other_files_is_refused(tmp_path: Path, pictures: Path) -> None:
    for stray in ("color/berlin_000000_000019.png", "bonn_000000_000019_pred_labelIds.png", "berlin_000000_000019.png"):
        path = tmp_path / stray
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
        refused([pictures], tmp_path, rf"{path.name}: belongs to no picture of this submission \(1 such files\); choose an empty --out")
        path.unlink()


def test_submission_needs_classes_of_cityscapes(tmp_path: Path, pictures: Path) -> None:
    refused([pictures], tmp_path, "label space camvid11 has 'pavement', which is no class of Cityscapes", predictor=make(CAMVID11))


def test_expect_goes_with_a_submission(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", str(tmp_path), str(tmp_path), "--out", str(tmp_path / "out"), "--expect", "3"]) == 2
    assert "add --format submission" in capsys.readouterr().err
