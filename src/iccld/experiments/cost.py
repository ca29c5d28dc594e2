"""What a row of a table costs, seconds on the wall beside those of the processor, which other work on the machine lengthens far less."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from iccld.experiments.outcome import Outcome, Outcomes
from iccld.experiments.table import Column, Row, Spread, Value, spread

COSTS = (
    Column("seconds", "training seconds", 0),
    Column("processor_seconds", "processor seconds", 0),
    Column("peak_memory_gib", "peak GiB", 2, best="lowest"),
    Column("parameters", "M parameters", 2, best="lowest"),
    Column("milliseconds", "ms an image", 0),
    Column("processor_milliseconds", "processor ms an image", 0),
)
"""No time is bold: on the wall it tells of the machine's other work, and of the processor nothing where a GPU computes."""

NOTE = (
    "Seconds are those of training, without scoring. On the wall they hold what else the machine did meanwhile, such as runs beside it; "
    "processor seconds are what the run's own process kept cores busy. Compare costs by the processor's on a CPU, by the wall's on a GPU."
)


def cost_of(outcomes: Outcomes, is_trained: bool = True) -> dict[str, Value]:
    """Means over the seeds, and the largest peak.  is_trained: whether the row trained anything after what it started from."""
    each = list(outcomes.values())
    cells: dict[str, Value] = {
        "parameters": each[0].parameters / 1e6,
        "milliseconds": over_all(each, lambda one: one.milliseconds),
        "processor_milliseconds": over_all(each, lambda one: one.processor_milliseconds),
    }
    if is_trained:
        cells["seconds"] = over_all(each, lambda one: one.seconds)
        cells["processor_seconds"] = over_all(each, lambda one: one.processor_seconds)
        cells["peak_memory_gib"] = max(one.peak_memory_gib for one in each)
    return cells


def over_all(each: Sequence[Outcome], cost: Callable[[Outcome], float | None]) -> Spread | None:
    """Over the seeds; None where a run does not tell it, as those of earlier releases: the others' mean would look like that of all."""
    values = [cost(one) for one in each]
    return None if None in values else spread(values)


def with_figures(columns: Sequence[Column], rows: Sequence[Row]) -> list[Column]:
    """The columns that hold a figure in any of the rows: runs of earlier releases and on a GPU lack some."""
    return [column for column in columns if any(row.cells.get(column.key) is not None for row in rows)]
