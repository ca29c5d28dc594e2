"""A finished run judges itself without labels, and so does the command."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from iccld.cli import main

from ..workshop import Workshop


def test_summary_and_page_tell_estimates(finished: Path) -> None:
    told = json.loads((finished / "summary.json").read_text())["trust"]
    assert list(told["stages"]) == ["source", "step1", "step2"]
    assert {"source", "step1", "model", "flip", "smaller"} == set(told["agreement"]["target"])
    for stage in told["stages"].values():
        for figure in (stage["pixel_accuracy"], stage["miou"]):
            assert 0 <= figure["low"] <= figure["value"] <= figure["high"] <= 100
    page = (finished / "report.html").read_text()
    assert "How good is it, without labels?" in page
    assert f"{told['stages']['step2']['miou']['value']:.1f} (" in page
    assert "Did adaptation help?" in page


def test_estimate_command_agrees_with_itself_and_reads_no_mask(
    workshop: Workshop, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = tmp_path / "first.json"
    assert main(["estimate", str(finished), str(workshop.data.val), "--split", "val", "--json", str(first)]) == 0
    told = json.loads(first.read_text())
    assert told["pictures"] == 2
    assert "step2" in capsys.readouterr().out
    bare = tmp_path / "bare"
    bare.mkdir()
    for number, picture in enumerate(sorted((workshop.data.val / "leftImg8bit").rglob("*.png"))):
        shutil.copy(picture, bare / f"{number}.png")
    second = tmp_path / "second.json"
    assert main(["estimate", str(finished), str(bare), "--json", str(second)]) == 0
    assert json.loads(second.read_text())["stages"] == told["stages"]


def test_estimate_without_held_out_source_is_refused(
    finished: Path, workshop: Workshop, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["source"]["holdout"] = 0
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    assert main(["estimate", str(run), str(workshop.data.val)]) == 3
    assert "source.holdout is 0" in capsys.readouterr().err
    assert main(["estimate", str(finished), str(tmp_path / "nowhere")]) == 3
    assert "is no folder" in capsys.readouterr().err


def test_checkpoints_are_compared_and_one_can_be_taken(
    finished: Path, workshop: Workshop, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures, told = str(workshop.data.val), tmp_path / "told.json"
    assert main(["estimate", str(finished), pictures, "--split", "val", "--checkpoints", "--json", str(told)]) == 0
    found = json.loads(told.read_text())
    assert found["stage"] == "step2"
    assert [each["iteration"] for each in found["checkpoints"]] == [3]
    assert found["best"] == 3
    assert "--iteration 3" in capsys.readouterr().out
    out = tmp_path / "out"
    assert main(["predict", str(finished), pictures, "--out", str(out), "--iteration", "2"]) == 4
    assert "has no checkpoint of iteration 2; it has 3" in capsys.readouterr().err
    assert not out.exists()
