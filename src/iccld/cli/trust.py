"""`iccld estimate`: how good is a run on pictures without labels?"""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from iccld.cli.run_folder import refuse_other_than_run
from iccld.config import read_config
from iccld.errors import DataError
from iccld.files import write_json

HELPED = {
    "yes": "Adaptation helped",
    "no": "Adaptation did not help",
    "probably": "Adaptation probably helped, but the interval holds 0",
    "probably not": "Adaptation probably did not help, but the interval holds 0",
}


def estimate(arguments: Namespace, _: list[str]) -> int:
    """Print estimated accuracy and mIoU of each stage with intervals, and write everything to `--json`."""
    run = arguments.run
    refuse_other_than_run(run)
    config = read_config(run / "config.yaml")
    if not arguments.pictures.is_dir():
        raise DataError(f"{arguments.pictures} is no folder; name a folder of pictures like those that the run was adapted to")
    from iccld.runs.trust import judge_run, open_pictures, refuse_without_holdout

    refuse_without_holdout(run, config)
    pictures = open_pictures(run, config, arguments.pictures, arguments.format, arguments.split)
    told = {"run": str(run), **judge_run(run, pictures, num=arguments.num)}
    if arguments.json is not None:
        write_json(arguments.json, told)
    print_estimates(told)
    return 0


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
