"""The number format is measured once, kept by the machine and by the run, and never depends on a clock where it must not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from iccld.assembly.objects import make_engine
from iccld.config import Config, load_config
from iccld.files import read_json
from iccld.labels import CITYSCAPES19
from iccld.measure import formats, training_format
from iccld.predictor import Predictor
from iccld.runs.load import load_predictor
from iccld.training.engine import NumberFormat

FP32, FP32_LAST = NumberFormat("fp32", False), NumberFormat("fp32", True)
BF16, BF16_LAST = NumberFormat("bf16", False), NumberFormat("bf16", True)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ICCLD_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("ICCLD_BF16", raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    return tmp_path / "cache" / formats.CACHE


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[NumberFormat]]:
    """Say what a step takes in each format on a CPU with bf16; gives the list of those that are timed."""

    def say(seconds: dict[NumberFormat, float], has_bf16: bool = True) -> list[NumberFormat]:
        asked: list[NumberFormat] = []

        def step(config: Config, stage: str, wanted: NumberFormat) -> float:
            asked.append(wanted)
            return seconds[wanted]

        monkeypatch.setattr(formats, "_step_seconds", step)
        monkeypatch.setattr("iccld.training.engine.forced_bf16", lambda: has_bf16)
        monkeypatch.setattr(formats, "bf16_is_fast", lambda device="cpu": has_bf16)
        return asked

    return say


LITE = {FP32: 0.2, FP32_LAST: 0.1, BF16: 0.3, BF16_LAST: 0.15}
COMPACT = {FP32: 0.2, FP32_LAST: 0.2, BF16: 0.1, BF16_LAST: 0.15}


def long(*words: str) -> Config:
    return load_config("city_to_camvid", ["--target.path", "t", "--val.path", "v", "--runtime.device", "cpu", *words])


def chosen(config: Config, run: Path | None = None) -> NumberFormat:
    return training_format(config, make_engine(config), run)


def test_the_fastest_is_taken_and_kept_by_the_machine(cache: Path, timed: Any) -> None:
    asked = timed(LITE)
    assert chosen(long()) == FP32_LAST
    assert set(asked) == {FP32, FP32_LAST, BF16, BF16_LAST}
    asked = timed(COMPACT)
    assert chosen(long()) == FP32_LAST
    assert asked == []
    for words in (("--batch_size", "4"), ("--size.crop", "192x192"), ("--network.decoder_width", "32")):
        asked.clear()
        assert chosen(long(*words)) == BF16
        assert len(asked) == 4
    threads = torch.get_num_threads()
    asked.clear()
    try:
        chosen(long("--runtime.threads", str(threads + 1)))
    finally:
        torch.set_num_threads(threads)
    assert len(asked) == 4
    assert len(read_json(cache)) == 5


def test_the_usual_format_stays_where_none_is_clearly_faster(cache: Path, timed: Any) -> None:
    timed({FP32: 0.2, FP32_LAST: 0.145, BF16: 0.3, BF16_LAST: 0.15})
    assert chosen(long()) == BF16_LAST


@pytest.mark.parametrize("content", ["{broken", "[]", '{"KEY": 5}', '{"KEY": {"precision": "fp64", "channels_last": true}}'])
def test_a_damaged_cache_is_measured_again(cache: Path, timed: Any, content: str) -> None:
    timed(LITE)
    chosen(long())
    (key,) = read_json(cache)
    cache.write_text(content.replace("KEY", key))
    asked = timed(COMPACT)
    assert chosen(long()) == BF16
    assert len(asked) == 4
    assert read_json(cache)[key]["precision"] == "bf16"


def test_a_cache_that_cannot_be_written_does_not_stop_the_run(
    tmp_path: Path, cache: Path, timed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("ICCLD_CACHE", str(tmp_path / "file"))
    timed(LITE)
    assert chosen(long()) == FP32_LAST


def test_without_bf16_it_is_never_chosen(cache: Path, timed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = timed({FP32: 0.2, FP32_LAST: 0.1}, has_bf16=False)
    assert chosen(long()) == FP32_LAST
    assert set(asked) == {FP32, FP32_LAST}
    timed(COMPACT)
    assert chosen(long()) == BF16  # on record for a machine that has it
    timed({FP32: 0.2, FP32_LAST: 0.1}, has_bf16=False)
    assert chosen(long()) == FP32_LAST


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--runtime.precision", "fp32"), FP32),
        (("--runtime.precision", "bf16"), BF16_LAST),
        (("--runtime.precision", "native"), BF16_LAST),
        (("--runtime.precision", "fp32", "--runtime.layout", "channels_last"), FP32_LAST),
        (("--runtime.precision", "bf16", "--runtime.layout", "contiguous"), BF16),
        (("--stages.source.iterations", "60", "--stages.step1.iterations", "60"), BF16_LAST),  # a short run
        (("--runtime.devices", "2"), BF16_LAST),
        (("--network.preset", "ldm", "--network.encoder", "", "--network.decoder_width", "0"), BF16_LAST),
    ],
)
def test_nothing_is_timed(cache: Path, timed: Any, words: tuple[str, ...], expected: NumberFormat) -> None:
    asked = timed(LITE)
    assert chosen(long(*words)) == expected
    assert asked == []


def test_nothing_is_timed_in_the_demo_and_where_bf16_is_said_to_be_there(cache: Path, timed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = timed(LITE)
    assert chosen(load_config("demo", ["--runtime.device", "cpu"])) == BF16_LAST
    monkeypatch.setattr(formats, "forced_bf16", lambda: True)
    assert chosen(long()) == BF16_LAST
    assert asked == []


def test_a_layout_that_is_named_is_kept(cache: Path, timed: Any) -> None:
    asked = timed(LITE)
    assert chosen(long("--runtime.layout", "contiguous")) == FP32
    assert set(asked) == {FP32, BF16}


def test_a_run_goes_on_as_it_began(tmp_path: Path, cache: Path, timed: Any, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    run.mkdir()
    timed(LITE)
    assert chosen(long(), run) == FP32_LAST  # recorded for the machine
    resumed = long("--runtime.resume", "auto")
    for kept in (BF16, FP32):
        (run / "environment.json").write_text(json.dumps({"precision": kept.precision, "channels_last": kept.channels_last}))
        assert chosen(resumed, run) == kept
        assert chosen(long(), run) == FP32_LAST  # another run in its place
    (run / "environment.json").write_text(json.dumps({"precision": "bf16"}))  # of an earlier release
    assert chosen(resumed, run) == BF16_LAST
    assert chosen(long("--runtime.resume", "auto", "--runtime.precision", "fp32"), run) == FP32
    timed(LITE, has_bf16=False)
    assert chosen(resumed, run) == FP32
    assert "was begun in bf16, which this cpu does not multiply" in capsys.readouterr().err
    (run / "environment.json").write_text("{broken")
    assert chosen(resumed, run) == FP32_LAST


def test_a_whole_run_keeps_its_format_and_is_read_in_it(workshop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trained, stopped by its iterations, gone on with although the machine now says otherwise, and read as it was scored."""
    monkeypatch.setattr("iccld.runs.run.training_format", lambda config, engine, run: FP32_LAST)
    settings = {
        "runtime": {**workshop.settings["runtime"], "precision": "auto"},
        "stages": {"source": {"iterations": 2}, "step1": {"iterations": 0}, "step2": {"iterations": 0}},
    }
    assert workshop.adapt("measured", settings, "--no_estimate") == 0
    run = workshop.runs / "measured"
    told = read_json(run / "environment.json")
    assert (told["precision"], told["channels_last"]) == ("fp32", True)
    summary = read_json(run / "summary.json")
    assert all(stage["scoring"]["channels_last"] is True for stage in summary["stages"].values())
    predictor = load_predictor(run)
    assert (predictor.precision, predictor.channels_last) == ("fp32", True)
    weights = [each for each in predictor.parameters() if each.ndim == 4 and each.shape[1] > 1 and each.shape[2] > 1]
    assert all(each.is_contiguous(memory_format=torch.channels_last) for each in weights)
    monkeypatch.undo()
    config = load_config(run / "config.yaml", ["--runtime.resume", "auto"])
    assert training_format(config, make_engine(config), run) == FP32_LAST


def test_prediction_is_measured_only_where_it_is_asked_for_and_worth_it(cache: Path, timed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Halves(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Conv2d(3, 19, 3, stride=2, padding=1)

        def forward(self, images: torch.Tensor, noise: torch.Tensor | None) -> torch.Tensor:
            answer: torch.Tensor = self.layer(images)
            return answer

    def make(size: tuple[int, int]) -> Predictor:
        return Predictor(Halves(), CITYSCAPES19, working_size=size, size_multiple=32, mean=(0, 0, 0), std=(1, 1, 1))

    timed({}, has_bf16=False)
    assert formats.predicting_format(make((64, 64))) == FP32
    assert not cache.exists()
    predictor = make((128, 192))
    assert formats.predicting_format(predictor) in (FP32, FP32_LAST)  # timed in truth
    assert predictor.precision == "fp32"
    assert predictor.network.layer.weight.is_contiguous()
    (entry,) = read_json(cache).values()
    assert set(entry["milliseconds"]) == {str(FP32), str(FP32_LAST)}
    monkeypatch.setattr(formats, "_picture_seconds", lambda *_: pytest.fail("measured twice"))
    assert formats.predicting_format(make((128, 192))) == NumberFormat(entry["precision"], entry["channels_last"])


def test_a_real_step_is_timed(cache: Path, workshop: Any) -> None:
    workshop.write(workshop.root / "timed.yaml")
    config = load_config(workshop.root / "timed.yaml", ["--runtime.device", "cpu"])
    threads = torch.get_num_threads()
    try:
        assert formats._step_seconds(config, "step1", FP32) > 0
    finally:
        torch.set_num_threads(threads)
