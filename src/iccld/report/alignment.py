"""Step 2 under the microscope: distances between the domains before and after, and where each picture lies in the plane of both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from iccld.report.run import Json, Run, Stage, mapping, number

DOMAINS = ("source", "mixed", "target")
KINDS = {"latent": "Latents, before the denoiser", "predicted": "Predicted latents, after it"}
SIDE, MARGIN = 320.0, 12.0


@dataclass(frozen=True)
class Group:
    """One domain's pictures: label, colour 1..6, (x, y) in the drawing's units."""

    label: str
    colour: int
    points: list[tuple[float, float]]


@dataclass(frozen=True)
class Scatter:
    """A drawing of pictures as points, square, `side` units wide."""

    title: str
    description: str
    side: float
    groups: list[Group]


@dataclass(frozen=True)
class Alignment:
    """One stage: (pair of domains, A-distance before and after, MMD before and after) as text, and the two drawings."""

    title: str
    pictures: int
    rows: list[tuple[str, str, str, str, str]]
    scatters: list[Scatter]
    explained: str


def alignments(run: Run) -> list[Alignment]:
    """What the run measured, stage by stage; [] where nothing was measured."""
    found = []
    for stage in run.stages:
        told = mapping(stage.summary.get("alignment"))
        rows = _rows(told)
        if rows:
            projection = mapping(run.projection.get(stage.name))
            shares = [number(share) for share in projection.get("explained") or []]
            explained = f"{100 * sum(share or 0.0 for share in shares):.0f} %" if shares else ""
            found.append(Alignment(stage.title, int(number(told.get("pictures")) or 0), rows, _scatters(stage, projection), explained))
    return found


def _rows(told: Json) -> list[tuple[str, str, str, str, str]]:
    before, after = mapping(told.get("latent")), mapping(told.get("predicted"))
    rows = []
    for pair in mapping(before.get("a_distance")):
        figures = [mapping(side.get(key)).get(pair) for key in ("a_distance", "mmd") for side in (before, after)]
        a_before, a_after, mmd_before, mmd_after = (_text(value, 2 if i < 2 else 3) for i, value in enumerate(figures))
        rows.append((pair.replace("_", " – "), a_before, a_after, mmd_before, mmd_after))
    return rows


def _text(value: object, decimals: int) -> str:
    found = number(value)
    return "–" if found is None else f"{found:.{decimals}f}".replace("-", "−")


def _scatters(stage: Stage, projection: Json) -> list[Scatter]:
    """The two drawings share one scale, so that a cloud that moved or shrank is seen to."""
    points = {(kind, name): _points(mapping(projection.get(kind)).get(name)) for kind in KINDS for name in DOMAINS}
    every = [point for cloud in points.values() for point in cloud]
    if not every:
        return []
    return [
        Scatter(title, f"{stage.title}, {title.lower()}: pictures of the three domains in one plane.", SIDE, _groups(kind, points, every))
        for kind, title in KINDS.items()
    ]


def _groups(kind: str, points: Mapping[tuple[str, str], list[tuple[float, float]]], every: list[tuple[float, float]]) -> list[Group]:
    left, top = min(x for x, _ in every), max(y for _, y in every)
    span = max(max(x for x, _ in every) - left, top - min(y for _, y in every)) or 1.0
    scale = (SIDE - 2 * MARGIN) / span

    def place(point: tuple[float, float]) -> tuple[float, float]:
        return round(MARGIN + (point[0] - left) * scale, 1), round(MARGIN + (top - point[1]) * scale, 1)

    return [Group(name, 1 + i, [place(point) for point in points[kind, name]]) for i, name in enumerate(DOMAINS)]


def _points(found: object) -> list[tuple[float, float]]:
    pairs = found if isinstance(found, list) else []
    placed = [(number(pair[0]), number(pair[1])) for pair in pairs if isinstance(pair, list) and len(pair) == 2]
    return [(x, y) for x, y in placed if x is not None and y is not None]
