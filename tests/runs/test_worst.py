"""Which pictures to label, their import, and how labelled ones come back into training."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch

from iccld.assembly.objects import open_data, pair_dataset
from iccld.cli import main
from iccld.config import load_config
from iccld.config.domains import ExtraConfig, SourceConfig
from iccld.config.schema import comparable
from iccld.errors import ConfigError, DataError

from ..workshop import Workshop


def test_worst_writes_the_list_and_both_imports(
    finished: Path, workshop: Workshop, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures, out = tmp_path / "pictures", tmp_path / "out"
    pictures.mkdir()
    for number, picture in enumerate(sorted((workshop.data.target / "leftImg8bit").rglob("*.png"))):
        shutil.copy(picture, pictures / f"{number}.png")
    shutil.copy(pictures / "0.png", pictures / "copy.png")
    (pictures / "broken.png").write_bytes(b"no picture")
    assert main(["worst", str(finished), str(pictures), "--num", "3", "--out", str(out)]) == 3
    assert "broken.png" in capsys.readouterr().err
    listed = json.loads((out / "worst.json").read_text())
    chosen = {Path(each["picture"]).name for each in listed}
    assert len(listed) == len(chosen) == 3
    assert chosen & {"0.png", "copy.png"} != {"0.png", "copy.png"}, "two copies of one picture teach no more than one"
    images = ElementTree.parse(out / "annotations.xml").getroot().findall("image")
    assert {image.get("name") for image in images} == chosen
    assert all(image.findall("mask") for image in images)
    tasks = json.loads((out / "tasks.json").read_text())
    assert {task["data"]["image"] for task in tasks} == chosen
    assert {path.name for path in (out / "train_ids").iterdir()} == chosen
    assert main(["worst", str(finished), str(tmp_path / "nowhere"), "--out", str(out)]) == 3


def test_extra_pictures_are_drawn_in_their_share(workshop: Workshop, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    source = {
        **workshop.settings["source"],
        "extra": {"path": str(workshop.data.val), "format": "cityscapes", "split": "val", "share": 0.5},
    }
    workshop.write(file, {"source": source, "sampling": {"rare_class": False}})
    config = load_config(file, [])
    data = open_data(config, tells=False)
    assert data.source_val is not None
    assert (len(data.source), len(data.source_val)) == (8 - 2 + 2, 2)
    extra = {index for index, path in enumerate(data.source.image_paths) if str(path).startswith(str(workshop.data.val))}
    assert extra == {6, 7}
    assert not any(str(path).startswith(str(workshop.data.val)) for path in data.source_val.image_paths)
    pairs = pair_dataset(config, data)
    drawn = [index for iteration in range(60) for index in pairs.indices(iteration)[0]]
    assert sum(index in extra for index in drawn) == len(drawn) // 2
    assert set(drawn) == set(range(8))
    batch = pairs[next(i for i in range(60) if set(pairs.indices(i)[0]) & extra)]
    row = next(row for row, index in enumerate(batch.source_index.tolist()) if index in extra)
    truth = data.source.read_label(int(batch.source_index[row]))
    assert set(torch.unique(batch.source_label[row]).tolist()) <= set(truth.ravel().tolist()) | {255}


def test_extra_pictures_with_rare_class_sampling_and_several_sources(workshop: Workshop, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    both = f"{workshop.data.source},{workshop.data.val}"
    extra = {"path": str(workshop.data.val), "format": "cityscapes", "split": "val", "share": 0.25}
    workshop.write(file, {"source": {"path": both, "format": "gta5,cityscapes", "split": "train,val", "holdout": 0, "extra": extra}})
    config = load_config(file, [])
    data = open_data(config, tells=False)
    pairs = pair_dataset(config, data)
    drawn = [index for iteration in range(400) for index in pairs.indices(iteration)[0]]
    assert len(data.source) == 8 + 2 + 2
    assert sum(index >= 10 for index in drawn) / len(drawn) == pytest.approx(0.25, abs=0.1)
    assert data.source.names[0].startswith("0/")
    assert data.source.names[-1].startswith("2/")


def test_extra_without_masks_is_refused(workshop: Workshop, tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    shutil.copy(next((workshop.data.val / "leftImg8bit").rglob("*.png")), pictures / "a.png")
    file = tmp_path / "config.yaml"
    workshop.write(file, {"source": {**workshop.settings["source"], "extra": {"path": str(pictures)}}})
    with pytest.raises(DataError, match=r"source\.extra needs a mask for each picture"):
        open_data(load_config(file, []), tells=False)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.5])
def test_extra_share_lies_between(share: float) -> None:
    with pytest.raises(ConfigError, match="share"):
        ExtraConfig(path="somewhere", share=share)


def test_earlier_runs_compare_equal_and_extra_differs(workshop: Workshop, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    workshop.write(file)
    config = load_config(file, [])
    assert "extra" not in comparable(config)["source"]
    workshop.write(file, {"source": {**workshop.settings["source"], "extra": {"path": "labelled"}}})
    assert comparable(load_config(file, []))["source"]["extra"]["path"] == "labelled"
    assert SourceConfig().extra.path is None
