"""Rows of the page's tables, as text and shares: the template only lays them out."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from iccld.labels import LABEL_SPACES
from iccld.report.run import Json, Run, Stage, mapping, number
from iccld.report.story import AT_ZERO, NOTHING, signed


@dataclass(frozen=True)
class Cell:
    """A figure and how to colour it; kind: `` (plain), `gain`, `loss`, `zero` or `none`; share: 0..1, length of its bar."""

    text: str
    kind: str = ""
    share: float = 0.0


@dataclass(frozen=True)
class ClassRow:
    """One class: IoU per stage and the gain of each stage over the one before, last the total."""

    name: str
    colour: str
    scores: list[Cell]
    gains: list[Cell]


@dataclass(frozen=True)
class HistogramRow:
    """One class: share of the pseudo-labelled pixels at the end of each stage, bars relative to the largest share shown."""

    name: str
    colour: str
    shares: list[Cell]


def class_names(run: Run) -> list[str]:
    """Names of the label space's classes in order: from the pictures, else the shipped label space, else the widest IoU table."""
    colours = class_colours(run)
    if colours:
        return list(colours)
    return max((list(stage.iou) for stage in run.stages), key=len, default=[])


def class_colours(run: Run) -> dict[str, str]:
    """`rgb(...)` of each class in order, from the pictures or the shipped label space; {} where neither is known."""
    space = mapping(run.pictures.get("label_space"))
    names, palette = space.get("names"), space.get("palette")
    if not isinstance(names, list) or not isinstance(palette, list):
        shipped = LABEL_SPACES.get(str(run.summary.get("label_space") or run.config.get("label_space")))
        if shipped is None:
            return {}
        names, palette = list(shipped.names), shipped.palette.tolist()
    # Shorter lists are a damaged record's: what it has of both is shown.
    return {str(name): "rgb({},{},{})".format(*(int(c) for c in colour[:3])) for name, colour in zip(names, palette, strict=False)}


def score_cell(value: float | None, digits: int = 1) -> Cell:
    """A percentage with its bar; a class at zero is marked, one that does not occur is a dash."""
    if value is None:
        return Cell("–", "none")
    return Cell(f"{value:.{digits}f}", "zero" if value < AT_ZERO else "", max(0.0, min(1.0, value / 100)))


def gain_cell(before: float | None, after: float | None) -> Cell:
    """The signed difference, coloured only where it is more than nothing."""
    if before is None or after is None:
        return Cell("–", "none")
    gain = after - before
    return Cell(signed(gain), "gain" if gain >= NOTHING else "loss" if gain <= -NOTHING else "")


def gains(values: Sequence[float | None]) -> list[Cell]:
    """Gain of every value over the one before and, with three values or more, of the last over the first."""
    found = [gain_cell(before, after) for before, after in itertools.pairwise(values)]
    return [*found, gain_cell(values[0], values[-1])] if len(values) > 2 else found


def class_table(run: Run) -> tuple[list[str], list[ClassRow], ClassRow | None]:
    """Headers of the gain columns, one row per class, and the mIoU row."""
    scored = run.scored_stages
    if not scored:
        return [], [], None
    headers = [f"{after.title} − {before.title.lower()}" for before, after in itertools.pairwise(scored)]
    if len(scored) > 2:
        headers.append("In all")
    colours = class_colours(run)
    names = list(dict.fromkeys([*class_names(run), *(name for stage in scored for name in stage.iou)]))
    rows = []
    for name in names:
        values = [stage.iou.get(name) for stage in scored]
        rows.append(ClassRow(name, colours.get(name, ""), [score_cell(value) for value in values], gains(values)))
    totals = [stage.miou for stage in scored]
    mean = ClassRow("mIoU", "", [score_cell(value) for value in totals], gains(totals))
    return headers, rows if any(stage.iou for stage in scored) else [], mean


def mean_rows(run: Run) -> list[ClassRow]:
    """mIoU over 16 and 13 of Cityscapes' classes, under the convention that the protocol names, and of each of several validation sets."""
    scored = run.scored_stages
    convention = str(mapping(run.summary.get("protocol")).get("convention"))
    found = [mapping(mapping(stage.summary.get("means")).get(convention)) for stage in scored]
    rows = []
    named = class_names(run)
    for count in dict.fromkeys(key for means in found for key in means if key != str(len(named))):
        values = [number(means.get(count)) for means in found]
        rows.append(ClassRow(f"mIoU of {count} ({convention})", "", [score_cell(value) for value in values], gains(values)))
    domains = [mapping(stage.summary.get("domains")) for stage in scored]
    for folder in dict.fromkeys(key for each in domains for key in each):
        values = [number(mapping(each.get(folder)).get("miou")) for each in domains]
        rows.append(ClassRow(f"mIoU in {folder}", "", [score_cell(value) for value in values], gains(values)))
    return rows


def weights_table(run: Run) -> list[tuple[str, Cell, Cell, Cell, str]]:
    """Per stage: title, score of the last checkpoint (EMA), of the trained weights, best, and where the best was."""
    rows = []
    for stage in run.stages:
        if stage.miou is None:
            continue
        best = stage.best
        where = f"iteration {best[1]:,}" if best else ""
        title = stage.title if stage.weights == "ema" else f"{stage.title} (reports its {stage.weights} weights)"
        rows.append((title, score_cell(stage.miou), score_cell(stage.miou_model), score_cell(best[0] if best else None), where))
    return rows


def histogram_table(run: Run) -> tuple[list[Stage], list[HistogramRow], list[str]]:
    """Stages with pseudo-labels, the classes' shares at their ends, and the classes that never are one at the very end.

    The end is the mean over the last ten records, since one batch holds few images.
    """
    found: list[tuple[Stage, list[float]]] = []
    for stage in run.main_stages:
        lines = [line for line in stage.training if _histogram(line)][-10:]
        if lines:
            columns = zip(*(_histogram(line) for line in lines), strict=False)  # a damaged line may hold fewer classes
            found.append((stage, [100 * sum(column) / len(lines) for column in columns]))
    if not found:
        return [], [], []
    names, colours = class_names(run), class_colours(run)
    num = max(len(shares) for _, shares in found)
    names += [f"class {i}" for i in range(len(names), num)]
    largest = max(max(shares) for _, shares in found) or 1.0
    rows = []
    for i, name in enumerate(names[:num]):
        cells = []
        for _, shares in found:
            value = shares[i] if i < len(shares) else None
            text = "–" if value is None else "0" if value == 0 else "<0.1" if value < 0.05 else f"{value:.1f}"
            cells.append(Cell(text, "zero" if value == 0 else "", (value or 0.0) / largest))
        rows.append(HistogramRow(name, colours.get(name, ""), cells))
    never = [row.name for row in rows if row.shares[-1].text == "0"]
    return [stage for stage, _ in found], rows, never


def _histogram(line: Json) -> list[float]:
    """Shares that sum to one, whether the record holds shares or counts; [] where there is no pseudo-label."""
    values = line.get("pseudo_label_histogram")
    if not isinstance(values, list):
        return []
    figures = [number(value) or 0.0 for value in values]
    total = sum(figures)
    return [value / total for value in figures] if total > 0 else []


def sampler_tables(run: Run) -> list[tuple[Stage, list[tuple[str, Cell, bool]]]]:
    """Per stage with a sampler: (steps, mIoU, whether these are the steps used for the score), by rising steps."""
    found = []
    for stage in run.stages:
        scores = {str(k): number(v) for k, v in mapping(stage.summary.get("miou_by_steps")).items()}
        used = str(stage.summary.get("sampler_steps"))
        ordered = sorted(scores, key=lambda steps: (not steps.isdigit(), int(steps) if steps.isdigit() else 0))
        rows = [(steps, score_cell(scores[steps]), steps == used) for steps in ordered if scores[steps] is not None]
        if rows:
            found.append((stage, rows))
    return found


def duration(seconds: float | None) -> str:
    """`48 s`, `3 min 20 s`, `2 h 05 min`; a dash where unknown."""
    if seconds is None:
        return "–"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def cost_table(run: Run) -> tuple[list[tuple[str, str, str, str, str]], tuple[str, str] | None]:
    """Per stage: title, iterations, time, milliseconds per iteration, peak memory; and (iterations, time) of all."""
    rows = []
    for stage in run.stages:
        iterations, seconds, memory = stage.iterations, stage.seconds, number(stage.summary.get("peak_memory_gib"))
        if iterations is None and seconds is None:
            continue
        each = f"{1000 * seconds / iterations:.0f} ms" if iterations and seconds else "–"
        peak = f"{memory:.2f} GiB" if memory else "–"
        rows.append((stage.title, f"{iterations:,}" if iterations is not None else "–", duration(seconds), each, peak))
    if len(rows) < 2:
        return rows, None
    total_iterations = sum(stage.iterations or 0 for stage in run.stages)
    return rows, (f"{total_iterations:,}", duration(sum(stage.seconds or 0.0 for stage in run.stages)))
