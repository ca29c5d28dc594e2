"""The grid's tables: scores with paired differences to the start and to every control, seeds, classes, costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from iccld.errors import CheckpointError, DataError
from iccld.experiments.cost import COSTS, cost_of, over_all, with_figures
from iccld.experiments.formulations import START, Formulation
from iccld.experiments.outcome import Outcome, Outcomes, class_spreads, last_loss, miou_of, paired_gain, read_outcome
from iccld.experiments.table import Column, Row, Table, Value, spread
from iccld.experiments.table1 import NETWORKS
from iccld.files import read_json

NAME, STAGE = "grid", "step2"
"""Of the experiment, and of the stage that a row trains; the table has the name of the stage."""

BASES = {
    "over_start": (START, "Δ start"),
    "over_continued": ("continued", "Δ step 1 continued"),
    "over_views": ("continued_views", "Δ the same, labels of views"),
    "over_decoder": ("decoder", "Δ decoder alone"),
}
"""Column -> the row that the others are held against, and the column's title."""

GROUPS = {
    "start": "",
    "control": "Controls",
    "method": "Formulations",
    "ceiling": "Ceilings: true labels of the target, never a method",
}
"""Headings of the rows by kind."""

COLUMNS = (
    Column("iterations", "iterations"),
    *COSTS[:2],
    Column("step_milliseconds", "processor ms an iteration", 0),
    Column("of_continued", "of step 1's", 2),
    Column("domain", "discriminator's loss, nats", 2),
    *COSTS[2:],
)


@dataclass(frozen=True)
class Cell:
    """Where one row's run lies for one network and seed, and which stage of it is meant."""

    run: Path
    stage: str


@dataclass(frozen=True)
class Grid:
    """rows: name -> formulation, in order.  missing: rows that cannot be trained here, with the reason."""

    rows: Mapping[str, Formulation]
    networks: Sequence[str]
    seeds: Sequence[int]
    iterations: int
    missing: Mapping[str, str]


def read_cells(cells: Mapping[tuple[str, str, int], Cell]) -> dict[tuple[str, str], Outcomes]:
    """(network, row) -> outcomes by seed, of what is finished.

    DataError where a row did not start from the weights of its seed's start, or was scored by another ruler: it could not be compared.
    """
    found: dict[tuple[str, str], dict[int, Outcome]] = {(network, row): {} for network, row, _ in cells}
    for (network, row, seed), cell in cells.items():
        with suppress(CheckpointError):  # the row says which seeds are missing
            found[network, row][seed] = read_outcome(cell.run, cell.stage, after="" if row == START else "step1")
            if row != START:
                _require_same_start(cells[network, START, seed].run, cell)
    return dict(found)


def _require_same_start(start: Path, cell: Cell) -> None:
    told, before = read_json(cell.run / "summary.json"), read_json(start / "summary.json")
    checkpoint = Path(told["source_checkpoint"]["path"])
    manifest = read_json(checkpoint / "manifest.json")
    sha256 = {name: manifest["files"][name]["sha256"] for name in told["source_checkpoint"]["sha256"]} if manifest else {}
    if start.resolve() not in checkpoint.resolve().parents or sha256 != told["source_checkpoint"]["sha256"]:
        raise DataError(f"{cell.run} did not start from the step 1 of {start} as it is now; remove that row's run, and train it again")
    scoring, other = ((each.get("stages") or {}).get(stage, {}).get("scoring") for each, stage in ((told, cell.stage), (before, "step1")))
    if scoring != other:
        raise DataError(f"{cell.run} was scored with {scoring}, its start {start} with {other}; score both alike")


def tables(grid: Grid, outcomes: Mapping[tuple[str, str], Outcomes], failures: Mapping[str, str], block: int) -> list[Table]:
    """Scores, seeds, classes and costs of all rows.  outcomes: (network, row) -> by seed.  failures: by name of run."""
    made = [_row(grid, outcomes, network, name, failures, block) for network in grid.networks for name in grid.rows]
    names = dict.fromkeys(name for own in outcomes.values() for one in own.values() for name in one.iou)
    scores = [Column("miou", "mIoU %", 2, best="highest"), *(Column(key, title, 2) for key, (_, title) in BASES.items())]
    scores += [Column("over_without", "Δ without connection", 2), Column("seconds", "training seconds", 0)]
    scores = with_figures(scores, made)
    there = [row for row in made if row.kind != "missing"]  # why the others are not stands with the scores
    classes = [Column("miou", "mIoU", best="highest", has_std=False)]
    classes += [Column(f"iou_{name}", name, best="highest", has_std=False) for name in names]
    found = [
        Table("mIoU and paired differences", scores, made, "after step 1"),
        Table("IoU by class, %", classes, there, "after step 1"),
        Table("Cost", with_figures(COLUMNS, there), there, "after step 1"),
    ]
    if len(grid.seeds) > 1:
        each = [Column(f"gain_{seed}", f"seed {seed}", 2) for seed in grid.seeds]
        trained = [row for row in there if not row.key.endswith(f"/{START}")]
        wider = [replace(column, over="seeds") for column in scores if column.key in BASES]
        found[1:1] = [
            Table("Gain over the start, of every seed", each, trained, "after step 1"),
            Table("The same differences over draws of pictures and seeds", wider, trained, "after step 1"),
        ]
    return found


def _row(grid: Grid, outcomes: Mapping[tuple[str, str], Outcomes], network: str, name: str, failures: Mapping[str, str], block: int) -> Row:
    row, own = grid.rows[name], outcomes.get((network, name), {})
    group = ": ".join(part for part in (NETWORKS[network].title if len(grid.networks) > 1 else "", GROUPS[row.kind]) if part)
    key = f"{network}/{name}"
    if name in grid.missing:
        return Row(key, row.title, {"miou": "n/a"}, "missing", group, grid.missing[name])
    note = "; ".join(f"seed {seed}: {failures.get(f'{name}-{network}-{seed}', 'not finished')}" for seed in grid.seeds if seed not in own)
    if not own:
        return Row(key, row.title, {"miou": "failed"}, "missing", group, note)
    cells = _figures(own)
    if name != START:
        for column, (base, _) in BASES.items():
            others = outcomes.get((network, base), {})
            cells[column] = paired_gain(others, own, block) if base != name else None
        cells |= _costs(own, outcomes.get((network, "continued"), {}))
        starts = outcomes[network, START]
        cells |= {f"gain_{seed}": one.miou - starts[seed].miou for seed, one in own.items() if seed in starts}
    if network != "without":
        cells["over_without"] = paired_gain(outcomes.get(("without", name), {}), own, block)
    return Row(key, row.title, cells, "ceiling" if row.kind == "ceiling" else "measured", group, note)


def _figures(own: Outcomes) -> dict[str, Value]:
    return {
        "miou": miou_of(own),
        **{f"iou_{name}": value for name, value in class_spreads(own).items()},
        **cost_of(own, is_trained=False),
    }


def _costs(own: Outcomes, continued: Outcomes) -> dict[str, Value]:
    each = list(own.values())
    pairs = [(one.processor_seconds, continued[seed].processor_seconds) for seed, one in own.items() if seed in continued]
    known = [(one, other) for one, other in pairs if one is not None and other]
    return {
        "iterations": each[0].iterations,
        **cost_of(own),
        "step_milliseconds": over_all(each, lambda one: one.processor_seconds and 1000 * one.processor_seconds / one.iterations),
        "of_continued": sum(one for one, _ in known) / sum(other for _, other in known) if known else None,
        "domain": spread(last_loss(one.run, STAGE, "domain") for one in each),
    }
