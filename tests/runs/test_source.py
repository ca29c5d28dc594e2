"""A source stage trained once and started from: the same numbers, the weights pinned by SHA-256, wrong ones refused."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from iccld.config import Config, NetworkConfig, WorkingSize, comparable, load_config
from iccld.errors import CheckpointError
from iccld.evaluation import Record
from iccld.labels import CAMVID11, CITYSCAPES19
from iccld.runs.run import fingerprint
from iccld.runs.source import find_source, source_key

TWO_STAGES = {"source": {"iterations": 3}, "step1": {"iterations": 3}, "step2": {"iterations": 0}}


@pytest.fixture(scope="module")
def shared(workshop: Any) -> Path:
    """A finished run of the source stage alone."""
    assert workshop.adapt("shared_source", {"method": "source_only"}) == 0
    return workshop.runs / "shared_source"


@pytest.fixture(scope="module")
def consumer(workshop: Any, shared: Path) -> Path:
    assert workshop.adapt("consumer", {"source_checkpoint": str(shared), "stages": TWO_STAGES}) == 0
    return workshop.runs / "consumer"


def test_a_shared_source_gives_the_numbers_of_an_own_one(workshop: Any, finished: Path, consumer: Path) -> None:
    assert workshop.digests("consumer", ("step1",)) == workshop.digests("straight", ("step1",))
    assert not (consumer / "checkpoints" / "source").exists()


def test_a_later_stage_of_another_run_is_started_from_as_well(workshop: Any, finished: Path, capsys: Any) -> None:
    """Step 2 from the step 1 of another run is the step 2 of that run: the same weights, batches and draws."""
    start = {"source_checkpoint": str(finished), "checkpoint_stage": "step1"}
    assert workshop.adapt("from_step1", start) == 0
    assert workshop.digests("from_step1", ("step2",)) == workshop.digests("straight", ("step2",))
    run = workshop.runs / "from_step1"
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["step2"]
    told, before = (json.loads((each / "summary.json").read_text()) for each in (run, finished))
    assert list(told["stages"]) == ["source", "step1", "step2"]
    assert told["stages"]["step1"] == before["stages"]["step1"]
    assert told["source_checkpoint"]["path"] == str(finished / "checkpoints" / "step1" / "00000003")
    assert workshop.adapt("from_step1", start, "--resume", "auto") == 0  # finished, and of the same data
    assert workshop.adapt("from_nothing", {**start, "checkpoint_stage": "step3"}) == 2
    assert "a stage step3" in capsys.readouterr().err
    assert workshop.adapt("from_nothing", {**start, "checkpoint_stage": "step2"}) == 2  # nothing is left to train
    other = {**start, "stages": {"source": {"iterations": 3}, "step1": {"iterations": 4}, "step2": {"iterations": 3}}}
    assert workshop.adapt("from_step1_later", other) == 0  # its own count of step 1 decides where its batches begin


def test_the_summary_names_the_source_by_path_and_sha256(shared: Path, consumer: Path) -> None:
    summary = json.loads((consumer / "summary.json").read_text())
    checkpoint = shared / "checkpoints" / "source" / "00000003"
    sha256 = {name: hashlib.sha256((checkpoint / name).read_bytes()).hexdigest() for name in ("model.safetensors", "ema.safetensors")}
    assert summary["source_checkpoint"] == {"path": str(checkpoint), "sha256": sha256}
    assert summary["stages"]["source"] == json.loads((shared / "summary.json").read_text())["stages"]["source"]
    assert summary["headline"]["stage"] == "step1"


def test_another_source_is_another_configuration(workshop: Any, shared: Path, consumer: Path, capsys: Any) -> None:
    """The path may change, the weights may not."""
    moved = workshop.root / "moved"
    shutil.copytree(shared, moved)
    assert workshop.adapt("consumer", {"source_checkpoint": str(moved), "stages": TWO_STAGES}, "--resume", "auto") == 0
    assert workshop.adapt("seeded", {"method": "source_only", "seed": 1}) == 0
    capsys.readouterr()
    other = {"source_checkpoint": str(workshop.runs / "seeded"), "stages": TWO_STAGES}
    assert workshop.adapt("consumer", other, "--resume", "auto") == 4
    assert "source_checkpoint.ema.safetensors" in capsys.readouterr().err


def test_unfinished_foreign_and_missing_sources_are_refused(workshop: Any, shared: Path, finished: Path, tmp_path: Path) -> None:
    unfinished = tmp_path / "unfinished"
    shutil.copytree(shared, unfinished)
    (unfinished / "summary.json").unlink()
    unfinished_step1 = tmp_path / "unfinished_step1"
    shutil.copytree(finished, unfinished_step1)
    (unfinished_step1 / "summary.json").write_text(json.dumps({"stages": {"source": {"iterations": 3}}}))
    with pytest.raises(CheckpointError, match="not finished"):
        find_source(unfinished, CITYSCAPES19.names)
    with pytest.raises(CheckpointError, match="classes"):
        find_source(shared, CAMVID11.names)
    with pytest.raises(CheckpointError, match="stage 'step1'"):
        find_source(finished / "checkpoints" / "step1" / "00000003", CITYSCAPES19.names)
    with pytest.raises(CheckpointError, match="step1 is not finished"):
        find_source(unfinished_step1, CITYSCAPES19.names, "step1")
    with pytest.raises(CheckpointError, match="not a run"):
        find_source(tmp_path / "nothing", CITYSCAPES19.names)


def test_nothing_after_the_source_is_refused(workshop: Any, shared: Path, capsys: Any) -> None:
    assert workshop.adapt("alone", {"method": "source_only", "source_checkpoint": str(shared)}) == 2
    assert "source_checkpoint" in capsys.readouterr().err


def test_source_only_goes_on_where_it_is_asked_to(workshop: Any, shared: Path) -> None:
    stages = {"source": {"iterations": 3}, "adapt": {"iterations": 2}}
    assert workshop.adapt("continued", {"method": "source_only", "source_checkpoint": str(shared), "stages": stages}) == 0
    summary = json.loads((workshop.runs / "continued" / "summary.json").read_text())
    assert summary["headline"]["stage"] == "adapt"
    assert summary["stages"]["adapt"]["iterations"] == 2
    assert workshop.digests("continued", ("adapt",)).values() != workshop.digests("shared_source", ("source",)).values()


def test_source_key_depends_on_what_the_source_stage_sees(workshop: Any) -> None:
    config = load_config("demo")
    key = source_key(config, CITYSCAPES19.names)
    assert len(key) == 12

    def changed(**changes: Any) -> bool:
        return source_key(replace(config, **changes), CITYSCAPES19.names) != key

    stages = config.stages
    assert changed(seed=1)
    assert changed(network=replace(config.network, inter_coder=False))
    assert not changed(network=replace(config.network, conditioning="attention"))  # no denoiser in the source stage
    assert not changed(augmentation=replace(config.augmentation, style_probability=1.0))  # lent after the source stage
    assert changed(stages={**stages, "source": replace(stages["source"], iterations=7)})
    assert changed(source=replace(config.source, holdout=3))
    assert source_key(config, CAMVID11.names) != key
    assert not changed(method="source_only", settings={}, name="other", recipe="file")
    assert not changed(stages={**stages, "step1": replace(stages["step1"], iterations=7)})
    assert not changed(runtime=replace(config.runtime, out="elsewhere", threads=1))
    assert isinstance(config, Config)


def test_settings_that_came_later_leave_earlier_sources_and_checkpoints_their_own() -> None:
    network = NetworkConfig(preset="ldm")
    earlier = Config(recipe="x", name="x", network=network)
    for later, value, matters in (("inter_coder_at", "block", True), ("conditioning", "attention", False), ("denoiser_patch", 2, False)):
        assert later in asdict(network)
        assert later not in comparable(earlier)["network"]
        assert later not in fingerprint(earlier, CITYSCAPES19)["network"]
        other = replace(earlier, network=replace(network, **{later: value}))
        assert fingerprint(other, CITYSCAPES19) != fingerprint(earlier, CITYSCAPES19)
        assert (source_key(other, CITYSCAPES19.names) != source_key(earlier, CITYSCAPES19.names)) == matters

    views = replace(earlier.augmentation, target_scale_min=0.7)
    assert "target_scale_min" not in comparable(earlier)["augmentation"]
    assert fingerprint(replace(earlier, augmentation=views), CITYSCAPES19) != fingerprint(earlier, CITYSCAPES19)
    # Earlier runs stretched their pictures: one is gone on from with --size.keep_aspect false alone.
    assert "keep_aspect" not in comparable(replace(earlier, size=WorkingSize(keep_aspect=False)))["size"]
    assert fingerprint(earlier, CITYSCAPES19)["size"]["keep_aspect"] is True
    assert comparable(earlier)["evaluation"].keys().isdisjoint({"scales", "flip"})
    lent = replace(earlier.augmentation, style_probability=0.0)
    assert "style_probability" not in comparable(earlier)["augmentation"]
    assert fingerprint(replace(earlier, augmentation=lent), CITYSCAPES19) != fingerprint(earlier, CITYSCAPES19)


def test_the_record_of_single_pictures_sums_to_the_score(finished: Path) -> None:
    told = json.loads((finished / "summary.json").read_text())["stages"]["step1"]
    record = Record.load(finished / "confusions" / "step1.npz")
    assert len(record.names) == 2
    total = record.confusions[0]
    total.merge(record.confusions[1])
    assert total.scores(CITYSCAPES19).miou == pytest.approx(told["miou"])
    assert told["parameters"] > 1000
    assert told["milliseconds_per_image"] > 0
    assert told["processor_milliseconds_per_image"] > 0
