"""Read a run directory as it lies on disk, finished or not, into plain records.  Nothing here needs torch."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from iccld.errors import CheckpointError

Json = dict[str, Any]

# The order of telling where a run gives none; any other stage follows in order of appearance.
KNOWN_STAGES = ("source", "warmup", "stage1", "step1", "stage2", "step2", "stage3")
STAGES_OF_ICCLD = ("source", "step1", "step2")


def number(value: object) -> float | None:
    """The value as a finite float, or None: a missing, null, NaN or textual figure is never drawn as a number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def mapping(value: object) -> Json:
    """The value if it is a mapping, otherwise an empty one (unfinished runs hold nulls)."""
    return dict(value) if isinstance(value, Mapping) else {}


def stage_title(name: str) -> str:
    """A stage's name as people say it: `step1` -> `Step 1`, `step1_control` -> `Step 1 control`."""
    words = re.sub(r"^(step|stage)(?=\d)", r"\1 ", name.replace("_", " "))
    return words[:1].upper() + words[1:]


@dataclass(frozen=True)
class Stage:
    """One stage of a run.  training, evaluations: lines of metrics.jsonl by iteration; summary: its part of summary.json."""

    name: str
    training: list[Json]
    evaluations: list[Json]
    summary: Json

    @property
    def title(self) -> str:
        """The name as people say it."""
        return stage_title(self.name)

    @property
    def weights(self) -> str:
        """Which weights this stage's score belongs to: `ema` or `model`."""
        return str(self.summary.get("weights") or "ema")

    def last_evaluation(self, split: str, weights: str) -> Json:
        """The last evaluation on the split with these weights, {} where there is none."""
        for line in reversed(self.evaluations):
            if evaluation_split(line) == split and line["eval"].get("weights", "ema") == weights:
                return mapping(line["eval"])
        return {}

    @property
    def miou(self) -> float | None:
        """mIoU in percent on the validation split after the last iteration; from the metrics where the summary has none."""
        found = number(self.summary.get("miou"))
        return found if found is not None else number(self.last_evaluation("val", self.weights).get("miou"))

    @property
    def miou_model(self) -> float | None:
        """The same score of the weights that receive the gradients."""
        found = number(self.summary.get("miou_model"))
        return found if found is not None else number(self.last_evaluation("val", "model").get("miou"))

    @property
    def iou(self) -> dict[str, float | None]:
        """IoU in percent per class; None for a class in neither truth nor prediction."""
        found = mapping(self.summary.get("iou")) or mapping(self.last_evaluation("val", self.weights).get("iou"))
        return {str(name): number(value) for name, value in found.items()}

    @property
    def best(self) -> tuple[float, int] | None:
        """(mIoU in percent, iteration) of the best checkpoint, where the summary names one."""
        best = mapping(self.summary.get("best"))
        miou, iteration = number(best.get("miou")), number(best.get("iteration"))
        return None if miou is None or iteration is None else (miou, int(iteration))

    @property
    def iterations(self) -> int | None:
        """Updates done, or reached so far."""
        found = number(self.summary.get("iterations"))
        if found is None and self.training:
            found = number(self.training[-1].get("iteration"))
        return None if found is None else int(found)

    @property
    def seconds(self) -> float | None:
        """Wall-clock seconds of training, or so far."""
        found = number(self.summary.get("seconds"))
        return found if found is not None or not self.training else number(self.training[-1].get("time"))

    @property
    def source_validation(self) -> float | None:
        """Last mIoU in percent on held-out labelled source images."""
        for weights in (self.weights, "ema", "model"):
            found = number(self.last_evaluation("source_val", weights).get("miou"))
            if found is not None:
                return found
        return None

    @property
    def is_control(self) -> bool:
        """Whether this is step 1 trained for step 2's extra iterations."""
        return "control" in self.name


@dataclass(frozen=True)
class Run:
    """Everything the page needs of one run.  notes: what could not be read and what training warned of; projection: by stage."""

    path: Path
    config: Json
    config_text: str
    environment: Json
    summary: Json
    stages: list[Stage]
    pictures: Json
    notes: list[str] = field(default_factory=list)
    projection: Json = field(default_factory=dict)

    @property
    def method(self) -> str:
        """The method's name, `unknown method` where neither summary nor configuration gives one."""
        value = self.summary.get("method") or self.config.get("method")
        if isinstance(value, Mapping):
            value = value.get("name") or value.get("class_path")
        return str(value) if value else "unknown method"

    @property
    def main_stages(self) -> list[Stage]:
        """The stages of the story, without the control."""
        return [stage for stage in self.stages if not stage.is_control]

    @property
    def scored_stages(self) -> list[Stage]:
        """The stages of the story that have a score on the target."""
        return [stage for stage in self.main_stages if stage.miou is not None]

    @property
    def missing_stages(self) -> list[str]:
        """Stages this method has and this run has not finished."""
        finished = {stage.name for stage in self.stages if stage.summary}
        started = {stage.name for stage in self.stages}
        planned = mapping(self.config.get("stages"))
        expected: tuple[str, ...] = STAGES_OF_ICCLD if self.method.startswith("iccld") else tuple(started)
        expected = tuple(name for name in expected if name not in planned or number(mapping(planned[name]).get("iterations")) != 0)
        return [name for name in expected if name not in finished]

    @property
    def is_complete(self) -> bool:
        """Whether the summary names a headline and every expected stage."""
        return bool(mapping(self.summary.get("headline"))) and not self.missing_stages

    def section(self, name: str) -> Json:
        """A data section (`source`, `target`, `val`) of the configuration, at its top or under `data`."""
        return mapping(self.config.get(name)) or mapping(mapping(self.config.get("data")).get(name))


def evaluation_split(line: Json) -> str:
    """The split an evaluation line is about (`val` unless it says otherwise)."""
    return str(line["eval"].get("split", "val"))


def read_run(path: Path) -> Run:
    """Read a run directory.  Raises CheckpointError when it is none; an unfinished one gives what there is, with notes."""
    config_file = path / "config.yaml"
    if not config_file.is_file():
        raise CheckpointError(f"{path} is not a run: no config.yaml in it; give the folder that `iccld adapt` or `iccld demo` wrote")
    notes: list[str] = []
    config_text = config_file.read_text(encoding="utf-8", errors="replace")
    try:
        config = mapping(yaml.safe_load(config_text))
    except yaml.YAMLError:
        config = {}
        notes.append("config.yaml is not valid YAML; it is shown as it is, and what was adapted to what is not known.")
    summary = _read_json(path / "summary.json", notes)
    training, evaluations = _read_metrics(path / "metrics.jsonl", notes)
    pictures = _read_json(path / "pictures" / "index.json", notes)
    projection = _read_json(path / "projection.json", notes)
    parts = mapping(summary.get("stages"))
    stages = [
        Stage(name, training.get(name, []), evaluations.get(name, []), mapping(parts.get(name)))
        for name in _ordered([*parts, *training, *evaluations])
    ]
    return Run(path, config, config_text, _read_json(path / "environment.json", notes), summary, stages, pictures, notes, projection)


def _ordered(names: Iterable[str]) -> list[str]:
    unique = list(dict.fromkeys(str(name) for name in names))
    return sorted(unique, key=lambda name: KNOWN_STAGES.index(name) if name in KNOWN_STAGES else len(KNOWN_STAGES) + unique.index(name))


def _read_json(path: Path, notes: list[str]) -> Json:
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        notes.append(f"{path.name} could not be read ({type(error).__name__}) and is left out.")
        return {}
    return mapping(found)


def _read_metrics(path: Path, notes: list[str]) -> tuple[dict[str, list[Json]], dict[str, list[Json]]]:
    """Lines of metrics.jsonl by stage, sorted by iteration.  A resumed run repeats iterations: the later line counts."""
    training: dict[tuple[str, float], Json] = {}
    evaluations: dict[tuple[str, float, str, str], Json] = {}
    num_unreadable = 0
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    for line in filter(str.strip, text.splitlines()):
        try:
            record = mapping(json.loads(line))
        except ValueError:
            record = {}
        iteration = number(record.get("iteration"))
        if iteration is None or "stage" not in record:
            num_unreadable += 1
            continue
        stage = str(record["stage"])
        if record.get("warning"):
            notes.append(f"Warning in {stage_title(stage)}: {record['warning']}.")
            continue
        score = mapping(record.get("eval"))
        if score:
            evaluations[(stage, iteration, str(score.get("split", "val")), str(score.get("weights", "ema")))] = record
        else:
            training[(stage, iteration)] = record
    if num_unreadable:
        lines, verb = ("1 line", "is") if num_unreadable == 1 else (f"{num_unreadable} lines", "are")
        notes.append(f"{lines} of metrics.jsonl could not be read (an interrupted write) and {verb} left out.")
    return _by_stage(training), _by_stage(evaluations)


def _by_stage(records: Mapping[Any, Json]) -> dict[str, list[Json]]:
    stages: dict[str, list[Json]] = {}
    for key in records:
        stages.setdefault(key[0], []).append(records[key])
    for lines in stages.values():
        lines.sort(key=lambda line: float(line["iteration"]))
    return stages
