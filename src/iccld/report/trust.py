"""What the run knows of itself without labels: estimated scores, agreements, entropy, class shares."""

from __future__ import annotations

from dataclasses import dataclass

from iccld.report.run import Json, Run, mapping, number, stage_title

UNKNOWN = "Did adaptation help? That cannot be told from these pictures, since the interval holds 0: "
ANSWERS = {
    "yes": "Did adaptation help? Yes, by this estimate: ",
    "no": "Did adaptation help? No, by this estimate: ",
    "unknown": UNKNOWN,
    "probably": UNKNOWN,  # of earlier runs, as is the next
    "probably not": UNKNOWN,
}
VOICES = {
    "flip": "the mirrored picture",
    "smaller": "the picture at 3/4 of its size",
    "model": "the trained weights",
    "source": "source only",
}
MANY_POINTS = 2.0
"""Percentage points of a class's share from which on it is told."""


@dataclass(frozen=True)
class Trust:
    """The section's texts.  scores: (stage, accuracy, mIoU, true mIoU).  agreement: (with whom, on the target, on the source)."""

    pictures: int
    scores: list[tuple[str, str, str, str]]
    answer: str
    agreement: list[tuple[str, str, str]]
    entropy: tuple[str, str]
    shares: list[tuple[str, str, str]]
    """(class, share of the target's predictions, of the source's labels), the largest differences first."""


def trust(run: Run) -> Trust | None:
    """What summary.json tells under `trust`; None where nothing was estimated."""
    told = mapping(run.summary.get("trust"))
    stages = mapping(told.get("stages"))
    if not stages:
        return None
    true = {stage.name: stage.miou for stage in run.stages}
    scores = [
        (stage_title(name), _interval(mapping(each).get("pixel_accuracy")), _interval(mapping(each).get("miou")), _text(true.get(name)))
        for name, each in stages.items()
    ]
    agreement = mapping(told.get("agreement"))
    here, there = mapping(agreement.get("target")), mapping(agreement.get("source"))
    rows = [(VOICES.get(name, stage_title(name)), _text(value), _text(there.get(name))) for name, value in here.items()]
    entropy = mapping(told.get("entropy"))
    pictures = int(number(told.get("pictures")) or 0)
    bits = (_text(entropy.get("target"), 2), _text(entropy.get("source"), 2))
    return Trust(pictures, scores, _answer(mapping(told.get("gain"))), rows, bits, _shares(mapping(told.get("class_shares"))))


def estimated(run: Run) -> str:
    """The last stage's estimated mIoU with its interval, for a page without a score; empty where there is none."""
    found = trust(run)
    return found.scores[-1][2] if found else ""


def _answer(gain: Json) -> str:
    miou = mapping(gain.get("miou"))
    words, value = ANSWERS.get(str(gain.get("answer"))), number(miou.get("value"))
    if words is None or value is None:
        return ""
    change = f"mIoU from {stage_title(str(gain.get('from'))).lower()} to {stage_title(str(gain.get('to'))).lower()} {value:+.1f} points"
    low, high = number(miou.get("low")) or 0.0, number(miou.get("high")) or 0.0
    return f"{words}{change} ({low:+.1f} to {high:+.1f}).".replace("-", "−")


def _shares(told: Json) -> list[tuple[str, str, str]]:
    here, there = mapping(told.get("target")), mapping(told.get("source"))
    apart = sorted(here, key=lambda name: -abs((number(here[name]) or 0.0) - (number(there.get(name)) or 0.0)))
    kept = [name for name in apart if abs((number(here[name]) or 0.0) - (number(there.get(name)) or 0.0)) >= MANY_POINTS]
    return [(name, _text(here[name]), _text(there.get(name))) for name in kept[:8]]


def _interval(figure: object) -> str:
    found = mapping(figure)
    value, low, high = (number(found.get(key)) for key in ("value", "low", "high"))
    if value is None or low is None or high is None:
        return "–"
    return f"{value:.1f} ({low:.1f} to {high:.1f})"


def _text(value: object, decimals: int = 1) -> str:
    found = number(value)
    return "–" if found is None else f"{found:.{decimals}f}"
