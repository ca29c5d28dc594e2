"""A tiny data set of each domain and one finished run, shared by the tests of the rooms around a run."""

from __future__ import annotations

import copy
import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import yaml

from iccld import measure
from iccld.city import generate
from iccld.cli import main

SIZE = (64, 96)
STAGES = ("source", "step1", "step2")
TENSORS = ("model.safetensors", "ema.safetensors", "optimizer.safetensors")


class Folders(NamedTuple):
    """Generated scenes: labelled `sim`, and `camera` to adapt to and to score on."""

    source: Path
    target: Path
    val: Path


class Workshop:
    """Writes configurations of tiny runs and trains them through the command."""

    def __init__(self, root: Path, data: Folders) -> None:
        self.root, self.data, self.runs = root, data, root / "runs"
        self.settings: dict[str, Any] = {
            "batch_size": 2,
            "source": {"path": str(data.source), "format": "gta5", "holdout": 2},
            "target": {"path": str(data.target), "format": "cityscapes"},
            "val": {"path": str(data.val), "format": "cityscapes", "split": "val"},
            "size": {"source": "64x96", "target": "64x96", "crop": "32x64"},
            "network": {"widths": [8, 8, 16, 16, 16], "latent_channels": 8, "decoder_width": 16, "denoiser_widths": [16, 16]},
            "stages": {"source": {"iterations": 3}, "step1": {"iterations": 3}, "step2": {"iterations": 3}},
            "evaluation": {"compare_steps": [1, 2], "num_pictures": 2},
            "runtime": {"out": str(self.runs), "log_every": 2, "threads": 1, "precision": "fp32"},
        }

    def adapt(self, name: str, changes: dict[str, Any] | None = None, *arguments: str) -> int:
        """The exit code of `iccld adapt` with the shared settings, whole sections of them replaced."""
        file = self.root / f"{name}.yaml"
        self.write(file, changes)
        return main(["adapt", "--config", str(file), *arguments])

    def write(self, file: Path, changes: dict[str, Any] | None = None) -> None:
        """The shared settings as a configuration file, whole sections of them replaced.

        Scores are not estimated without labels unless a test asks for it: that would take a third of a tiny run's time.
        """
        told = {**copy.deepcopy(self.settings), **(changes or {})}
        told["evaluation"] = {"estimate_pictures": 0, **told["evaluation"]}
        file.write_text(yaml.safe_dump(told), encoding="utf-8")

    def digests(self, name: str, stages: tuple[str, ...] = STAGES) -> dict[str, str]:
        """SHA-256 of every tensor file of each stage's last checkpoint."""
        found = {}
        for stage in stages:
            folder = max((self.runs / name / "checkpoints" / stage).iterdir())
            found |= {f"{stage}/{folder.name}/{file}": hashlib.sha256((folder / file).read_bytes()).hexdigest() for file in TENSORS}
        return found


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    root = tmp_path_factory.mktemp("workshop")
    drawn = (("sim", "gta5", 8, 1, "train"), ("camera", "cityscapes", 6, 2, "train"), ("camera", "cityscapes", 2, 3, "val"))
    folders = [generate(w, layout, num, SIZE, seed, root / f"data{seed}", 1, split) for w, layout, num, seed, split in drawn]
    return Workshop(root, Folders(*folders))


@pytest.fixture(autouse=True, scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Class statistics and generated scenes go to a folder of their own."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("ICCLD_CACHE", str(folder))
        yield folder


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def no_estimate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the timed steps, which take as long as a tiny run."""
    monkeypatch.setattr(measure, "estimate", lambda config: {})


@pytest.fixture(scope="session")
def finished(workshop: Workshop) -> Path:
    """A run of all three stages with source validation, a labelled target clip and estimates; nothing may be trained into it."""
    assert workshop.adapt("straight", {"evaluation": {**workshop.settings["evaluation"], "estimate_pictures": 64}}) == 0
    return workshop.runs / "straight"
