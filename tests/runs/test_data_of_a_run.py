"""The data a run sees: is there anything to learn, are they those of the earlier start, is the scaling kept, and what ends where
(faults 52, 53, 54, 57, 58)."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from iccld.cli import main
from iccld.errors import DataError
from iccld.methods.cbst import Cbst
from iccld.runs import load_with_standing
from iccld.runs.data import read_ranges

SPACE = "name: two\nclasses: [{name: road}, {name: sky}]\n"
IDS = "classes: [{name: road, ids: [1]}, {name: sky, ids: [2]}]\nignore_ids: [0]\n"


def write_domain(root: Path, num: int, ids: tuple[int, ...] = (1, 2), deep: bool = False, labelled: bool = True) -> Path:
    """`num` pictures with masks of random `ids`; deep: 16 bits in a narrow range."""
    rng = np.random.default_rng(num)
    for folder in ("images", "masks") if labelled else ("images",):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for i in range(num):
        values = rng.integers(21_000, 23_000, (64, 96)).astype(np.uint16) if deep else rng.integers(0, 256, (64, 96, 3), dtype=np.uint8)
        Image.fromarray(values).save(root / "images" / f"{i}.png")
        if labelled:
            Image.fromarray(rng.choice(np.array(ids, dtype=np.uint8), (64, 96))).save(root / "masks" / f"{i}.png")
    if labelled:
        (root / "dataset.yaml").write_text(IDS)
    return root


class Bench:
    """One configuration in a folder of its own."""

    def __init__(self, root: Path, workshop: Any) -> None:
        self.root = root
        self.source, self.target = write_domain(root / "source", 6), write_domain(root / "target", 4, labelled=False)
        (root / "two.yaml").write_text(SPACE)
        self.settings = {
            **workshop.settings,
            "label_space": str(root / "two.yaml"),
            "method": "dacs",
            "source": {"path": str(self.source)},
            "target": {"path": str(self.target)},
            "val": {},
            "stages": {"source": {"iterations": 2}, "step1": {"iterations": 0}, "step2": {"iterations": 0}, "adapt": {"iterations": 2}},
            "runtime": {**workshop.settings["runtime"], "out": str(root / "runs"), "checkpoint_every": 1},
        }
        self.run = root / "runs" / "own"

    def adapt(self, *arguments: str, **changes: Any) -> int:
        (self.root / "own.yaml").write_text(yaml.safe_dump({**self.settings, **changes}))
        return main(["adapt", "--config", str(self.root / "own.yaml"), "--no_estimate", *arguments])

    def interrupt(self) -> None:
        """As if the process had ended in the second stage: its last checkpoint and scores are gone."""
        stage = self.run / "checkpoints" / "adapt"
        shutil.rmtree(max(stage.iterdir()))
        summary = json.loads((self.run / "summary.json").read_text())
        del summary["stages"]["adapt"]
        (self.run / "summary.json").write_text(json.dumps(summary))


@pytest.fixture
def bench(tmp_path: Path, workshop: Any) -> Bench:
    return Bench(tmp_path, workshop)


def error_line(capsys: pytest.CaptureFixture[str]) -> str:
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, lines
    return lines[0]


def test_fault_52_an_interrupted_run_notices_fewer_pictures_and_swapped_ids(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.adapt() == 0
    bench.interrupt()
    assert bench.adapt("--resume", "auto") == 0
    bench.interrupt()
    for i in (3, 4, 5):
        (bench.source / "images" / f"{i}.png").unlink()
        (bench.source / "masks" / f"{i}.png").unlink()
    (bench.source / "dataset.yaml").write_text(IDS.replace("[1]", "[9]").replace("[2]", "[1]").replace("[9]", "[2]"))
    capsys.readouterr()
    assert bench.adapt("--resume", "auto") == 4
    line = error_line(capsys)
    assert "its data have changed since it was interrupted" in line
    assert "source had 6 pictures, now 3" in line
    assert "class 'road' was id 1, now 2" in line


def test_fault_52_a_finished_run_says_that_new_pictures_were_not_used(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.adapt() == 0
    other = write_domain(bench.root / "other", 5, labelled=False)
    capsys.readouterr()
    assert bench.adapt("--resume", "auto", "--target.path", str(other)) == 4
    line = error_line(capsys)
    assert "is finished and was trained with other data (target had 4 pictures, now 5); these were not used" in line
    assert f"--name NEW --source_checkpoint {bench.run}" in line
    assert bench.adapt("--name", "new", "--source_checkpoint", str(bench.run), "--target.path", str(other)) == 0


def test_fault_52_checkpoints_that_did_not_note_their_data_still_load(bench: Bench) -> None:
    from iccld.training import checkpoint

    checkpoint.compare(Path("x"), {"seed": 0}, {"seed": 0, "data": {"source": {"pictures": 3}}})


@pytest.mark.parametrize(
    ("ids", "says"),
    [
        ((0,), "the 6 source masks label no pixel with a class of 'two'"),
        ((0, 1), "label nothing but 'road', so every answer would be right"),
    ],
)
def test_fault_54_nothing_labelled_or_one_class_is_refused(
    bench: Bench, ids: tuple[int, ...], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_domain(bench.source, 6, ids)
    assert bench.adapt() == 3
    assert says in error_line(capsys)


def test_fault_54_a_class_without_a_source_pixel_is_named(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    (bench.root / "two.yaml").write_text("name: three\nclasses: [{name: road}, {name: sky}, {name: car}]\n")
    (bench.source / "dataset.yaml").write_text("classes: [{name: road, ids: [1]}, {name: sky, ids: [2]}, {name: car, ids: [3]}]\n")
    assert bench.adapt() == 0
    assert "warning: class 'car' occurs in no source picture" in capsys.readouterr().err


def test_fault_54_a_validation_split_without_a_label_is_refused_before_training(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    val = write_domain(bench.root / "val", 2, (0,))
    assert bench.adapt(val={"path": str(val)}) == 3
    assert "the 2 validation masks label no pixel" in error_line(capsys)
    assert not (bench.run / "checkpoints").exists()


def test_fault_53_the_scaling_is_kept_by_the_run_and_used_by_prediction(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    deep = write_domain(bench.root / "deep", 4, deep=True, labelled=False)
    assert bench.adapt("--target.path", str(deep)) == 0
    assert "warning: target pictures have 16 bits, but use 3.0%" in capsys.readouterr().err
    assert bench.adapt("--target.path", str(deep), "--target.scaling", "percentiles", "--name", "spread") == 0
    ranges = read_ranges(bench.root / "runs" / "spread")
    assert ranges is not None
    assert ranges["source"] == (0, 65535)
    assert 21_000 <= ranges["target"][0] < 21_050
    assert 22_950 < ranges["target"][1] <= 23_000
    _, standing = load_with_standing(bench.root / "runs" / "spread")
    assert standing.wide == ranges["target"]
    # One picture alone, twice as bright, is read with the stored range and not with its own.
    Image.fromarray(np.full((64, 96), 22_000, dtype=np.uint16)).save(bench.root / "one.png")
    words = [str(bench.root / "runs" / "spread"), str(bench.root / "one.png"), "--out", str(bench.root / "out"), "--write", "all"]
    assert main(["predict", *words]) == 0
    overlay = np.asarray(Image.open(bench.root / "out" / "overlay" / "one.jpg")).astype(int)
    color = np.asarray(Image.open(bench.root / "out" / "color" / "one.png")).astype(int)
    assert abs(float((2 * overlay - color).mean()) - 255 * (22_000 - ranges["target"][0]) / (ranges["target"][1] - ranges["target"][0])) < 3


def test_an_unfinished_run_says_so_in_words_and_in_json(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.adapt() == 0
    bench.interrupt()
    scores = bench.root / "scores.json"
    labelled = write_domain(bench.root / "labelled", 2)
    capsys.readouterr()
    assert main(["evaluate", str(bench.run), "--data", str(labelled), "--json", str(scores)]) == 0
    assert f"{bench.run} is not finished: these are the weights of stage adapt after iteration 1 of 2" in capsys.readouterr().err
    told = json.loads(scores.read_text())
    assert (told["stage"], told["iteration"], told["iterations"], told["weights"], told["finished"]) == ("adapt", 1, 2, "model", False)
    assert main(["predict", str(bench.run), str(bench.target), "--out", str(bench.root / "out")]) == 0
    assert "is not finished" in capsys.readouterr().err
    origin = json.loads((bench.root / "out" / "predictions.json").read_text())["origin"]
    assert (origin["stage"], origin["iteration"], origin["finished"]) == ("adapt", 1, False)


def test_named_classes_are_scored_of_the_whole_prediction(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.adapt() == 0
    labelled = write_domain(bench.root / "labelled", 2)
    whole, part = bench.root / "whole.json", bench.root / "part.json"
    score = ["evaluate", str(bench.run), "--data", str(labelled)]
    assert main([*score, "--json", str(whole)]) == 0
    assert main([*score, "--classes", "Road", "--json", str(part)]) == 0
    every, one = json.loads(whole.read_text()), json.loads(part.read_text())
    assert one["iou"] == {"road": every["iou"]["road"]}
    assert one["miou"] == every["iou"]["road"]
    assert one["pixel_accuracy"] == every["pixel_accuracy"]
    assert main([*score, "--classes", str(labelled / "dataset.yaml"), "--classes", "road"]) == 0
    capsys.readouterr()
    assert main([*score, "--classes", "rode"]) == 2
    assert "no class 'rode' in two (did you mean road?); it has road, sky" in error_line(capsys)
    only = bench.root / "only.yaml"
    only.write_text("classes: [{name: road}]")
    assert main([*score, "--label_space", str(only)]) == 2
    assert "'road' is the only class" in error_line(capsys)


# --- stops ----------------------------------------------------------------------------------------------------------------


def test_fault_58_a_refused_start_leaves_nothing_and_the_corrected_command_starts(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.adapt("--source.holdout", "6") == 2
    assert "source.holdout is 6 of 6 pictures" in error_line(capsys)
    assert not (bench.root / "runs").exists()
    write_domain(bench.source, 6, (0,))
    assert bench.adapt() == 3
    assert not (bench.root / "runs").exists()
    write_domain(bench.source, 6)
    assert bench.adapt() == 0


def test_fault_58_a_folder_without_a_configuration_is_free_and_keeps_what_it_holds(bench: Bench) -> None:
    bench.run.mkdir(parents=True)
    (bench.run / ".lock").touch()
    (bench.run / "notes.txt").write_text("mine")
    write_domain(bench.source, 6, (0,))
    assert bench.adapt() == 3
    assert [path.name for path in bench.run.iterdir()] == ["notes.txt"]
    write_domain(bench.source, 6)
    assert bench.adapt() == 0
    assert bench.adapt() == 2  # now there is a run


def test_a_small_source_is_told_before_the_estimate(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    (bench.root / "own.yaml").write_text(yaml.safe_dump({**bench.settings, "source": {"path": str(bench.source), "holdout": 48}}))
    assert main(["adapt", "--config", str(bench.root / "own.yaml")]) == 2
    told = capsys.readouterr().err
    assert "source.holdout is 48 of 6 pictures; leave some to train on, e.g. 1" in told
    assert "estimate:" not in told


def test_fault_57_sizes_are_compared_before_the_first_step(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("L", (50, 64), 1).save(bench.source / "masks" / "3.png")
    assert bench.adapt() == 3
    line = error_line(capsys)
    assert "images/3.png: is 96x64, but" in line
    assert "masks/3.png is 50x64 (1 of 6 source pairs)" in line
    assert not bench.run.exists()
    assert bench.adapt("--runtime.data_errors", "skip") == 0
    assert "warning: 1 of 6 source pictures are left out" in capsys.readouterr().err


def break_target(bench: Bench) -> None:
    """Its header is whole, and so is nothing else: seen when it is read."""
    path = bench.target / "images" / "2.png"
    path.write_bytes(path.read_bytes()[:2000])


def test_fault_57_a_data_error_in_the_middle_saves_first_and_resumes(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    whole = (bench.target / "images" / "2.png").read_bytes()
    break_target(bench)
    runtime = {**bench.settings["runtime"], "checkpoint_every": 100}
    stages = {**bench.settings["stages"], "source": {"iterations": 6}}
    assert bench.adapt(stages=stages, runtime=runtime) == 3
    line = error_line(capsys)
    assert "images/2.png" in line
    assert "is saved after iteration" in line
    assert "--resume auto --runtime.data_errors skip" in line
    assert len(list((bench.run / "checkpoints" / "source").iterdir())) == 1
    (bench.target / "images" / "2.png").write_bytes(whole)
    assert bench.adapt("--resume", "auto", stages=stages, runtime=runtime) == 0


@pytest.mark.parametrize("workers", [0, 2])
def test_fault_57_skipping_goes_on_counts_and_tells_at_the_end(bench: Bench, workers: int, capsys: pytest.CaptureFixture[str]) -> None:
    break_target(bench)
    runtime = {**bench.settings["runtime"], "data_errors": "skip", "workers": workers}
    assert bench.adapt(stages={**bench.settings["stages"], "source": {"iterations": 6}}, runtime=runtime) == 0
    assert "warning: 1 target pictures could not be read and were left out, such as 2" in capsys.readouterr().err
    assert json.loads((bench.run / "summary.json").read_text())["skipped_pictures"] == {"target": ["2"]}


def test_several_sources_targets_and_validation_sets(bench: Bench) -> None:
    other, target = write_domain(bench.root / "other", 3), write_domain(bench.root / "target2", 2, labelled=False)
    val, val2 = write_domain(bench.root / "val", 2), write_domain(bench.root / "val2", 3)
    changes = {
        "source": {"path": f"{bench.source},{other}", "weights": [1.0, 2.0], "holdout": 3},
        "target": {"path": f"{bench.target},{target}"},
        "val": {"path": f"{val},{val2}"},
    }
    assert bench.adapt(**changes) == 0
    domains = json.loads((bench.run / "summary.json").read_text())["stages"]["adapt"]["domains"]
    assert {name: each["num_images"] for name, each in domains.items()} == {str(val): 2, str(val2): 3}
    assert f"mIoU in {val2}" in (bench.run / "report.html").read_text()
    assert bench.adapt("--resume", "auto", **changes) == 0


def test_classes_that_a_label_space_leaves_out_of_the_score_are_named(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    three = "classes: [{name: road, ids: [1]}, {name: sky, ids: [2]}, {name: car, ids: [3]}]\n"
    (bench.root / "two.yaml").write_text("name: three\nclasses: [{name: road}, {name: sky}, {name: car}]\n")
    write_domain(bench.source, 6, (1, 2, 3))
    (bench.source / "dataset.yaml").write_text(three)
    assert bench.adapt() == 0
    labelled = write_domain(bench.root / "labelled", 2, (1, 2, 3))
    (labelled / "dataset.yaml").write_text(three)
    some, scores = bench.root / "some.yaml", bench.root / "scores.json"
    some.write_text("classes: [{name: road}, {name: sky}]\n")
    score = ["evaluate", str(bench.run), "--data", str(labelled), "--json", str(scores)]
    capsys.readouterr()
    assert main([*score, "--label_space", str(some)]) == 0
    assert "warning: car of the run are in no class of some, so their pixels are not scored" in capsys.readouterr().err
    assert json.loads(scores.read_text())["protocol"]["ignored_classes"] == ["car"]
    some.write_text("classes: [{name: road}, {name: other, absorbs: rest}]\n")
    assert main([*score, "--label_space", str(some)]) == 0
    assert "not scored" not in capsys.readouterr().err
    assert json.loads(scores.read_text())["protocol"]["ignored_classes"] == []


def test_fault_57_a_data_error_at_the_start_of_a_round_saves_first_too(
    bench: Bench, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """CBST labels the target anew in the middle of its stage, outside the stream of batches."""
    rounds = []

    def broken(self: Any, targets: Any) -> None:
        rounds.append(1)
        if len(rounds) > 1:
            raise DataError("phone/2.png: truncated or corrupt")

    monkeypatch.setattr(Cbst, "start_round", broken)
    monkeypatch.setattr(Cbst, "starts_round", lambda self, iteration: iteration == 3)
    monkeypatch.setattr(Cbst, "step", lambda self, batch, iteration, draw: {})
    assert bench.adapt(method="cbst", stages={**bench.settings["stages"], "adapt": {"iterations": 6}}) == 3
    assert "(stage adapt is saved after iteration 3)" in error_line(capsys)
    assert max(path.name for path in (bench.run / "checkpoints" / "adapt").iterdir()) == "00000003"
