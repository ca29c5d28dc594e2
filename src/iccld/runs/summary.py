"""What a run's folder says of the run beside its checkpoints: configuration, environment, summary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from iccld.assembly.networks import keep_architecture, pretrained_weights
from iccld.assembly.objects import Data
from iccld.config import Config, dump_config, parse_size
from iccld.evaluation import convention_of
from iccld.files import read_json, write_atomically, write_json
from iccld.labels import LABEL_SPACES
from iccld.progress import say
from iccld.runs.base import CONFIG, LABEL_SPACE
from iccld.runs.data import RANGES
from iccld.runs.provenance import environment
from iccld.runs.source import TrainedSource
from iccld.training.engine import Engine

SUMMARY, ENVIRONMENT = "summary.json", "environment.json"


class Summary:
    """summary.json: begun before anything is trained, and written anew whenever a stage has been trained and scored."""

    def __init__(self, path: Path, content: dict[str, Any]) -> None:
        self.path, self.content = path, content

    def tell(self, stage: str, told: Mapping[str, Any]) -> None:
        """Add a stage, which is the headline from then on, and say its score.  What stands here needs no scoring again."""
        self.content["stages"][stage] = dict(told)
        self.content["headline"] = {"stage": stage, "weights": told["weights"], "miou": told["miou"]}
        write_json(self.path, self.content, durable="folder")
        if told["miou"] is not None:
            count = self.content["protocol"]["num_images"]
            say(f"{stage}: {told['miou']:.2f} mIoU on {count} validation pictures ({told['weights']} weights)")
        elif "source_validation" in told:
            say(f"{stage}: {told['source_validation']['miou']:.2f} mIoU on held-out source pictures; the target has no labels")

    def tell_trust(self, told: Mapping[str, Any]) -> None:
        """What is known of the target without labels (docs/trust.md)."""
        self.content["trust"] = dict(told)
        write_json(self.path, self.content, durable="folder")
        if (gain := told.get("gain")) is not None:
            miou = gain["miou"]
            words = f"mIoU changed by {miou['value']:+.1f} ({miou['low']:+.1f} to {miou['high']:+.1f})"
            helped = "unknown, since the interval holds 0" if gain["answer"] == "unknown" else gain["answer"]
            say(f"estimated without labels, from {gain['from']} to {gain['to']}: {words}; did adaptation help: {helped}")

    def tell_skipped(self, names: Mapping[str, Sequence[str]]) -> None:
        """Domain -> the pictures that could not be read and were left out."""
        self.content["skipped_pictures"] = {role: list(listed) for role, listed in names.items()}
        write_json(self.path, self.content, durable="folder")


def stages_told(run: Path) -> dict[str, Any]:
    """What summary.json says of each stage that an earlier start of the run trained and scored."""
    stages: dict[str, Any] = read_json(run / SUMMARY).get("stages") or {}
    return stages


def open_folder(config: Config, engine: Engine, run: Path, data: Data, source: TrainedSource | None, is_trained: bool) -> Summary:
    """Write what tells how the run was made, and everything that reading it needs beside weights; returns its summary, not yet written.

    is_trained: whether every stage was trained and scored before; where and how that was stays as it is told.
    """
    before = read_json(run / SUMMARY) if is_trained else {}
    protocol = before.get("protocol") or protocol_of(config, data)  # before CONFIG: a refusal leaves nothing
    write_atomically(run / CONFIG, dump_config(config))
    write_json(run / RANGES, {"source": data.source.wide, "target": data.target.wide}, indent=None)
    if config.label_space not in LABEL_SPACES:
        write_atomically(run / LABEL_SPACE, Path(config.label_space).read_bytes())
    keep_architecture(config.network, run)
    made = environment(engine.device.type, *engine.format)
    earlier = read_json(run / ENVIRONMENT)
    begins = source is None and not earlier  # a run that goes on needs neither package nor hub
    made["pretrained"] = pretrained_weights(config.network) if begins else earlier.get("pretrained", {})
    if before:
        made = earlier or made
    write_json(run / ENVIRONMENT, made)
    content: dict[str, Any] = {
        "method": config.method,
        "recipe": config.recipe,
        "seed": config.seed,
        "commit": made["commit"],
        "dirty": made["dirty"],
        "label_space": data.label_space.name,
        "protocol": protocol,
        "headline": None,
        "stages": {},
    }
    if source is not None:
        content["source_checkpoint"] = source.reference
        content["stages"] = {name: dict(told) for name, told in source.told.items()}
    if "trust" in before:
        content["trust"] = before["trust"]
    return Summary(run / SUMMARY, content)


def protocol_of(config: Config, data: Data) -> dict[str, Any]:
    """What the run is scored on, and how."""
    val, window = data.val, config.evaluation.window
    ceiling = {"ceiling": "learnt from the target's labels"} if config.target.truth else {}
    return {
        "ground_truth_size": [0, 0] if val is None else list(val.read_image(0).shape[:2]),
        "window": window if window == "whole" else {"size": list(parse_size(window)), "stride": config.evaluation.stride},
        "scales": list(config.evaluation.scales),
        "flip": config.evaluation.flip,
        "split": None if val is None else config.val.split,
        "num_images": 0 if val is None else len(val),
        "convention": convention_of(data.label_space),
        **ceiling,
    }
