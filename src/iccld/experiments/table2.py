"""Table 2: every method from the same source checkpoint, on the same data, for the same budget, under one ruler."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from iccld.errors import CheckpointError
from iccld.experiments import reported
from iccld.experiments.cost import COSTS, NOTE, cost_of, with_figures
from iccld.experiments.outcome import Outcome, Outcomes, class_spreads, miou_of, paired_gain, read_outcome
from iccld.experiments.table import Column, Row, Table, Value, spread

BASELINE = "source_only"
OURS = "iccld"
START = "source"
"""Key of the row that shows the shared source checkpoint."""

SCORES = (
    Column("miou", "mIoU %", best="highest"),
    Column("over_source_only", "Δ source_only"),
    Column("over_iccld", "Δ iccld"),
    Column("best", "best checkpoint", best="highest"),
    Column("weights", "weights"),
    Column("miou_16", "16 classes", best="highest"),
    Column("miou_13", "13 classes", best="highest"),
    Column("reported_gta5", "reported GTA5"),
    Column("reported_synthia", "reported SYNTHIA"),
)
WEIGHTS = (
    Column("weights", "headline"),
    Column("by_model", "trained weights", best="highest"),
    Column("by_ema", "averaged weights", best="highest"),
)


def run_name(method: str, seed: int) -> str:
    """Folder of a run: `dacs-0`."""
    return f"{method}-{seed}"


def read_outcomes(runs: Mapping[int, Path], stage: str) -> dict[int, Outcome]:
    """The outcomes by seed of the runs that finished the stage; the table says which did not."""
    found = {}
    for seed, run in runs.items():
        with suppress(CheckpointError):
            found[seed] = read_outcome(run, stage)
    return found


def tables(
    outcomes: Mapping[str, Outcomes], seeds: Sequence[int], failures: Mapping[str, str], not_applicable: Mapping[str, str], block: int
) -> list[Table]:
    """Scores, classes, seeds and costs of all methods, and the papers' class IoUs.

    outcomes: method (and `source`) -> by seed.  failures: by name of run.  not_applicable: method -> what it needs and does not have.
    """
    made = [_row(method, outcomes, seeds, failures, not_applicable, block) for method in outcomes]
    names = list(dict.fromkeys(name for found in outcomes.values() for outcome in found.values() for name in outcome.iou))
    scores = with_figures(SCORES, made)
    costs = with_figures([Column("iterations", "iterations after source"), *COSTS], made)
    classes = [Column("miou", "mIoU", best="highest", has_std=False)]
    classes += [Column(f"iou_{name}", name, best="highest", has_std=False) for name in names]
    found = [
        Table("Table 2: mIoU and paired differences", scores, made, "method", (reported.NOTE,)),
        Table("IoU by class, %", classes, made, "method"),
        Table("mIoU of trained and of averaged weights", WEIGHTS, made, "method"),
        Table("Cost", costs, made, "method", (NOTE,)),
    ]
    if len(seeds) > 1:
        found.insert(1, Table("mIoU of every seed", [Column(f"seed_{seed}", f"seed {seed}", 2) for seed in seeds], made, "method"))
    return [*found, *_reported_tables(list(outcomes))]


def _row(
    method: str,
    outcomes: Mapping[str, Outcomes],
    seeds: Sequence[int],
    failures: Mapping[str, str],
    not_applicable: Mapping[str, str],
    block: int,
) -> Row:
    own = outcomes[method]
    quoted = reported.MIOU.get(method, (None, None))
    cells: dict[str, Value] = {"reported_gta5": quoted[0], "reported_synthia": quoted[1]}
    title = "source checkpoint, shared start" if method == START else method
    if method in not_applicable:
        return Row(method, title, {**cells, "miou": "n/a"}, "missing", note=not_applicable[method])
    absent = [seed for seed in seeds if seed not in own]
    note = "; ".join(f"seed {seed}: {failures.get(run_name(method, seed), 'not finished')}" for seed in absent)
    if not own:
        return Row(method, title, {**cells, "miou": "failed"}, "missing", note=note)
    for key, base in (("over_source_only", BASELINE), ("over_iccld", OURS)):
        cells[key] = paired_gain(outcomes[base], own, block) if base in outcomes and method != base else None
    each = list(own.values())
    cells |= {
        "miou": miou_of(own),
        "best": spread(one.best for one in each),
        "weights": each[0].weights,
        **{f"miou_{count}": spread(one.means.get(count) for one in each) for count in ("16", "13")},
        **{f"by_{weights}": spread(one.by_weights.get(weights) for one in each) for weights in ("model", "ema")},
        **{f"seed_{seed}": one.miou for seed, one in own.items()},
        **{f"iou_{name}": value for name, value in class_spreads(own).items()},
        "iterations": each[0].iterations,
        **cost_of(own, is_trained=method != START),
    }
    return Row(method, title, cells, note=note)


def _reported_tables(methods: Sequence[str]) -> list[Table]:
    """The class IoUs of the paper's Table 2, for the methods at hand."""
    found = []
    for place, (name, title) in enumerate((("GTA5", "GTA5 → Cityscapes"), ("SYNTHIA", "SYNTHIA → Cityscapes"))):
        rows = []
        for method in methods:
            iou = reported.class_iou(method).get(name)
            if iou is not None:
                cells: dict[str, Value] = {"miou": reported.MIOU[method][place], **{f"iou_{key}": value for key, value in iou.items()}}
                rows.append(Row(f"{method}/reported/{name}", method, cells, "reported", group=title))
        if rows:
            keys = [key for key in rows[0].cells if key != "miou"]
            columns = [Column("miou", "mIoU"), *(Column(key, key.removeprefix("iou_")) for key in keys)]
            found.append(Table(f"As reported: {title}", columns, rows, "method"))
    return found
