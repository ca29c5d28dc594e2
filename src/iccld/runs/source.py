"""A stage, usually `source`, that was trained once, in a run of its own, and from which any number of runs start."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from iccld.config import Config, comparable
from iccld.errors import CheckpointError
from iccld.methods.common.protocol import SOURCE, Method, Stage
from iccld.training import checkpoint, snapshot
from iccld.training.engine import Engine

WEIGHTS = ("model.safetensors", "ema.safetensors")


@dataclass(frozen=True)
class TrainedSource:
    """A finished stage on the disk.  sha256: of each of its files of weights.  told: what is said of it and those before it."""

    path: Path
    sha256: Mapping[str, str]
    told: Mapping[str, Mapping[str, Any]]

    @property
    def reference(self) -> dict[str, Any]:
        """What the summary of a run that starts from it says."""
        return {"path": str(self.path), "sha256": dict(self.sha256)}


def source_key(config: Config, classes: Sequence[str]) -> str:
    """Twelve hexadecimal digits of everything that the source stage depends on: data, network, schedule, seed, classes."""
    kept = comparable(config)
    for name in ("recipe", "name", "method", "settings", "runtime", "evaluation", "val", "source_checkpoint", "checkpoint_stage"):
        kept.pop(name, None)
    for name in ("conditioning", "denoiser_patch"):  # the source stage has no denoiser
        kept["network"].pop(name, None)
    kept["augmentation"].pop("style_probability", None)  # and lends no colours
    kept["stages"] = kept["stages"][SOURCE]
    kept["devices"] = config.runtime.devices
    kept["classes"] = list(classes)
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:12]


def find_source(given: Path, classes: Sequence[str], stage: str = SOURCE) -> TrainedSource:
    """The finished stage of a run, or the checkpoint given itself; CheckpointError when it is neither, or of other classes."""
    path = checkpoint.find(given, stage)
    manifest = checkpoint.verify(path)
    if manifest["stage"] != stage:
        raise CheckpointError(f"{given}: is a checkpoint of stage {manifest['stage']!r}; source_checkpoint takes one of stage {stage!r}")
    trained_for = list(manifest["fingerprint"].get("classes", classes))
    if trained_for != list(classes):
        raise CheckpointError(f"{given}: was trained for the classes {trained_for}, this run has {list(classes)}; choose one label space")
    told: dict[str, Any] = {}
    if path != given:
        told = _told_up_to(given, stage)
        if told.get(stage, {}).get("iterations") != manifest["iteration"]:
            raise CheckpointError(
                f"{given}: its stage {stage} is not finished; go on with iccld adapt --config {given}/config.yaml --resume auto"
            )
    return TrainedSource(path, {name: manifest["files"][name]["sha256"] for name in WEIGHTS}, told)


def restored_source(stage: Stage, trained: TrainedSource, engine: Engine) -> Method:
    """The finished method of the stage that is started from, with the checkpoint's weights, on the engine's device."""
    method = stage.make_method(None)
    snapshot.restore_networks(method, checkpoint.load(trained.path))
    for network in (*method.networks().values(), *method.ema_networks().values()):
        engine.place(network)
    return method


def _told_up_to(run: Path, stage: str) -> dict[str, dict[str, Any]]:
    """What summary.json says of the stages up to this one; it says so of each that has been trained and scored."""
    try:
        told: dict[str, Any] = json.loads((run / "summary.json").read_text(encoding="utf-8"))["stages"]
        return {name: dict(told[name]) for name in list(told)[: list(told).index(stage) + 1]}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
