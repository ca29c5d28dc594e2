"""How good is a run where there are no labels?  Load its stages, let them look at source and target, and judge."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from iccld.assembly.objects import Data, open_data
from iccld.config import Config, read_config
from iccld.data import FileDataset, open_dataset
from iccld.data.check import class_shares
from iccld.data.images import FULL_RANGE
from iccld.errors import DataError
from iccld.evaluation.evaluate import spread
from iccld.evaluation.unlabelled import judge, judged_voice, preferred
from iccld.evaluation.unlabelled.seen import Seen, joined
from iccld.labels import get_label_space
from iccld.measure.looking import LOOKS, look
from iccld.methods.common.protocol import SOURCE
from iccld.predictor import Predictor
from iccld.runs.base import CONFIG, LABEL_SPACE
from iccld.runs.data import read_ranges
from iccld.runs.load import Standing, load_with_standing
from iccld.training import checkpoint

PICTURES = 64
"""Target pictures that are looked at, evenly spread."""
MODEL = "model"
"""The voice of the last stage's trained weights."""
HELD_OUT = 24
"""Held-out source pictures, each in every look."""


def judge_run(run: Path, pictures: FileDataset | None = None, *, num: int = PICTURES, device: str = "auto") -> dict[str, Any]:
    """Judge a run's stages on pictures without labels, by default its target; what summary.json says under `trust`.

    The source's held-out pictures are the labelled ones, so `source.holdout` has to be above 0: DataError where it is not.
    """
    config = read_config(run / CONFIG)
    refuse_without_holdout(run, config)
    return judge_data(run, config, open_data(config, read_ranges(run), tells=False), pictures, num=num, device=device)


def judge_data(
    run: Path, config: Config, data: Data, pictures: FileDataset | None = None, *, num: int = PICTURES, device: str = "auto"
) -> dict[str, Any]:
    """`judge_run` with the run's data, of which some source pictures are held out, at hand."""
    target = data.target if pictures is None else pictures
    predictors = stage_predictors(run, config, device)
    stages = [name for name in predictors if name != MODEL]
    labelled, seen = look_around(predictors, stages[-1], data, target, num)
    told = judge(labelled, seen, stages, class_shares(data.source)).told(data.label_space.names)
    return {"data": str(target.root), "pictures": seen.num_pictures, **told}


def judge_checkpoints(
    run: Path, pictures: FileDataset | None = None, stage: str | None = None, *, num: int = PICTURES, device: str = "auto"
) -> dict[str, Any]:
    """Estimate every checkpoint that a stage has kept, by default the last stage, and name the one that is `preferred`.

    {"stage", "checkpoints": [{"iteration", "pixel_accuracy", "miou"}], "best": iteration}, in percent, beside "data" and "pictures".
    """
    config = read_config(run / CONFIG)
    refuse_without_holdout(run, config)
    data = open_data(config, read_ranges(run), tells=False)
    target = data.target if pictures is None else pictures
    stage = stage or checkpoint.find(run).parent.name
    kept = checkpoint_predictors(run, stage, device)
    before = {name: each for name, each in stage_predictors(run, config, device).items() if name not in (stage, MODEL)}
    voices = before | {str(iteration): each for iteration, each in kept.items()}
    labelled, seen = look_around(voices, str(max(kept)), data, target, num)
    anchor = next(iter(voices))  # the stage before, or the first checkpoint of the first stage
    scores = {iteration: judged_voice(labelled, seen, str(iteration), anchor).scores() for iteration in kept}
    told = [{"iteration": each, "pixel_accuracy": round(scores[each][0], 2), "miou": round(scores[each][1], 2)} for each in scores]
    best = preferred({iteration: miou for iteration, (_, miou) in scores.items()})
    return {"data": str(target.root), "pictures": seen.num_pictures, "stage": stage, "checkpoints": told, "best": best}


def checkpoint_predictors(run: Path, stage: str, device: str = "auto") -> dict[int, Predictor]:
    """The headline predictor of each whole checkpoint of a stage, by iteration."""
    found = checkpoint.iterations(checkpoint.stage_directory(run, stage))
    return {iteration: load_with_standing(run, stage, device=device, iteration=iteration)[0] for iteration in found}


def refuse_without_holdout(run: Path, config: Config) -> None:
    """DataError for a run that kept no source pictures out of its training."""
    if config.source.holdout == 0:
        what = "an estimate needs labelled source pictures that no training saw, and source.holdout is 0"
        raise DataError(f"{run}: {what}; train with --source.holdout 48, for example")


def open_pictures(run: Path, config: Config, folder: Path, form: str = "auto", split: str | None = None) -> FileDataset:
    """A folder's pictures without their masks, 16-bit values read as the run's target's."""
    space = get_label_space(run / LABEL_SPACE if (run / LABEL_SPACE).is_file() else config.label_space)
    pictures = open_dataset(folder, form, split or "val", space, labels=False, is_asked=split is not None)
    return replace(pictures, wide=(read_ranges(run) or {}).get("target", FULL_RANGE))


def stage_predictors(run: Path, config: Config, device: str = "auto") -> dict[str, Predictor]:
    """The headline predictor of each stage in order, then `model`, the trained weights of the last where it has an average."""
    saved = {path.parts[-3] for path in (run / "checkpoints").glob("*/*/manifest.json")}
    order = sorted(saved, key=lambda name: checkpoint.order_of(checkpoint.stage_directory(run, name)))
    found: dict[str, Predictor] = {}
    if SOURCE not in saved and config.source_checkpoint is not None and Path(config.source_checkpoint).is_dir():
        given = Path(config.source_checkpoint)
        folder = next((each for each in (given, *given.parents) if (each / CONFIG).is_file()), None)
        if folder is not None and checkpoint.iterations(checkpoint.stage_directory(folder, SOURCE)):
            found[SOURCE] = load_with_standing(folder, SOURCE, device=device)[0]
    weights = ""
    for stage in order:
        found[stage], standing = load_with_standing(run, stage, device=device)
        weights = standing.weights
    if weights == "ema":
        found[MODEL] = load_with_standing(run, order[-1], "model", device=device)[0]
    return found


def other_predictors(run: Path, standing: Standing, device: str = "auto") -> list[Predictor]:
    """What a loaded stage may disagree with: the run's first stage and the trained weights beside the average, where there are such."""
    config = read_config(run / CONFIG)
    every = stage_predictors(run, config, device)
    first = next(iter(every))
    return [every[name] for name in (first, MODEL) if name in every and name != standing.stage]


def look_around(
    predictors: Mapping[str, Predictor], main: str, data: Data, pictures: FileDataset, num: int = PICTURES
) -> tuple[Seen, Seen]:
    """Held-out source pictures in every look, with labels, and the pictures that are judged, without."""
    held_out = data.source_val
    assert held_out is not None
    indices = spread(len(held_out), HELD_OUT)
    labelled = []
    for name, change in LOOKS.items():
        title = f"Looking at the source, {name}"
        labelled.append(look(predictors, main, held_out, indices, change=change, styles=data.target, labels=True, seed=1, title=title))
    return joined(labelled), look(predictors, main, pictures, spread(len(pictures), num), title="Looking at the target")
