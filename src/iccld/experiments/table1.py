"""Table 1: {without, matched, with} the inter-coder connection × {step 1, step 1 & 2}, and step 1 for as long as both as the control.

The control is a step 1 whose whole schedule is as long as step 1 and step 2 together, from the same source checkpoint.  It is not step 1
gone on with: its learning rate has fallen to 0 by then, so that a continuation would be a restart with a schedule of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from iccld.errors import CheckpointError
from iccld.experiments import reported
from iccld.experiments.cost import COSTS, NOTE, cost_of, with_figures
from iccld.experiments.outcome import Outcome, Outcomes, class_spreads, miou_of, paired_gain, read_outcome
from iccld.experiments.table import Column, Row, Table, Value, spread


@dataclass(frozen=True)
class Network:
    """What a variant of the network is called: title in tables, short in plans and figures."""

    title: str
    short: str


NETWORKS = {
    "without": Network("Without the inter-coder connection", "without connection"),
    "matched": Network("Without the connection, as many parameters", "without connection, wider"),
    "with": Network("With the inter-coder connection", "with connection"),
}
"""The variants in the order of the table."""

ROWS = {"source": "Source only", "step1": "Step 1", "control": "Step 1, as long as both (control)", "step2": "Step 1 & 2"}

SCORES = (
    Column("miou", "mIoU %", best="highest"),
    Column("over_step1", "Δ step 1"),
    Column("over_control", "Δ control"),
    Column("over_without", "Δ without connection"),
    Column("over_matched", "Δ same size without"),
    Column("best", "best checkpoint"),
    Column("reported_gta5", "reported GTA5"),
    Column("reported_synthia", "reported SYNTHIA"),
)


@dataclass(frozen=True)
class Place:
    """Where one row's run lies for one seed, and which stage of it is meant."""

    run: Path
    stage: str


def places(
    out: Path, source: Mapping[tuple[str, int], Path], variants: Sequence[str], seeds: Sequence[int]
) -> dict[tuple[str, str, int], Place]:
    """(variant, row, seed) -> where it lies.  source: (variant, seed) -> run of the shared source stage."""
    found = {}
    for seed in seeds:
        for variant in variants:
            found[variant, "source", seed] = Place(source[variant, seed], "source")
            found[variant, "step1", seed] = Place(out / "runs" / run_name(variant, seed), "step1")
            found[variant, "control", seed] = Place(out / "runs" / run_name(variant, seed, is_control=True), "step1")
            found[variant, "step2", seed] = Place(out / "runs" / run_name(variant, seed), "step2")
    return found


def run_name(variant: str, seed: int, is_control: bool = False) -> str:
    """Folder of a run: `with-0`, `with-0-control`."""
    return f"{variant}-{seed}" + ("-control" if is_control else "")


def read_rows(found: Mapping[tuple[str, str, int], Place]) -> dict[tuple[str, str], Outcomes]:
    """(variant, row) -> outcomes by seed, of what is finished."""
    rows: dict[tuple[str, str], dict[int, Outcome]] = {(variant, row): {} for variant, row, _ in found}
    for (variant, row, seed), place in found.items():
        with suppress(CheckpointError):  # the row says which seeds are missing
            rows[variant, row][seed] = read_outcome(place.run, place.stage)
    return dict(rows)


def tables(rows: Mapping[tuple[str, str], Outcomes], seeds: Sequence[int], failures: Mapping[str, str], block: int) -> list[Table]:
    """Scores, classes, seeds and costs of all rows.  failures: by name of run."""
    made = [_row(rows, variant, row, seeds, failures, block) for variant, row in rows]
    scores = [column for column in SCORES if column.key != "over_matched" or any(variant == "matched" for variant, _ in rows)]
    names = dict.fromkeys(name for outcomes in rows.values() for outcome in outcomes.values() for name in outcome.iou)
    classes = [Column("miou", "mIoU", best="highest", has_std=False)]
    classes += [Column(f"iou_{name}", name, best="highest", has_std=False) for name in names]
    columns = [
        Column("iterations", "gradient iterations"),
        Column("after_source", "of these after source"),
        *(replace(column, title=f"{column.title} after source") if column.key.endswith("seconds") else column for column in COSTS),
        Column("identity_gap", "identity gap %"),
    ]
    found = [
        Table("Table 1: mIoU and paired differences", scores, made, "DA setting", (reported.NOTE,)),
        Table("IoU by class, %", classes, made, "DA setting"),
        Table("Cost", with_figures(columns, made), made, "DA setting", (NOTE,)),
    ]
    if len(seeds) > 1:
        found.insert(1, Table("mIoU of every seed", [Column(f"seed_{seed}", f"seed {seed}", 2) for seed in seeds], made, "DA setting"))
    return found


def _row(
    rows: Mapping[tuple[str, str], Outcomes], variant: str, row: str, seeds: Sequence[int], failures: Mapping[str, str], block: int
) -> Row:
    outcomes = rows[variant, row]
    quoted = reported.TABLE1.get((variant, row), (None, None))
    cells: dict[str, Value] = {"reported_gta5": quoted[0], "reported_synthia": quoted[1]}
    note = _note(variant, row, outcomes, seeds, failures)
    if not outcomes:
        return Row(f"{variant}/{row}", ROWS[row], {**cells, "miou": "failed"}, "missing", NETWORKS[variant].title, note)
    bases = {
        "over_step1": (variant, "step1") if row in ("control", "step2") else None,
        "over_control": (variant, "control") if row == "step2" else None,
        "over_without": ("without", row) if variant != "without" else None,
        "over_matched": ("matched", row) if variant == "with" else None,
    }
    for key, base in bases.items():
        cells[key] = paired_gain(rows[base], outcomes, block) if base is not None and base in rows else None
    return Row(f"{variant}/{row}", ROWS[row], cells | _figures(outcomes), "measured", NETWORKS[variant].title, note)


def _figures(outcomes: Outcomes) -> dict[str, Value]:
    each = list(outcomes.values())
    gaps = [float(one.extras["identity_gap"]) for one in each if "identity_gap" in one.extras]
    return {
        "miou": miou_of(outcomes),
        "best": spread(one.best for one in each),
        **{f"seed_{seed}": one.miou for seed, one in outcomes.items()},
        **{f"iou_{name}": value for name, value in class_spreads(outcomes).items()},
        "iterations": each[0].iterations + each[0].source_iterations,
        "after_source": each[0].iterations,
        **cost_of(outcomes, is_trained=each[0].iterations > 0),
        "identity_gap": 100 * sum(gaps) / len(gaps) if gaps else None,
    }


def _note(variant: str, row: str, outcomes: Outcomes, seeds: Sequence[int], failures: Mapping[str, str]) -> str:
    absent = [seed for seed in seeds if seed not in outcomes]
    parts = []
    for seed in absent:
        name = run_name(variant, seed, is_control=row == "control")
        parts.append(f"seed {seed}: {failures.get(name, 'not finished')}")
    return "; ".join(parts)
