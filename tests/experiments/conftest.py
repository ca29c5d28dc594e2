"""Run directories written by hand, so that tables can be checked against hand-computed numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from iccld.city import generate
from iccld.cli import main
from iccld.evaluation import Confusion, Record
from iccld.experiments import experiment
from iccld.experiments.units import Unit, is_finished

NAMES = ("road", "sky")
SIZE = (64, 96)


def record(hits: Sequence[tuple[int, int]]) -> Record:
    """Pictures of ten road and ten sky pixels, of which so many are right; the others are taken for the other class."""
    made = Record()
    for i, (road, sky) in enumerate(hits):
        single = Confusion(2)
        single.matrix += np.array([[road, 10 - road, 0], [10 - sky, sky, 0]])
        single.num_images = 1
        made.add(f"picture {i}", single, np.zeros((1, 1), dtype=np.uint8))
    return made


def miou(hits: Sequence[tuple[int, int]]) -> float:
    """mIoU in percent of `record(hits)`, by hand: IoU = right / (10 n + wrong of the other class)."""
    total, road, sky = 10 * len(hits), sum(hit[0] for hit in hits), sum(hit[1] for hit in hits)
    return 50 * (road / (total + total - sky) + sky / (total + total - road))


def write_run(run: Path, stages: Mapping[str, Sequence[tuple[int, int]]], **changes: Any) -> Path:
    """A finished run of these stages, each with what it got right in every picture; 10 iterations and 60 seconds a stage.

    The averaged weights score as given, the trained ones 2 points less.
    """
    told, lines = {}, []
    for stage, hits in stages.items():
        record(hits).save(run / "confusions" / f"{stage}.npz")
        score = miou(hits)
        for weights, lag in (("ema", 0), ("model", 2)):
            lines.append({"stage": stage, "iteration": 10, "eval": {"split": "val", "weights": weights, "miou": score - lag, "iou": {}}})
        told[stage] = {
            "miou": score,
            "iou": {"road": score, "sky": score},
            "means": {},
            "weights": "ema",
            "best": {"miou": score + 1, "iteration": 5},
            "iterations": 10,
            "seconds": 60.0,
            "peak_memory_gib": 1.5,
            "parameters": 2_000_000,
            "milliseconds_per_image": 4.0,
            **changes,
        }
    summary = {
        "method": "iccld",
        "recipe": "r",
        "commit": "c0ffee",
        "dirty": False,
        "label_space": "two",
        "protocol": {"num_images": len(hits)},
        "headline": {"stage": stage, "weights": "ema", "miou": score},
        "stages": told,
    }
    (run / "config.yaml").write_text("method: iccld\n", encoding="utf-8")
    (run / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
    (run / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    return run


@pytest.fixture
def by_hand() -> Any:
    """The functions above, for test modules that pytest imports without a package."""

    class Functions:
        write_run = staticmethod(write_run)
        miou = staticmethod(miou)

    return Functions


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ICCLD_CACHE", str(tmp_path_factory.mktemp("cache")))
        torch.set_num_threads(1)
        yield


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory, cache: None) -> Path:
    """A recipe file of three tiny stages; `settings.sampler_steps` is one that iccld alone has."""
    root = tmp_path_factory.mktemp("recipe")
    drawn = (("sim", "gta5", 6, 1, "train"), ("camera", "cityscapes", 4, 2, "train"), ("camera", "cityscapes", 3, 3, "val"))
    source, target, val = (generate(w, layout, num, SIZE, seed, root / f"data{seed}", 1, split) for w, layout, num, seed, split in drawn)
    settings: dict[str, Any] = {
        "batch_size": 2,
        "source": {"path": str(source), "format": "gta5"},
        "target": {"path": str(target), "format": "cityscapes"},
        "val": {"path": str(val), "format": "cityscapes", "split": "val"},
        "size": {"source": "64x96", "target": "64x96", "crop": "32x64"},
        "network": {"widths": [8, 8, 16, 16, 16], "latent_channels": 8, "decoder_width": 16, "denoiser_widths": [16, 16]},
        "stages": {"source": {"iterations": 2}, "step1": {"iterations": 2}, "step2": {"iterations": 1}},
        "evaluation": {"compare_images": 0, "num_pictures": 1},
        "runtime": {"log_every": 1, "threads": 1, "precision": "fp32"},
    }
    (root / "tiny.yaml").write_text(yaml.safe_dump(settings))
    return root / "tiny.yaml"


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Train in this process, which saves the start of one for every run; returns the names of the units that were trained."""
    trained: list[str] = []

    def run_here(units: Sequence[Unit], out: Path, jobs: int) -> dict[str, str]:
        failures = {}
        for unit in units:
            if is_finished(unit):
                continue
            trained.append(unit.name)
            file = out / f"{unit.name}.yaml"
            file.write_text(unit.config)
            code = main(["adapt", "--config", str(file), "--resume", "auto", "--no_estimate"])
            if code:
                failures[unit.name] = f"exit code {code}"
        return failures

    monkeypatch.setattr(experiment, "run_units", run_here)
    return trained
