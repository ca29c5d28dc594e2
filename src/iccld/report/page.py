"""Put a run on one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any

from iccld.errors import ConfigError
from iccld.files import write_atomically
from iccld.report.alignment import alignments
from iccld.report.charts import loss_charts, overview_charts, score_chart, step2_charts
from iccld.report.gallery import gallery
from iccld.report.run import Json, Run, mapping, number, read_run, stage_title
from iccld.report.story import IDENTITY, describe_domain, progress_remarks, remarks, short_name, why_no_score
from iccld.report.tables import class_colours, class_table, cost_table, gain_cell, histogram_table, mean_rows, sampler_tables, weights_table
from iccld.report.trust import estimated, trust

# What each stage of the method does, in the words of the page.
STAGE_WORDS = {
    "source": "learns from the labelled source only",
    "step1": "teaches itself with pseudo-labels on the target (ClassMix)",
    "step2": "restores the latents of both domains with a denoiser",
}


@dataclass(frozen=True)
class Watched:
    """What a page says that is written while its run is trained."""

    seconds: int
    """Until the reader's browser loads it again."""
    words: str
    """Where training is, and the time left."""


def write_report(run: Path, watched: Watched | None = None) -> Path:
    """Write `report.html` into a run directory, whole or unfinished, and return its path.

    The page needs no network and no other file.  watched: makes it load itself again, and tells the time left.
    Raises CheckpointError when the folder is no run, ConfigError when jinja2 is missing.
    """
    record = read_run(Path(run))
    html = render(record, watched)
    target = record.path / "report.html"
    write_atomically(target, html, is_shared=True)  # `iccld report` may be called while the run is trained
    return target


def render(run: Run, watched: Watched | None = None) -> str:
    """The page as text.  Every value that came from a file is escaped."""
    try:
        import jinja2
    except ImportError as error:
        raise ConfigError("the report needs jinja2: pip install 'iccld[report]'") from error
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_template), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("page.html.j2").render(**_context(run), watched=watched)


def _template(name: str) -> str:
    return resources.files("iccld.report").joinpath("templates", name).read_text(encoding="utf-8")


def _context(run: Run) -> dict[str, Any]:
    scored = run.scored_stages
    gain_headers, class_rows, mean_row = class_table(run)
    histogram_stages, histogram_rows, never = histogram_table(run)
    costs, cost_total = cost_table(run)
    rows = gallery(run)
    return {
        "style": _template("page.css"),
        "run": run,
        "title": _title(run),
        "is_ceiling": is_ceiling(run),
        "domains": _domains(run),
        "status": _status(run),
        "is_scored": bool(scored),
        "headline": _headline(run),
        "steps": _steps(run),
        "no_score": why_no_score(run),
        "remarks": remarks(run) if scored else progress_remarks(run),
        "gain_headers": gain_headers,
        "class_rows": class_rows,
        "mean_row": mean_row,
        "mean_rows": mean_rows(run),
        "scored": scored,
        "weights_rows": weights_table(run),
        "score_charts": [chart for size in ((1060, 300), (360, 220)) if (chart := score_chart(run, *size))],
        "overview_charts": overview_charts(run),
        "loss_charts": loss_charts(run),
        "histogram_stages": histogram_stages,
        "histogram_rows": histogram_rows,
        "never": never,
        "identity": _identity(run),
        "samplers": sampler_tables(run),
        "step2_charts": step2_charts(run),
        "alignments": alignments(run),
        "trust": trust(run),
        "estimated": estimated(run),
        "costs": costs,
        "cost_total": cost_total,
        "gallery": rows,
        "has_truth": any(picture.kind == "truth" for row in rows for picture in row.pictures),
        "legend": list(class_colours(run).items()) if rows else [],
        "provenance": _provenance(run),
        "versions": list(_flat(run.environment)),
    }


def is_ceiling(run: Run) -> bool:
    """Whether training saw the target's labels, which no method may."""
    return bool(run.section("target").get("truth"))


def _title(run: Run) -> str:
    source, target = short_name(run.section("source")), short_name(run.section("target"))
    return f"{source} → {target}" if source and target else run.path.resolve().name


def _domains(run: Run) -> list[tuple[str, str, str]]:
    """(role, what it is, what it gives) of the three data sections."""
    val = run.section("val")
    return [
        ("Source", describe_domain(run.section("source")), "images and labels"),
        (
            "Target",
            describe_domain(run.section("target")),
            "images and their labels: a ceiling" if is_ceiling(run) else "images only, no labels used",
        ),
        ("Validation", describe_domain(val), "scores only, never trains" if short_name(val) else "none"),
    ]


def _status(run: Run) -> str:
    """Empty for a finished run, otherwise what is missing."""
    if run.is_complete:
        return ""
    finished = [stage.title for stage in run.stages if stage.summary]
    parts = [f"finished: {', '.join(finished) if finished else 'no stage yet'}"]
    started = {stage.name for stage in run.stages}
    if run.missing_stages:
        parts.append("still to come: " + ", ".join(f"{stage_title(s)}{' (begun)' if s in started else ''}" for s in run.missing_stages))
    return f"This run is not finished ({'; '.join(parts)}). The page shows what there is; it can be written again at any time."


def _headline(run: Run) -> dict[str, str]:
    """The run's reported figure: the summary's headline, else the last stage with a score."""
    if not run.scored_stages:
        return {}
    last = run.scored_stages[-1]
    named = mapping(run.summary.get("headline"))
    miou = number(named.get("miou"))
    protocol = mapping(run.summary.get("protocol"))
    num_images = number(protocol.get("num_images"))
    stage = next((s for s in run.stages if miou is not None and s.name == named.get("stage")), last)
    return {
        "miou": f"{miou if miou is not None else last.miou:.1f}",
        "stage": stage.title,
        "weights": "averaged weights (EMA)" if str(named.get("weights") or stage.weights) == "ema" else "trained weights",
        "images": f"{num_images:,.0f} images" if num_images else "the validation images",
    }


def _steps(run: Run) -> list[dict[str, Any]]:
    """The cards source -> step 1 -> step 2 with the gain on the way to each."""
    found: list[dict[str, Any]] = []
    before: float | None = None
    highest = max((stage.miou or 0.0 for stage in run.main_stages), default=0.0) or 1.0
    for stage in run.main_stages:
        if stage.miou is None and run.scored_stages and not stage.training:
            continue
        found.append(
            {
                "title": stage.title,
                "words": STAGE_WORDS.get(stage.name, "") if run.method.startswith("iccld") else "",
                "miou": f"{stage.miou:.1f}" if stage.miou is not None else "",
                "share": (stage.miou or 0.0) / highest,
                "gain": gain_cell(before, stage.miou) if before is not None and stage.miou is not None else None,
                "needs_control": stage.name == "step2" and not any(s.is_control and s.miou is not None for s in run.stages),
                "source_validation": f"{stage.source_validation:.1f}" if stage.source_validation is not None else "",
                "iterations": f"{stage.iterations:,}" if stage.iterations is not None else "",
            }
        )
        before = stage.miou if stage.miou is not None else before
    return found


def _identity(run: Run) -> list[tuple[str, str, bool]]:
    """(stage, identity gap in percent, whether it is under 1 %)."""
    found = []
    for stage in run.stages:
        gap = number(stage.summary.get("identity_gap"))
        if gap is not None:
            found.append((stage.title, f"{100 * gap:.2f} %", gap < IDENTITY))
    return found


def _provenance(run: Run) -> list[tuple[str, str]]:
    protocol = mapping(run.summary.get("protocol"))
    commit = str(run.summary.get("commit") or run.environment.get("commit") or "not recorded")
    if run.environment.get("dirty"):
        commit += " with uncommitted changes"
    command = run.environment.get("command") or run.environment.get("argv")
    if isinstance(command, list):
        command = " ".join(str(part) for part in command)
    seed = run.summary.get("seed", run.config.get("seed", "not recorded"))
    rows = [
        ("Run", run.path.resolve().name),
        ("Method", run.method),
        ("Recipe", str(run.summary.get("recipe") or run.config.get("recipe") or "none named")),
        ("Seed", str(seed)),
        ("Commit", commit),
        ("Label space", str(run.summary.get("label_space") or run.config.get("label_space") or "not recorded")),
        ("Protocol", "; ".join(f"{_words(key)} {_plain(value)}" for key, value in protocol.items()) or "not scored"),
        ("Command", str(command) if command else f"iccld adapt --config {run.path.name}/config.yaml"),
        ("Page written", datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")),
    ]
    return rows


def _flat(values: Json, prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        if key in ("command", "argv", "commit", "dirty"):
            continue
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key} ")
        else:
            yield f"{prefix}{_words(key)}", _plain(value)


def _words(key: object) -> str:
    return str(key).replace("_", " ")


def _plain(value: object) -> str:
    if isinstance(value, list | tuple):
        return "×".join(str(part) for part in value)
    return "–" if value is None else str(value)
