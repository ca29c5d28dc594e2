"""What a row of a table costs, seconds on the wall beside those of the processor: other work on the machine lengthens only the first."""

from __future__ import annotations

from collections.abc import Sequence

from iccld.experiments.outcome import Outcomes
from iccld.experiments.table import Column, Row, Value, spread

COSTS = (
    Column("seconds", "training seconds", 0),
    Column("processor_seconds", "processor seconds", 0),
    Column("peak_memory_gib", "peak GiB", 2, best="lowest"),
    Column("parameters", "M parameters", 2, best="lowest"),
    Column("milliseconds", "ms an image", 0),
    Column("processor_milliseconds", "processor ms an image", 0),
)
"""No time is bold: on the wall it tells of the machine's other work, and of the processor nothing where a GPU computes."""


def cost_of(outcomes: Outcomes, is_trained: bool = True) -> dict[str, Value]:
    """Means over the seeds, and the largest peak.  is_trained: whether the row trained anything after what it started from."""
    each = list(outcomes.values())
    cells: dict[str, Value] = {
        "parameters": each[0].parameters / 1e6,
        "milliseconds": spread(one.milliseconds for one in each),
        "processor_milliseconds": spread(one.processor_milliseconds for one in each),
    }
    if is_trained:
        cells["seconds"] = spread(one.seconds for one in each)
        cells["processor_seconds"] = spread(one.processor_seconds for one in each)
        cells["peak_memory_gib"] = max(one.peak_memory_gib for one in each)
    return cells


def with_figures(columns: Sequence[Column], rows: Sequence[Row]) -> list[Column]:
    """The columns that hold a figure in any of the rows: runs of earlier releases and on a GPU lack some."""
    return [column for column in columns if any(row.cells.get(column.key) is not None for row in rows)]
