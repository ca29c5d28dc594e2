"""Pictures of a stage from a predictor of known answers, and the sheet made of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from iccld.batch import Sample
from iccld.errors import CheckpointError
from iccld.labels import CAMVID11
from iccld.report.pictures import contact_sheet, save_pictures

SIZE = (24, 40)


class Squares:
    """Grey images whose value is the class; the last row is ignored."""

    def __init__(self, has_labels: bool = True, prefix: str = "square") -> None:
        self.has_labels, self.prefix = has_labels, prefix

    def __getitem__(self, index: int) -> Sample:
        label = np.full(SIZE, index % 11, dtype=np.uint8)
        image = np.repeat(label[..., None] * 20, 3, axis=2)
        label[-1] = 255
        return Sample(image, label if self.has_labels else None, None, f"{self.prefix}_{index}", index)


def exact(images: torch.Tensor) -> torch.Tensor:
    """Logits of the class written in the image, at a probability of about one half."""
    classes = (images[:, 0].long() + 10) // 20
    return torch.nn.functional.one_hot(classes, 11).permute(0, 3, 1, 2).float() * float(np.log(10))


def make_run(path: Path) -> Path:
    path.mkdir()
    (path / "config.yaml").write_text("method: iccld\n")
    return path


def test_pictures_hold_prediction_truth_and_confidence(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    folder = save_pictures(run, "step1", exact, Squares(), CAMVID11, [3, 7])
    for i, index in enumerate((3, 7)):
        with Image.open(folder / f"{i}_step1.png") as opened:
            assert opened.mode == "P"
            assert (np.asarray(opened) == index).all()
            assert opened.getpalette()[3 * index : 3 * index + 3] == list(CAMVID11.palette[index])
        with Image.open(folder / f"{i}_truth.png") as opened:
            truth = np.asarray(opened)
            assert (truth[:-1] == index).all()
            assert (truth[-1] == 255).all()
        with Image.open(folder / f"{i}_step1_confidence.png") as opened:
            assert opened.mode == "L"
            assert abs(int(np.asarray(opened).max()) - 127.5) <= 1
    index_file = json.loads((folder / "index.json").read_text())
    assert index_file["names"] == ["square_3", "square_7"]
    assert index_file["stages"] == ["step1"]
    assert index_file["label_space"]["names"] == list(CAMVID11.names)


def test_index_merges_stages_and_drops_other_images(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    for stage in ("source", "step1", "source"):
        folder = save_pictures(run, stage, exact, Squares(), CAMVID11, [0, 1])
    assert json.loads((folder / "index.json").read_text())["stages"] == ["source", "step1"]
    save_pictures(run, "step2", exact, Squares(prefix="other"), CAMVID11, [0])
    assert json.loads((folder / "index.json").read_text())["stages"] == ["step2"]
    assert not (folder / "0_source.png").exists()
    assert not (folder / "0_step1_confidence.png").exists()


def test_at_most_six_pictures_and_no_truth_without_labels(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    folder = save_pictures(run, "step1", exact, Squares(has_labels=False), CAMVID11, range(9))
    assert len(list(folder.glob("*_image.jpg"))) == 6
    assert not list(folder.glob("*_truth.png"))


def test_sheet_has_a_row_for_each_kind(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    for stage in ("source", "step1"):
        save_pictures(run, stage, exact, Squares(), CAMVID11, [2, 5, 8])
    with Image.open(contact_sheet(run, width=120)) as sheet:
        height = round(120 * SIZE[0] / SIZE[1])
        assert sheet.width >= 3 * 120
        assert sheet.height > 5 * height
        pixels = np.asarray(sheet.convert("RGB")).reshape(-1, 3)
    colour = CAMVID11.palette[8]
    assert (pixels == colour).all(axis=1).sum() >= 2 * 0.9 * 120 * height


def test_sheet_of_a_run_without_pictures_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="has no pictures"):
        contact_sheet(make_run(tmp_path / "run"))
