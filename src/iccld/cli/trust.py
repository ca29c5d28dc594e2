"""`iccld estimate` and `iccld worst`: how good is a run on pictures without labels, and which of them should be labelled first?"""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from iccld.cli.output import print_error
from iccld.cli.run_folder import open_predictor, refuse_other_than_run, weights_identity
from iccld.config import read_config
from iccld.errors import CheckpointError, DataError
from iccld.files import write_json
from iccld.share.names import is_shared

HELPED = {
    "yes": "Adaptation helped",
    "no": "Adaptation did not help",
    "unknown": "Whether adaptation helped cannot be told from these pictures, since the interval holds 0",
}


def estimate(arguments: Namespace, _: list[str]) -> int:
    """Print estimated accuracy and mIoU of each stage with intervals, and write everything to `--json`."""
    run = arguments.run
    refuse_other_than_run(run)
    if is_shared(run):
        raise CheckpointError(f"{run} is a shared model, which has no held-out source pictures to learn from; name the run it was made of")
    config = read_config(run / "config.yaml")
    if not arguments.pictures.is_dir():
        raise DataError(f"{arguments.pictures} is no folder; name a folder of pictures like those that the run was adapted to")
    from iccld.runs.trust import judge_checkpoints, judge_run, open_pictures, refuse_without_holdout

    refuse_without_holdout(run, config)
    pictures = open_pictures(run, config, arguments.pictures, arguments.format, arguments.split)
    judge = judge_checkpoints if arguments.checkpoints else judge_run
    told = {"run": str(run), **judge(run, pictures, num=arguments.num)}
    if arguments.json is not None:
        write_json(arguments.json, told)
    (print_checkpoints if arguments.checkpoints else print_estimates)(told)
    return 0


def print_checkpoints(told: dict[str, Any]) -> None:
    """What `judge_checkpoints` tells, one line a checkpoint."""
    for each in told["checkpoints"]:
        mark = "  <- highest" if each["iteration"] == told["best"] else ""
        print(f"{told['stage']} {each['iteration']:6}: pixel accuracy {each['pixel_accuracy']:.1f}, mIoU {each['miou']:.1f}{mark}")
    print(f"estimated without labels; iccld predict RUN PICTURES --stage {told['stage']} --iteration {told['best']} takes that one")


def print_estimates(told: dict[str, Any]) -> None:
    """What `judge_run` tells as a table on stdout, and the answer below it."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"Estimated without labels, {told['pictures']} pictures")
    for title in ("stage", "pixel accuracy %", "mIoU %"):
        table.add_column(title, justify="left" if title == "stage" else "right")
    for name, stage in told["stages"].items():
        table.add_row(name, _interval(stage["pixel_accuracy"]), _interval(stage["miou"]))
    Console().print(table)
    if "gain" in told:
        gain = told["gain"]
        print(f"{HELPED[gain['answer']]}: mIoU {gain['miou']['value']:+.1f} ({gain['miou']['low']:+.1f} to {gain['miou']['high']:+.1f})")


def _interval(figure: dict[str, float]) -> str:
    return f"{figure['value']:.1f} ({figure['low']:.1f} to {figure['high']:.1f})"


def worst(arguments: Namespace, _: list[str]) -> int:
    """Choose pictures to label and write their import; exit 3 when a picture could not be read, after the others are done."""
    run = arguments.run
    refuse_other_than_run(run, arguments.stage)
    if not any(path.exists() for path in arguments.paths):
        raise DataError(f"{arguments.paths[0]}: no such file or folder")
    from iccld.predict.worst import choose, write_choice
    from iccld.runs.trust import other_predictors

    predictor, standing = open_predictor(arguments)
    others = [] if is_shared(run) else other_predictors(run, standing)
    chosen, refused = choose([predictor, *others], arguments.paths, arguments.num, arguments.out, standing.wide)
    model = f"{weights_identity(run)} {standing.stage} {standing.iteration} {standing.weights}"
    origin = {"run": str(run), **standing.as_dict()}
    report = write_choice(chosen, predictor, arguments.out, model=model, origin=origin, wide=standing.wide)
    for path, reason in [*refused, *report.failed]:
        print_error(reason if str(path) in reason else f"{path}: {reason}")
    print(arguments.out)
    return DataError.exit_code if refused or report.failed else 0
