"""How far off are estimates without labels?  Finished runs whose validation pictures have labels, judged as if they had none.

    python benchmarks/label_free.py RUN... --keep FOLDER [--num 64]

RUN: a run with source.holdout above 0 and labelled `val` pictures.  What the networks say is kept in FOLDER, one file a run, so that the
script goes on where it stopped and the table is made again in seconds.  Every line stands beside its truth: scores of the whole validation
split (confusions/ and metrics.jsonl of the run).  Checkpoints of the last stage are compared where the run has kept and scored several.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from iccld.assembly.objects import Data, open_data
from iccld.config import read_config
from iccld.data.check import class_shares
from iccld.evaluation import Confusion, Record, evaluate
from iccld.evaluation.unlabelled import Judgement, Seen, judge, judged_voice, preferred
from iccld.methods.common.protocol import SOURCE
from iccld.predictor import Predictor
from iccld.runs.data import read_ranges
from iccld.runs.trust import MODEL, checkpoint_predictors, look_around, stage_predictors
from iccld.training import checkpoint

OTHERS = ("average_confidence", "calibrated_confidence", "average_thresholded_confidence", "agreement_on_the_line")
AIM = (3.0, 5.0)
"""Points of pixel accuracy and of mIoU within which an estimate should be."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--keep", type=Path, required=True)
    parser.add_argument("--num", type=int, default=64)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    rows, answers, choices = [], [], []
    for run in asked.runs:
        seen = looked(run, asked.keep, asked.num)
        told = judged(seen)
        truths = {name: (float(pair[0]), float(pair[1])) for name, pair in seen["truth"].items()}
        rows += stage_rows(run.name, told, truths)
        if len(truths) > 1:
            answers.append(answered(run.name, told, truths))
        if (choice := chosen(run, seen)) is not None:
            choices.append(choice)
    print_rows(rows)
    print_answers(answers)
    print_choices(choices)


def looked(run: Path, keep: Path, num: int) -> dict[str, Any]:
    """What the run's networks say of held-out source and of validation pictures, from the kept file where it is there."""
    file = keep / f"{run.parent.name}-{run.name}-{num}.pt"
    if file.is_file():
        kept: dict[str, Any] = torch.load(file, weights_only=True)
        return kept
    config = read_config(run / "config.yaml")
    data = open_data(config, read_ranges(run), tells=False)
    assert data.val is not None, f"{run} has no labelled validation pictures"
    predictors = stage_predictors(run, config)
    stages = [name for name in predictors if name != MODEL]
    last = checkpoint.find(run).parent.name
    scored = scored_iterations(run, last)
    earlier = {str(n): each for n, each in checkpoint_predictors(run, last).items() if n in scored}
    newest = str(max(map(int, earlier), default=0))
    earlier.pop(newest, None)  # it is the stage's own voice
    parts = look_around({**predictors, **earlier}, stages[-1], data, data.val, num)
    found = {
        "stages": stages,
        "truth": {name: true_scores(run, name, predictors[name], data) for name in stages},
        "checkpoints": list(earlier),
        "newest": newest,
        "shares": list(class_shares(data.source)),
        **{role: plain(part) for role, part in zip(("labelled", "target"), parts, strict=True)},
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save(found, file)
    return found


def plain(seen: Seen) -> dict[str, Any]:
    return {"voices": {name: said.half() for name, said in seen.voices.items()}, "picture": seen.picture, "truth": seen.truth}


def seen_by(kept: dict[str, Any], role: str, voices: list[str] | None = None) -> Seen:
    """The kept pixels, of some voices alone."""
    part = kept[role]
    said = {name: each.float().log_softmax(1) for name, each in part["voices"].items() if voices is None or name in voices}
    return Seen(said, part["picture"], part["truth"])


def judged(kept: dict[str, Any]) -> Judgement:
    """As the run judges itself when it ends: without the voices of its earlier checkpoints."""
    voices = [name for name in kept["target"]["voices"] if name not in kept["checkpoints"]]
    return judge(seen_by(kept, "labelled", voices), seen_by(kept, "target", voices), kept["stages"], kept["shares"])


def true_scores(run: Path, stage: str, predictor: Predictor, data: Data) -> tuple[float, float]:
    """(pixel accuracy, mIoU) of the whole validation split with its labels, in percent; a stage that no run has scored is scored here."""
    whole = Confusion(data.label_space.num_classes)
    place = run / "confusions" / f"{stage}.npz"
    if not place.is_file() and stage == SOURCE:
        place = shared_source(run) / "confusions" / f"{stage}.npz"
    if place.is_file():
        for single in Record.load(place).confusions:
            whole.merge(single)
        scores = whole.scores(data.label_space)
    else:
        assert data.val is not None
        scores = evaluate(predictor, data.val, data.label_space, title=f"Scoring {stage}")
    return scores.pixel_accuracy, scores.miou


def shared_source(run: Path) -> Path:
    """The run whose source stage a run started from; the run itself where it trained its own."""
    given = read_config(run / "config.yaml").source_checkpoint
    return run if given is None else next((each for each in (Path(given), *Path(given).parents) if (each / "confusions").is_dir()), run)


def scored_iterations(run: Path, stage: str) -> dict[int, float]:
    """Iteration -> mIoU with labels of the headline weights, where the training scored them."""
    found = {}
    for line in (run / "metrics.jsonl").read_text().splitlines():
        record = json.loads(line)
        told = record.get("eval", {})
        if record["stage"] == stage and told.get("split") == "val" and told.get("weights") == "ema":
            found[int(record["iteration"])] = float(told["miou"])
    return found


def stage_rows(run: str, told: Judgement, truths: dict[str, tuple[float, float]]) -> list[dict[str, Any]]:
    rows = []
    for stage, judged_stage in told.stages.items():
        accuracy, miou = told.figures(stage)
        rows.append({"run": run, "stage": stage, "truth": truths[stage], "accuracy": accuracy, "miou": miou, **judged_stage.others})
    return rows


def answered(run: str, told: Judgement, truths: dict[str, tuple[float, float]]) -> dict[str, Any]:
    first, last = next(iter(truths)), list(truths)[-1]
    miou = told.gain(first, last)[1]
    true = truths[last][1] - truths[first][1]
    return {"run": run, "estimate": miou, "truth": true, "right": (miou.value > 0) == (true > 0)}


def chosen(run: Path, kept: dict[str, Any]) -> dict[str, Any] | None:
    """The checkpoint that the estimate prefers beside the one that labels prefer."""
    truth = scored_iterations(run, kept["stages"][-1])
    voices = {kept["newest"]: kept["stages"][-1], **{name: name for name in kept["checkpoints"]}}
    if len(voices) < 2:
        return None
    labelled, target = seen_by(kept, "labelled"), seen_by(kept, "target")
    estimates = {name: judged_voice(labelled, target, voice, kept["stages"][0]).scores()[1] for name, voice in voices.items()}
    taken = str(preferred({int(name): miou for name, miou in estimates.items()}))
    best = max(voices, key=lambda name: truth[int(name)])
    return {
        "run": run.name,
        "preferred": taken,
        "best": best,
        "lost": truth[int(best)] - truth[int(taken)],
        "estimates": estimates,
        "truth": truth,
    }


def print_rows(rows: list[dict[str, Any]]) -> None:
    print("| run | stage | accuracy | estimate | error | mIoU | estimate | error | " + " | ".join(OTHERS) + " |")
    print("|---|---|" + "---:|" * (6 + len(OTHERS)))
    for row in rows:
        (accuracy, miou), a, m = row["truth"], row["accuracy"], row["miou"]
        others = " | ".join(f"{row[name] - accuracy:+.1f}" for name in OTHERS)
        figures = f"{accuracy:.1f} | {a.value:.1f} | {a.value - accuracy:+.1f} | {miou:.1f} | {m.value:.1f} | {m.value - miou:+.1f}"
        print(f"| {row['run']} | {row['stage']} | {figures} | {others} |")
    if rows:
        inside = [sum(row[key].low <= row["truth"][i] <= row[key].high for row in rows) for i, key in enumerate(("accuracy", "miou"))]
        mean = [sum(abs(row[key].value - row["truth"][i]) for row in rows) / len(rows) for i, key in enumerate(("accuracy", "miou"))]
        means = ", ".join(f"{name} {sum(abs(row[name] - row['truth'][0]) for row in rows) / len(rows):.1f}" for name in OTHERS)
        print(f"\nmean absolute error: accuracy {mean[0]:.1f}, mIoU {mean[1]:.1f}; accuracy by the others: {means}")
        print(f"truth inside the interval: accuracy {inside[0]} of {len(rows)}, mIoU {inside[1]} of {len(rows)}")
        near = [sum(abs(row[key].value - row["truth"][i]) <= AIM[i] for row in rows) for i, key in enumerate(("accuracy", "miou"))]
        print(f"within {AIM[0]} points of accuracy: {near[0]} of {len(rows)}; within {AIM[1]} of mIoU: {near[1]} of {len(rows)}\n")


def print_answers(answers: list[dict[str, Any]]) -> None:
    print("| run | gain in mIoU | estimate | interval | right answer |")
    print("|---|---:|---:|---:|---|")
    for each in answers:
        e = each["estimate"]
        right = "yes" if each["right"] else "no"
        print(f"| {each['run']} | {each['truth']:+.1f} | {e.value:+.1f} | {e.low:+.1f} to {e.high:+.1f} | {right} |")
    print(f"\nright answers: {sum(each['right'] for each in answers)} of {len(answers)}")
    small = sum(abs(each["truth"]) < (each["estimate"].high - each["estimate"].low) / 2 for each in answers)
    print(f"true gains smaller than half the interval: {small} of {len(answers)}\n")


def print_choices(choices: list[dict[str, Any]]) -> None:
    print("| run | preferred checkpoint | best with labels | mIoU lost | mIoU lost by the last | estimates | truth |")
    print("|---|---:|---:|---:|---:|---|---|")
    for each in choices:
        order = sorted(each["estimates"], key=int)
        best = each["truth"][int(each["best"])]
        estimates = ", ".join(f"{each['estimates'][name]:.1f}" for name in order)
        truth = ", ".join(f"{each['truth'][int(name)]:.1f}" for name in order)
        lost = f"{each['lost']:.2f} | {best - each['truth'][int(order[-1])]:.2f}"
        print(f"| {each['run']} | {each['preferred']} | {each['best']} | {lost} | {estimates} | {truth} |")


if __name__ == "__main__":
    main()
