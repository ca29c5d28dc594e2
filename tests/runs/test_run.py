"""`iccld adapt` from files to a report, in this process: what a run leaves, resuming, and that target labels are never read."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections import namedtuple
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from iccld import adapting
from iccld.cli import main
from iccld.config import load_config, read_config
from iccld.data import images, patience
from iccld.errors import Preempted
from iccld.labels import CITYSCAPES19
from iccld.methods.common.supervised import Supervised
from iccld.runs import load_predictor, scores

STAGES = ["source", "step1", "step2"]


def read(run: Path, name: str) -> Any:
    return json.loads((run / name).read_text(encoding="utf-8"))


def metrics(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def timeless(records: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Records without what two runs of the same computation differ in."""
    measured = ("time", "seconds", "processor_seconds", "peak_memory_gib", "milliseconds_per_image", "processor_milliseconds_per_image")
    return [{key: value for key, value in record.items() if key not in measured} for record in records]


def error_of(capsys: pytest.CaptureFixture[str]) -> str:
    """The one error line."""
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, lines
    return lines[0]


# --- what a run leaves ----------------------------------------------------------------------------------------------------


def test_run_leaves_its_files(finished: Path) -> None:
    for name in ("config.yaml", "environment.json", "metrics.jsonl", "summary.json", "report.html", "pictures/index.json"):
        assert (finished / name).stat().st_size > 0, name
    for stage in STAGES:
        names = {path.name for path in (finished / "checkpoints" / stage / "00000003").iterdir()}
        assert names == {"model.safetensors", "ema.safetensors", "optimizer.safetensors", "state.json", "manifest.json"}


def test_config_of_a_run_is_resolved_and_reads_back(finished: Path, workshop: Any) -> None:
    assert read_config(finished / "config.yaml") == load_config(workshop.root / "straight.yaml")
    assert "augmentation:" in (finished / "config.yaml").read_text()  # a section that the file left out


def test_summary_has_the_keys_of_the_contract(finished: Path) -> None:
    summary = read(finished, "summary.json")
    assert set(summary) == {"method", "recipe", "seed", "commit", "dirty", "label_space", "protocol", "headline", "stages", "trust"}
    assert set(summary["protocol"]) == {"ground_truth_size", "window", "scales", "flip", "split", "num_images", "convention"}
    assert set(summary["headline"]) == {"stage", "weights", "miou"}
    assert list(summary["stages"]) == STAGES
    shared = {"miou", "iou", "means", "weights", "miou_model", "best", "iterations", "seconds", "peak_memory_gib", "source_validation"}
    shared |= {"parameters", "milliseconds_per_image", "processor_milliseconds_per_image", "scoring", "processor_seconds"}
    for stage in summary["stages"].values():
        assert set(stage) == shared
        assert set(stage["best"]) == {"miou", "iteration"}
        assert list(stage["iou"]) == list(CITYSCAPES19.names)
        assert stage["scoring"] == {"precision": "fp32", "window": "whole", "stride": 0, "scales": [1.0], "flip": False}


def test_summary_tells_this_run(finished: Path) -> None:
    summary = read(finished, "summary.json")
    told = {key: summary[key] for key in ("method", "recipe", "seed", "label_space")}
    assert told == {"method": "iccld", "recipe": "straight", "seed": 0, "label_space": "cityscapes19"}
    views = {"window": "whole", "scales": [1.0], "flip": False}
    protocol = {"ground_truth_size": [64, 96], **views, "split": "val", "num_images": 2, "convention": "a"}
    assert summary["protocol"] == protocol
    last = summary["stages"]["step2"]
    assert summary["headline"] == {"stage": "step2", "weights": "ema", "miou": last["miou"]}
    for stage in summary["stages"].values():
        present = [value for value in stage["iou"].values() if value is not None]
        assert stage["miou"] == pytest.approx(sum(present) / len(present))
        assert (stage["iterations"], stage["source_validation"]["num_images"]) == (3, 2)


def test_environment_names_versions_device_and_commit(finished: Path) -> None:
    told = read(finished, "environment.json")
    assert {"iccld", "python", "torch", "device", "cpu", "threads", "commit", "dirty"} <= set(told)
    assert (told["device"], told["threads"], told["pretrained"]) == ("cpu", 1, {})


def test_metrics_hold_training_and_evaluations_of_every_stage(finished: Path) -> None:
    lines = metrics(finished)
    assert list(dict.fromkeys(line["stage"] for line in lines)) == STAGES
    logged = [(line["stage"], line["iteration"]) for line in lines if "losses" in line]
    assert logged == [(stage, iteration) for stage in STAGES for iteration in (2, 3)]
    scored = {(line["stage"], line["eval"]["split"], line["eval"]["weights"]) for line in lines if "eval" in line}
    assert scored == {(stage, *which) for stage in STAGES for which in (("val", "ema"), ("val", "model"), ("source_val", "ema"))}
    step1 = next(line for line in lines if line["stage"] == "step1")
    assert {"pseudo_label_share", "pseudo_label_histogram", "entropy", "agreement"} <= set(step1)
    assert len(step1["pseudo_label_histogram"]) == 19
    assert next(line for line in lines if line["stage"] == "step2")["losses"].keys() >= {"denoise", "source", "mixed", "target"}


def test_pictures_and_page_show_every_stage(finished: Path) -> None:
    index = read(finished, "pictures/index.json")
    assert index["stages"] == STAGES
    assert len(index["names"]) == 2
    for i in range(2):
        kept = [f"{i}_image.jpg", f"{i}_truth.png", *(f"{i}_{stage}{kind}.png" for stage in STAGES for kind in ("", "_confidence"))]
        assert [name for name in kept if not (finished / "pictures" / name).is_file()] == []
    page = (finished / "report.html").read_text(encoding="utf-8")
    assert all(title in page for title in ("Source", "Step 1", "Step 2"))


# --- resuming -------------------------------------------------------------------------------------------------------------


def test_existing_run_is_refused_without_resume(finished: Path, workshop: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert workshop.adapt("straight") == 2
    assert "--resume auto" in error_of(capsys)


def test_resume_of_a_finished_run_writes_the_report_and_nothing_else(
    finished: Path, workshop: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(workshop, "runs", tmp_path)
    shutil.copytree(finished, tmp_path / "straight")
    (tmp_path / "straight" / "report.html").unlink()

    def content() -> dict[str, bytes]:
        files = [path for path in (tmp_path / "straight").rglob("*") if path.is_file()]
        return {str(path): path.read_bytes() for path in files if path.name not in ("report.html", "config.yaml")}

    before = content()
    scored: list[str] = []
    monkeypatch.setattr(adapting, "save_stage_pictures", lambda *arguments: scored.append(arguments[2]))
    assert workshop.adapt("straight", None, "--resume", "auto", "--runtime.out", str(tmp_path)) == 0
    told = capsys.readouterr()
    assert told.out.strip() == str(tmp_path / "straight" / "report.html")
    assert Path(told.out.strip()).is_file()
    assert content() == before
    assert scored == []
    assert not any(word in told.err for word in ("Training", "Scoring", "estimate"))


def test_resume_with_other_settings_is_refused_and_leaves_the_run_as_it_was(
    finished: Path, workshop: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (finished / "config.yaml").read_bytes()
    assert workshop.adapt("straight", None, "--resume", "auto", "--network.decoder_width", "24") == 4
    assert "network.decoder_width: 16 in the checkpoint, 24 now" in error_of(capsys)
    assert (finished / "config.yaml").read_bytes() == before


@pytest.mark.usefixtures("no_estimate")
def test_run_interrupted_after_source_and_resumed_equals_straight(
    finished: Path, workshop: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:

        def stop(num_pictures: int, run: Path, stage: str, *rest: Any) -> None:
            raise Preempted(f"stopped after {stage}")

        patch.setattr(adapting, "save_stage_pictures", stop)
        assert workshop.adapt("halved") == 75
    assert "stopped after source" in error_of(capsys)
    assert sorted(path.name for path in (workshop.runs / "halved" / "checkpoints").iterdir()) == ["source"]
    assert workshop.adapt("halved", None, "--resume", "auto") == 0
    assert workshop.digests("halved") == workshop.digests("straight")
    assert timeless(metrics(workshop.runs / "halved")) == timeless(metrics(finished))
    halved, straight = (read(workshop.runs / name, "summary.json") for name in ("halved", "straight"))
    assert list(halved["stages"]) == STAGES
    assert timeless(halved["stages"].values()) == timeless(straight["stages"].values())


# --- target labels --------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_estimate")
def test_target_without_labels_or_val_trains_the_same_and_still_gets_a_report(
    finished: Path, workshop: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = workshop.root / "bare"
    shutil.copytree(workshop.data.target / "leftImg8bit", bare / "leftImg8bit")
    assert workshop.adapt("bare", {"target": {"path": str(bare), "format": "cityscapes"}, "val": {}}) == 0
    assert "the target has no labels" in capsys.readouterr().err
    run = workshop.runs / "bare"
    assert workshop.digests("bare") == workshop.digests("straight")
    summary = read(run, "summary.json")
    assert (summary["protocol"]["num_images"], summary["protocol"]["split"]) == (0, None)
    assert summary["headline"] == {"stage": "step2", "weights": "ema", "miou": None}
    for name, stage in summary["stages"].items():
        assert (stage["miou"], stage["iou"], stage["best"]) == (None, None, None)
        straight = read(finished, "summary.json")["stages"][name]
        assert stage["source_validation"] == straight["source_validation"]
    assert not list((run / "pictures").glob("*_truth.png"))
    page = (run / "report.html").read_text(encoding="utf-8")
    assert all(word in page.lower() for word in ("pseudo-label", "entropy", "agreement", "source validation"))


@pytest.mark.usefixtures("no_estimate", "finished")
def test_corrupt_target_masks_change_nothing_and_are_never_opened(workshop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    spoilt = workshop.root / "spoilt"
    shutil.copytree(workshop.data.target, spoilt)
    masks = sorted(spoilt.rglob("*_labelIds.png"))
    assert masks
    for i, path in enumerate(masks):
        if i % 2:
            path.write_bytes(b"no picture")
        else:
            Image.fromarray(np.full((64, 96), 7, dtype=np.uint8)).save(path)
    opened: list[Path] = []
    original = images.read_palette_indices
    monkeypatch.setattr(images, "read_palette_indices", lambda path: opened.append(path) or original(path))
    changes = {
        "target": {"path": str(spoilt), "format": "cityscapes"},
        "stages": {"source": {"iterations": 3}, "step1": {"iterations": 3}, "step2": {"iterations": 0}},
    }
    assert workshop.adapt("spoilt", changes) == 0
    assert workshop.digests("spoilt", ("source", "step1")) == workshop.digests("straight", ("source", "step1"))
    assert [path for path in opened if spoilt in path.parents] == []


# --- faults of a run ------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_estimate")
@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), MemoryError()])
@pytest.mark.parametrize("precision", ["fp32", "auto"])
def test_fault_21_training_without_memory_names_batch_crop_and_three_remedies(
    workshop: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception, precision: str, has_bf16: bool
) -> None:
    """bf16 is a remedy where the machine has it and the run did not use it."""

    def exhausted(*arguments: Any) -> None:
        raise error

    name = f"{type(error).__name__.lower()}-{precision}-{has_bf16}"
    monkeypatch.setattr(Supervised, "step", exhausted)
    changes = {"stages": {"source": {"iterations": 2}}, "method": "source_only"}
    assert workshop.adapt(name, changes, "--runtime.precision", precision) == 2
    ran = "bf16" if has_bf16 and precision == "auto" else "fp32"
    third = "--runtime.precision bf16" if has_bf16 and precision == "fp32" else "narrower networks (network.*)"
    assert error_of(capsys) == (
        f"error: out of memory on cpu with batch_size 2, size.crop 32x64 and {ran}; "
        f"use a smaller batch_size, a smaller size.crop, or {third}"
    )


@pytest.mark.usefixtures("no_estimate")
def test_fault_21_scoring_without_memory_names_the_window(
    workshop: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def exhausted(*arguments: Any, **options: Any) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    monkeypatch.setattr(scores, "evaluate", exhausted)
    assert workshop.adapt("scoring", {"stages": {"source": {"iterations": 1}}, "method": "source_only"}) == 2
    assert "--evaluation.window" in error_of(capsys)


@pytest.mark.usefixtures("no_estimate")
def test_fault_23_low_shared_memory_is_told_before_the_first_step(
    workshop: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(patience.shutil, "disk_usage", lambda path: usage(2**20, 2**20, 1000 if str(path) == "/dev/shm" else 2**40))
    arguments = ("--runtime.workers", "1")
    assert workshop.adapt("shared", {"stages": {"source": {"iterations": 1}}, "method": "source_only"}, *arguments) == 0
    told = capsys.readouterr().err
    assert told.index("warning: 1 workers may need") < told.index("Training source")


@pytest.mark.usefixtures("no_estimate")
@pytest.mark.parametrize("work", ["scoring", "pictures"])
def test_fault_04_signal_while_a_stage_is_scored_leaves_at_once_and_resume_scores_it(
    finished: Path, workshop: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], work: str
) -> None:
    """Scoring a large split may take longer than the two minutes that a cluster gives: it is left, and what was trained is saved."""
    name, scored = f"scored-{work}", []

    def signalled(*rest: Any, **more: Any) -> Any:
        scored.append(more.get("title", "pictures"))
        os.kill(os.getpid(), signal.SIGUSR1)
        pytest.fail("went on after the signal")

    with monkeypatch.context() as patch:
        patch.setattr(*((scores, "evaluate") if work == "scoring" else (adapting, "save_stage_pictures")), signalled)
        assert workshop.adapt(name) == 75
    assert len(scored) == 1
    assert "go on with --resume auto" in error_of(capsys)
    assert workshop.adapt(name, None, "--resume", "auto") == 0
    assert workshop.digests(name) == workshop.digests("straight")
    assert timeless(metrics(workshop.runs / name)) == timeless(metrics(finished))
    told, straight = (read(workshop.runs / run, "summary.json") for run in (name, "straight"))
    assert timeless(told["stages"].values()) == timeless(straight["stages"].values())
    # What is on record now is not scored a second time.
    monkeypatch.setattr(scores, "evaluate", signalled)
    assert workshop.adapt(name, None, "--resume", "auto") == 0
    assert len(scored) == 1


# --- several processes --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_two_devices_through_the_command_share_a_batch_and_leave_one_run(workshop: Any) -> None:
    """Started processes get the frozen configuration, and rank 0's answer comes back."""
    stages = {"source": {"iterations": 2}}
    command = [sys.executable, "-m", "iccld", "adapt", "--config", str(workshop.root / "two.yaml"), "--name", "two"]
    (workshop.root / "two.yaml").write_text(yaml.safe_dump({**workshop.settings, "method": "source_only", "stages": stages}))
    options = ["--runtime.devices", "2", "--runtime.device", "cpu", "--runtime.threads", "1"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip().splitlines()[-1] == str(workshop.runs / "two" / "report.html")
    assert read(workshop.runs / "two", "summary.json")["stages"]["source"]["iterations"] == 2
    assert len([line for line in metrics(workshop.runs / "two") if "losses" in line]) == 1


# --- other methods, other names -------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_estimate")
def test_oracle_is_source_only_on_the_targets_own_labels(workshop: Any) -> None:
    camera = {"path": str(workshop.data.target), "format": "cityscapes"}
    changes = {"method": "source_only", "source": camera, "target": camera, "stages": {"source": {"iterations": 2}}}
    assert workshop.adapt("oracle", changes) == 0
    summary = read(workshop.runs / "oracle", "summary.json")
    assert (summary["method"], list(summary["stages"])) == ("source_only", ["source"])
    assert summary["headline"]["stage"] == "source"
    assert summary["headline"]["miou"] > 0
    assert load_predictor(workshop.runs / "oracle").label_space == CITYSCAPES19


@pytest.mark.usefixtures("no_estimate")
def test_run_keeps_its_own_label_space(workshop: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "two.yaml"
    file.write_text("name: two\nclasses: [{name: ground, absorbs: [road, sidewalk]}, {name: sky}]\n")
    stages = {"source": {"iterations": 1}}
    assert workshop.adapt("own_space", {"method": "source_only", "stages": stages, "label_space": str(file)}) == 0
    file.unlink()
    run = workshop.runs / "own_space"
    assert load_predictor(run).label_space.names == ("ground", "sky")
    assert list(read(run, "summary.json")["stages"]["source"]["iou"]) == ["ground", "sky"]
    assert main(["evaluate", str(run), "--data", str(workshop.data.val), "--split", "val"]) == 0
    assert "ground" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--settings.treshold", "0.9"), "unknown key settings.treshold of method iccld (did you mean threshold?)"),
        (("--settings.threshold", "high"), "settings.threshold is 'high'"),
        (("--settings.threshold", "null"), "settings.threshold is null; expected float"),
        (("--settings.prediction", "velocity"), "settings.prediction is 'velocity'; expected epsilon or sample"),
        (("--settings.noise_scale", "beta"), "settings.noise_scale is 'beta'; expected alpha_bar or alpha"),
        (("--method", "icld"), "unknown method 'icld' (did you mean iccld?)"),
        (("--method", "source_only", "--settings.threshold", "0.9"), "unknown key settings.threshold of method source_only"),
    ],
)
def test_fault_38_wrong_method_and_settings_are_refused_before_anything_is_written(
    workshop: Any, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], says: str
) -> None:
    assert workshop.adapt("refused", None, *arguments) == 2
    assert says in error_of(capsys)
    assert not (workshop.runs / "refused").exists()


# --- evaluating it --------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("has_bf16")
def test_fault_56_evaluate_repeats_the_score_of_a_run_in_fp32(finished: Path, workshop: Any, tmp_path: Path) -> None:
    data = ["--data", str(workshop.data.val), "--format", "cityscapes", "--split", "val"]
    for stage in STAGES:
        out = tmp_path / f"{stage}.json"
        assert main(["evaluate", str(finished), *data, "--stage", stage, "--json", str(out)]) == 0
        told = json.loads(out.read_text())
        assert told["miou"] == read(finished, "summary.json")["stages"][stage]["miou"]
        assert (told["stage"], told["weights"], told["protocol"]["num_images"]) == (stage, "ema", 2)


def test_evaluate_without_data_scores_the_runs_own_validation_pictures(finished: Path, workshop: Any, tmp_path: Path) -> None:
    named, own = tmp_path / "named.json", tmp_path / "own.json"
    data = ["--data", str(workshop.data.val), "--format", "cityscapes", "--split", "val"]
    assert main(["evaluate", str(finished), *data, "--json", str(named)]) == 0
    assert main(["evaluate", str(finished), "--json", str(own)]) == 0
    assert own.read_bytes() == named.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--split", "val"), "--split says how --data is read"),
        (("--format", "folder"), "--format says how --data is read"),
        (("--classes", "own.yaml"), "a YAML of --classes says how --data is read"),
    ],
)
def test_how_data_is_read_is_refused_without_data(
    finished: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], says: str
) -> None:
    assert main(["evaluate", str(finished), *arguments]) == 2
    assert says in error_of(capsys)


@pytest.mark.parametrize(
    ("val", "says"),
    [("{}", "names no labelled pictures of its own"), ('{path: "a,b", format: folder}', "has 2 folders of validation pictures")],
)
def test_evaluate_without_data_asks_for_it_where_a_run_has_not_one_folder(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], val: str, says: str
) -> None:
    copied = tmp_path / "copied"
    shutil.copytree(finished, copied)
    told = yaml.safe_load((copied / "config.yaml").read_text())
    told["val"] = yaml.safe_load(val)
    (copied / "config.yaml").write_text(yaml.safe_dump(told))
    assert main(["evaluate", str(copied)]) == 2
    assert f"{copied} {says}" in error_of(capsys)


@pytest.fixture(scope="module")
def sampling(workshop: Any) -> Path:
    """A run whose step 2 predicts through its denoiser."""
    settings = {"noise": "everywhere", "denoise_at_inference": True, "labels": "own", "adversarial_weight": 1e-3}
    stages = {"source": {"iterations": 1}, "step1": {"iterations": 0}, "step2": {"iterations": 2}}
    assert workshop.adapt("sampling", {"settings": settings, "stages": stages}) == 0
    return Path(workshop.runs / "sampling")


def test_a_step_2_that_samples_tells_how_far_and_in_how_many_steps(sampling: Path) -> None:
    source, last = (read(sampling, "summary.json")["stages"][name] for name in ("source", "step2"))
    assert set(last) - set(source) == {"alignment", "identity_gap", "sampler_steps", "miou_by_steps", "miou_by_steps_images"}
    assert list(last["miou_by_steps"]) == ["1", "2"]
    assert last["miou_by_steps"]["1"] == pytest.approx(last["miou"])
    assert last["identity_gap"] > 1e-3
    assert list(last["alignment"]) == ["pictures"]  # too few of them to measure anything
    assert 0 < last["alignment"]["pictures"] <= 6
    assert next(line for line in metrics(sampling) if line["stage"] == "step2")["losses"].keys() >= {"denoise", "confusion", "domain"}


def test_evaluate_takes_other_numbers_of_sampler_steps(sampling: Path, finished: Path, workshop: Any, tmp_path: Path) -> None:
    data = ["--data", str(workshop.data.val), "--format", "cityscapes", "--split", "val", "--json", str(tmp_path / "five.json")]
    assert main(["evaluate", str(sampling), *data, "--sampler_steps", "5"]) == 0
    told = json.loads((tmp_path / "five.json").read_text())
    assert told["protocol"]["sampler_steps"] == 5
    assert told["stage"] == "step2"
    assert told["miou"] > 0


def test_evaluate_in_windows_and_at_another_size(finished: Path, workshop: Any, tmp_path: Path) -> None:
    """A window that covers the pictures changes no score, a smaller one and another working size do; the protocol tells which."""
    told = []
    for arguments in ((), ("--window", "64x96"), ("--window", "32x64", "--stride", "16"), ("--size", "128x192")):
        data = ["--data", str(workshop.data.val), "--split", "val", "--json", str(tmp_path / "scores.json")]
        assert main(["evaluate", str(finished), *data, "--stage", "step1", *arguments]) == 0
        told.append(json.loads((tmp_path / "scores.json").read_text()))
    whole, covered, windows, larger = told
    assert covered["iou"] == whole["iou"]
    assert windows["iou"] != whole["iou"] != larger["iou"]
    assert [each["protocol"]["window"] for each in told] == ["whole", "64x96 stride half", "32x64 stride 16", "whole"]
    assert [each["protocol"]["working_size"] for each in told] == [[64, 96], [64, 96], [64, 96], [128, 192]]


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("--stage", "source", "--sampler_steps", "5"), 2, "stage source"),
        (("--sampler_steps", "3"), 2, "sampler_steps is 3"),
        (("--stage", "step9"), 4, "'step9'"),
        (("--stride", "8"), 2, "--window"),
        (("--window", "30x64"), 2, "multiples of"),
        (("--window", "32x64", "--stride", "48"), 2, "must lie between 1 and the window's shorter side 32"),
        (("--size", "8x16"), 2, "smaller than the size multiple"),
    ],
)
def test_evaluate_refuses_what_a_stage_does_not_have(
    finished: Path, workshop: Any, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], code: int, says: str
) -> None:
    assert main(["evaluate", str(finished), "--data", str(workshop.data.val), "--split", "val", *arguments]) == code
    assert says in error_of(capsys)
