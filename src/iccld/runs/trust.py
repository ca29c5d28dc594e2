"""How good is a run where there are no labels?  Load its stages, let them look at source and target, and judge."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from iccld.assembly.objects import Data, open_data
from iccld.assembly.scoring import Asked
from iccld.config import Config, read_config
from iccld.data import FileDataset, open_dataset
from iccld.data.check import class_shares
from iccld.data.images import FULL_RANGE
from iccld.errors import DataError
from iccld.evaluation.evaluate import spread
from iccld.evaluation.unlabelled import judge
from iccld.evaluation.unlabelled.seen import Seen, joined
from iccld.labels import get_label_space
from iccld.measure.looking import LOOKS, look
from iccld.methods.common.protocol import SOURCE
from iccld.predictor import Predictor
from iccld.runs.data import read_ranges
from iccld.runs.load import CONFIG, LABEL_SPACE, load_with_standing
from iccld.training import checkpoint

PICTURES = 64
"""Target pictures that are looked at, evenly spread."""
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
    assert data.source_val is not None
    target = data.target if pictures is None else pictures
    predictors = stage_predictors(run, config, device)
    main = list(predictors)[-1 if "model" not in predictors else -2]
    labelled, seen = look_around(predictors, main, data.source_val, target, data.target, num)
    told = judge(labelled, seen, [name for name in predictors if name != "model"], class_shares(data.source)).told(data.label_space.names)
    return {"data": str(target.root), "pictures": seen.num_pictures, **told}


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
        found[SOURCE] = _lent_source(Path(config.source_checkpoint), run, device)
    weights = ""
    for stage in order:
        found[stage], standing = load_with_standing(run, stage, device=device)
        weights = standing.weights
    if weights == "ema":
        found["model"] = load_with_standing(run, order[-1], "model", device=device)[0]
    return found


def _lent_source(given: Path, run: Path, device: str) -> Predictor:
    """The source stage of another run, which this one started from."""
    folder = next(each for each in (given, *given.parents) if (each / CONFIG).is_file())
    return load_with_standing(folder, SOURCE, device=device, asked=Asked())[0]


def look_around(
    predictors: dict[str, Predictor], main: str, held_out: FileDataset, pictures: FileDataset, styles: FileDataset, num: int = PICTURES
) -> tuple[Seen, Seen]:
    """Held-out source pictures in every look, with labels, and the pictures that are judged, without."""
    indices = spread(len(held_out), HELD_OUT)
    labelled = [
        look(predictors, main, held_out, indices, change=change, styles=styles, labels=True, seed=1, title=f"Looking at the source, {name}")
        for name, change in LOOKS.items()
    ]
    return joined(labelled), look(predictors, main, pictures, spread(len(pictures), num), title="Looking at the target")
