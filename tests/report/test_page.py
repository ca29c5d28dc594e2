"""The page of a run: figures equal to the summary's, everything inline, everything escaped, honest when there is little to say."""

from __future__ import annotations

import html
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from iccld.errors import CheckpointError
from iccld.report import write_report
from iccld.report.gallery import BUDGET, gallery
from iccld.report.run import read_run

NAMES = ["road", "sky", "car", "<b>evil</b> & co", "train"]
PALETTE = [[128, 64, 128], [70, 130, 180], [0, 0, 142], [220, 20, 60], [0, 80, 100]]
IOU = {"source": (61.3, 72.4, 21.7, 0.2, None), "step1": (80.1, 85.9, 44.4, 12.6, None), "step2": (80.0, 84.2, 47.3, 0.4, None)}


def mean(values: tuple[float | None, ...]) -> float:
    present = [value for value in values if value is not None]
    return sum(present) / len(present)


def make_config(run: Path, *, has_val: bool = True) -> None:
    run.mkdir(parents=True)
    config: dict[str, Any] = {
        "method": "iccld",
        "seed": 3,
        "source": {"generate": {"world": "sim", "num": 600, "size": [256, 512], "seed": 0}, "format": "gta5"},
        "target": {"generate": {"world": "sim", "num": 0}, "path": "/somewhere/camera <lens>/train", "format": "cityscapes"},
        "val": {"path": "/somewhere/camera/val", "format": "cityscapes"} if has_val else None,
    }
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    environment = {"iccld": "0.1.0", "torch": "2.13.0", "device": "cpu", "commit": "abc1234", "dirty": True}
    (run / "environment.json").write_text(json.dumps(environment))


def make_metrics(run: Path, stages: tuple[str, ...], *, is_labelled: bool = True) -> None:
    random = np.random.default_rng(0)
    lines: list[dict[str, Any]] = []
    for stage in stages:
        for iteration in range(20, 1001, 20):
            progress = iteration / 1000
            losses = {"source": 2 * float(np.exp(-3 * progress)) + 0.2 * float(random.random())}
            line: dict[str, Any] = {"stage": stage, "iteration": iteration, "time": 0.1 * iteration, "losses": losses}
            line["lr"] = 1e-3 * (1 - progress)
            if stage != "source":
                histogram = [0.5, 0.3, 0.15, 0.05, 0.0]
                line |= {"pseudo_label_share": 0.3 + 0.4 * progress, "pseudo_label_histogram": histogram}
                line |= {"entropy": 0.9 - 0.5 * progress, "agreement": 0.85 + 0.1 * progress}
            lines.append(line)
            if iteration % 200 == 0:
                source: dict[str, Any] = {"weights": "ema", "split": "source_val", "miou": 50 + 20 * progress}
                lines.append({"stage": stage, "iteration": iteration, "eval": source})
                for weights in ("ema", "model") if is_labelled else ():
                    iou = dict(zip(NAMES, IOU[stage], strict=True))
                    score = {"weights": weights, "split": "val", "miou": mean(IOU[stage]) - 3 * (1 - progress), "iou": iou}
                    lines.append({"stage": stage, "iteration": iteration, "eval": score})
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def make_summary(run: Path, stages: tuple[str, ...], *, is_labelled: bool = True, gap: float = 0.004) -> dict[str, Any]:
    parts: dict[str, Any] = {}
    for stage in stages:
        parts[stage] = {"iterations": 1000, "seconds": 100.0, "peak_memory_gib": 1.25, "weights": "ema", "miou": None}
        if is_labelled:
            miou = mean(IOU[stage])
            parts[stage] |= {"miou": miou, "iou": dict(zip(NAMES, IOU[stage], strict=True)), "miou_model": miou - 2.2}
            parts[stage]["best"] = {"miou": miou + (1.7 if stage == "step1" else 0.0), "iteration": 600}
        if stage == "step2":
            parts[stage] |= {"identity_gap": gap, "sampler_steps": 1, "miou_by_steps": {"1": 52.975, "50": 52.4} if is_labelled else None}
    summary: dict[str, Any] = {
        "method": "iccld", "recipe": "demo", "seed": 3, "commit": "abc1234", "label_space": "five", "stages": parts,
        "protocol": {"ground_truth_size": [256, 512], "window": "whole", "split": "val", "num_images": 40, "convention": "a"},
        "headline": {"stage": stages[-1], "weights": "ema", "miou": parts[stages[-1]]["miou"]},
    }  # fmt: skip
    (run / "summary.json").write_text(json.dumps(summary))
    return summary


def make_pictures(run: Path, stages: tuple[str, ...], *, num: int = 2, is_labelled: bool = True, size: tuple[int, int] = (96, 192)) -> None:
    folder = run / "pictures"
    folder.mkdir()
    random = np.random.default_rng(1)
    height, width = size
    palette = np.zeros((256, 3), dtype=np.uint8)
    palette[: len(PALETTE)] = PALETTE
    for i in range(num):
        truth = np.zeros(size, dtype=np.uint8)
        truth[: height // 2] = 1
        truth[height // 2 : height // 2 + 20, 20 * i + 10 : 20 * i + 60] = 2
        truth[-8:] = 255
        noise = random.integers(-20, 20, (height, width, 3))
        photo = (palette[np.where(truth == 255, 4, truth)].astype(int) + noise).clip(0, 255).astype(np.uint8)
        Image.fromarray(photo).save(folder / f"{i}_image.jpg")
        masks = {"truth": truth} if is_labelled else {}
        for j, stage in enumerate(stages):
            wrong = random.random(size) < 0.3 - 0.12 * j
            masks[stage] = np.where(wrong, random.integers(0, 5, size), np.where(truth == 255, 0, truth)).astype(np.uint8)
            Image.fromarray((255 * random.random(size)).astype(np.uint8)).save(folder / f"{i}_{stage}_confidence.png")
        for name, mask in masks.items():
            picture = Image.fromarray(mask)
            picture.putpalette(palette.tobytes())
            picture.save(folder / f"{i}_{name}.png")
    index = {"names": [f"frame_{i}" for i in range(num)], "stages": list(stages), "label_space": {"names": NAMES, "palette": PALETTE}}
    (folder / "index.json").write_text(json.dumps(index))


def labelled_run(run: Path) -> dict[str, Any]:
    stages = ("source", "step1", "step2")
    make_config(run)
    make_metrics(run, stages)
    make_pictures(run, stages)
    return make_summary(run, stages)


def unlabelled_run(run: Path) -> dict[str, Any]:
    stages = ("source", "step1", "step2")
    make_config(run, has_val=False)
    make_metrics(run, stages, is_labelled=False)
    make_pictures(run, stages, is_labelled=False)
    return make_summary(run, stages, is_labelled=False)


def text_of(page: str) -> str:
    """The words of a page, one space between them, without style, tags and data."""
    bare = re.sub(r"<style>.*?</style>|<[^>]*>", " ", page, flags=re.S)
    return re.sub(r"\s+", " ", html.unescape(bare))


class Balance(HTMLParser):
    """Collects tags that are opened and never closed, or closed in the wrong order."""

    VOID = frozenset({"meta", "img", "br", "line", "circle", "path"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.faults: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.faults.append(tag)


def test_page_shows_the_summary_figures_per_class_and_stage(tmp_path: Path) -> None:
    summary = labelled_run(tmp_path / "run")
    page = write_report(tmp_path / "run").read_text()
    rows = {}
    for row in re.findall(r"<tr.*?</tr>", page.split("Scores by class", 1)[1], flags=re.S):
        cells = text_of(row).split()
        rows.setdefault(cells[0] if cells[0] != "<b>evil</b>" else NAMES[3], cells)
    for i, name in enumerate(NAMES[:3]):
        before, middle, after = (IOU[stage][i] for stage in ("source", "step1", "step2"))
        assert before is not None
        assert middle is not None
        assert after is not None
        expected = [f"{before:.1f}", f"{middle:.1f}", f"{after:.1f}"]
        expected += [f"{d:+.1f}".replace("-", "−") for d in (middle - before, after - middle, after - before)]
        assert rows[name][1:] == [cell.replace("+0.0", "±0.0").replace("−0.0", "±0.0") for cell in expected]
    assert rows["train"][1:] == ["–"] * 6
    assert rows["mIoU"][1:4] == [f"{summary['stages'][stage]['miou']:.1f}" for stage in ("source", "step1", "step2")]
    assert re.search(rf"<b>{summary['headline']['miou']:.1f}</b> <span>mIoU", page)


def test_page_of_a_ceiling_says_that_the_targets_labels_taught_it(tmp_path: Path) -> None:
    labelled_run(tmp_path / "run")
    assert "images only, no labels used" in text_of(write_report(tmp_path / "run").read_text())
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    config["target"]["truth"] = True
    (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump(config))
    told = text_of(write_report(tmp_path / "run").read_text())
    assert "it learnt from the target's labels" in told
    assert "images and their labels: a ceiling" in told
    assert "no labels used" not in told


def test_page_needs_nothing_outside_itself(tmp_path: Path) -> None:
    labelled_run(tmp_path / "run")
    path = write_report(tmp_path / "run")
    page = path.read_text()
    assert path == tmp_path / "run" / "report.html"
    assert "http" not in page
    assert "<script" not in page
    assert "<link" not in page
    assert "url(" not in page
    assert all(src.startswith("data:image/") for src in re.findall(r'src="(.*?)"', page))
    assert len(re.findall(r"<img ", page)) == 2 * 8  # image, truth, three stages, change, errors, confidence
    assert all(alt for alt in re.findall(r'<img [^>]*alt="(.*?)"', page, flags=re.S))
    assert not list((tmp_path / "run").glob("*.partial"))


@pytest.mark.parametrize("make", [labelled_run, unlabelled_run])
def test_page_is_well_formed(tmp_path: Path, make: Any) -> None:
    make(tmp_path / "run")
    balance = Balance()
    balance.feed(write_report(tmp_path / "run").read_text())
    assert balance.faults == []
    assert balance.open == []


def test_page_escapes_what_came_from_files(tmp_path: Path) -> None:
    labelled_run(tmp_path / "run")
    page = write_report(tmp_path / "run").read_text()
    assert "<b>evil" not in page
    assert "&lt;b&gt;evil&lt;/b&gt; &amp; co" in page
    assert "camera <lens>" not in page
    assert "camera &lt;lens&gt;" in page


def test_page_shows_the_alignment_before_and_after(tmp_path: Path) -> None:
    run = tmp_path / "run"
    stages = ("source", "step1", "step2")
    make_config(run)
    make_metrics(run, stages)
    summary = make_summary(run, stages)
    pairs = ("source_mixed", "source_target", "mixed_target")
    before = {"a_distance": dict(zip(pairs, (0.25, 1.875, 1.5), strict=True)), "mmd": dict(zip(pairs, (0.011, 0.222, 0.133), strict=True))}
    after = {"a_distance": dict(zip(pairs, (-0.125, 1.25, 0.5), strict=True)), "mmd": dict(zip(pairs, (-0.004, 0.2, 0.1), strict=True))}
    summary["stages"]["step2"]["alignment"] = {"pictures": 2, "latent": before, "predicted": after}
    (run / "summary.json").write_text(json.dumps(summary))
    cloud = {"source": [[-1.0, 0.0], [0.0, 1.0]], "mixed": [[0.0, 0.0], [0.5, 0.5]], "target": [[3.0, -1.0], [2.0, 0.0]]}
    projection = {"step2": {"explained": [0.5, 0.25], "latent": cloud, "predicted": cloud}}
    (run / "projection.json").write_text(json.dumps(projection))
    lines = [{"stage": "step2", "iteration": i, "losses": {"domain_accuracy": 0.4, "confusion": 0.01}} for i in (1001, 1002)]
    with (run / "metrics.jsonl").open("a") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
    page = write_report(run).read_text()
    section = page[page.index("Step 2 under the microscope") :]
    row = re.search(r"source – target</th>(.*?)</tr>", section)
    assert row is not None
    assert re.findall(r">([^<>]+)</td>", row[1]) == ["1.88", "1.25", "0.222", "0.200"]
    row = re.search(r"source – mixed</th>(.*?)</tr>", section)
    assert row is not None
    assert re.findall(r">([^<>]+)</td>", row[1]) == ["0.25", "−0.12", "0.011", "−0.004"]
    assert "75 % of it" in section
    # The leftmost picture is at the left margin, the topmost at the top, in both drawings; one scale, so the width is the height's ratio.
    circles = re.findall(r'<circle class="s(\d)" cx="([\d.]+)" cy="([\d.]+)" r="3.5"', section)
    assert len(circles) == 12
    assert circles[0][1:] == ("12.0", "86.0")
    assert circles[1][1:] == ("86.0", "12.0")
    assert circles[4] == ("3", "308.0", "160.0")
    assert "Discriminator accuracy: Discriminator accuracy from 40.0 % to 40.0 %." in section


def test_page_without_an_alignment_has_no_section_of_it(tmp_path: Path) -> None:
    run, stages = tmp_path / "run", ("source", "step1", "step2")
    make_config(run)
    make_metrics(run, stages)
    make_summary(run, stages)
    page = write_report(run).read_text()
    assert "under the microscope" not in page


def test_page_says_that_step_2_gained_nothing_and_warns_of_the_identity(tmp_path: Path) -> None:
    labelled_run(tmp_path / "run")
    page = text_of(write_report(tmp_path / "run").read_text())
    loss = mean(IOU["step1"]) - mean(IOU["step2"])
    assert f"Step 2 loses {loss:.1f} points against step 1" in page
    assert "0.40 %" in page
    assert "close to the identity" in page
    assert "Step 1 peaked at 57.5 mIoU at iteration 600 and ended 1.7 points lower" in page
    assert "<b>evil</b> & co is at zero" in page


@pytest.mark.parametrize(
    ("change", "sentence"),
    [(4.0, "Step 2 gains 4.0 points over step 1. This gain needs its control"), (0.1, "gains nothing measurable over step 1 (+0.1)")],
)
def test_page_says_what_a_gain_of_step_2_is_worth(tmp_path: Path, change: float, sentence: str) -> None:
    summary = labelled_run(tmp_path / "run")
    summary["stages"]["step2"] |= {"miou": summary["stages"]["step1"]["miou"] + change, "identity_gap": 0.2}
    (tmp_path / "run" / "summary.json").write_text(json.dumps(summary))
    page = text_of(write_report(tmp_path / "run").read_text())
    assert sentence in page
    assert "close to the identity" not in page


def test_page_compares_step_2_with_its_control_where_there_is_one(tmp_path: Path) -> None:
    summary = labelled_run(tmp_path / "run")
    step1 = summary["stages"]["step1"]["miou"]
    summary["stages"]["step2"]["miou"] = step1 + 4
    summary["stages"]["step1_control"] = summary["stages"]["step1"] | {"miou": step1 + 5}
    (tmp_path / "run" / "summary.json").write_text(json.dumps(summary))
    page = text_of(write_report(tmp_path / "run").read_text())
    assert f"reaches {step1 + 5:.1f} mIoU: step 2 is worse (−1.0)" in page
    assert "needs its control" not in page
    assert "Step 1 control" in page


def test_page_shows_the_means_of_the_convention_that_the_protocol_names(tmp_path: Path) -> None:
    summary = labelled_run(tmp_path / "run")
    for place, stage in enumerate(("source", "step1", "step2")):
        own, other = {"5": 1.1, "16": 41.25 + place, "13": None}, {"16": 99.9, "13": 98.8}
        summary["stages"][stage]["means"] = {"a": own, "b": other}
    (tmp_path / "run" / "summary.json").write_text(json.dumps(summary))
    page = text_of(write_report(tmp_path / "run").read_text())
    assert "convention a" in page
    assert re.search(r"mIoU of 16 \(a\)\s+41\.2\s+42\.2\s+43\.2\s+\+1\.0\s+\+1\.0\s+\+2\.0", page)
    assert re.search(r"mIoU of 13 \(a\)\s+–\s+–", page)
    assert "mIoU of 5" not in page  # the headline's own
    assert "99.9" not in page


def test_page_without_labels_says_so_and_tells_how_training_went(tmp_path: Path) -> None:
    unlabelled_run(tmp_path / "run")
    raw = write_report(tmp_path / "run").read_text()
    page = text_of(raw)
    assert "No score" in page
    assert "no labelled validation images were given" in page
    assert "None of this is a score" in page
    assert "went from 30.8 % to 70.0 %" in page
    assert "from 0.89 to 0.40 nats" in page
    assert "agree on 95.0 % of pixels" in page
    assert "held-out source images score 70.0 mIoU" in page
    assert "At the end never a pseudo-label: train" in page
    assert "Scores by class" not in page
    assert "% wrong" not in page
    assert len(re.findall(r"<img ", raw)) == 2 * 6  # no truth, no errors


def test_page_of_an_unfinished_run_takes_scores_from_the_metrics(tmp_path: Path) -> None:
    run = tmp_path / "run"
    make_config(run)
    make_metrics(run, ("source",))
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"stage": "step1", "iterat')
    page = text_of(write_report(run).read_text())
    assert "not finished (finished: no stage yet; still to come: Source (begun), Step 1, Step 2)" in page
    assert f"Only source has a score: {mean(IOU['source']):.1f} mIoU" in page
    assert "1 line of metrics.jsonl could not be read" in page


def test_page_of_a_run_that_has_only_begun(tmp_path: Path) -> None:
    make_config(tmp_path / "run")
    (tmp_path / "run" / "summary.json").write_text("{broken")
    page = text_of(write_report(tmp_path / "run").read_text())
    assert "not finished" in page
    assert "summary.json could not be read" in page
    assert "No score" in page


@pytest.mark.parametrize("exists", [True, False])
def test_folder_that_is_no_run_is_one_line(tmp_path: Path, exists: bool) -> None:
    folder = tmp_path / "nothing"
    if exists:
        folder.mkdir()
    with pytest.raises(CheckpointError, match=r"nothing is not a run: no config\.yaml") as caught:
        write_report(folder)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 4


@pytest.mark.parametrize(("budget", "least"), [(600_000, 200_000), (60_000, 10_000), (3_000, 0)])
def test_pictures_shrink_until_they_fit(tmp_path: Path, budget: int, least: int) -> None:
    run, stages = tmp_path / "run", ("source", "step1", "step2")
    make_config(run)
    make_pictures(run, stages, size=(256, 512))
    size = sum(len(picture.uri) for row in gallery(read_run(run), budget) for picture in row.pictures)
    assert least <= size <= budget
    assert BUDGET < 5_000_000


def test_missing_or_damaged_pictures_are_left_out(tmp_path: Path) -> None:
    labelled_run(tmp_path / "run")
    pictures = tmp_path / "run" / "pictures"
    (pictures / "0_image.jpg").unlink()
    (pictures / "1_truth.png").write_bytes(b"no picture")
    page = write_report(tmp_path / "run").read_text()
    assert len(re.findall(r"<img ", page)) == 6
