"""The run in sentences.  Each says what was measured and what may not be concluded from it; every figure is the summary's."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import PurePath

from iccld.report.run import Json, Run, Stage, mapping, number

NOTHING = 0.3  # mIoU points; below this one run on one set of images cannot tell a change from chance
IDENTITY = 0.01  # relative change of the latent under which step 2 is called the identity
AT_ZERO = 1.0  # IoU in percent


@dataclass(frozen=True)
class Remark:
    """One sentence or two for the reader; kind: `plain`, `gain`, `loss` or `warning`."""

    text: str
    kind: str = "plain"


def signed(value: float) -> str:
    """A difference in points with its sign, a true minus, and never `-0.0`."""
    rounded = round(value, 1)
    if rounded == 0:
        return "±0.0"
    return f"{'+' if rounded > 0 else '−'}{abs(rounded):.1f}"


def points(value: float) -> str:
    """An amount of mIoU: `1.0 point`, `2.4 points`."""
    return f"{abs(value):.1f} point{'' if round(abs(value), 1) == 1 else 's'}"


def is_generated(section: Json) -> bool:
    """Whether a domain is made rather than read: it asks for scenes and names no folder."""
    return bool(number(mapping(section.get("generate")).get("num")))


def short_name(section: Json) -> str:
    """A domain in a word or two: the generated world, or the folder without its split; empty where nothing names it."""
    if is_generated(section):
        return str(mapping(section.get("generate")).get("world", "generated"))
    parts = PurePath(str(section.get("path") or "")).parts
    is_split = bool(parts) and parts[-1].lower() in {"train", "val", "test", "images"}
    return parts[-2] if is_split and len(parts) > 1 else "".join(parts[-1:])


def describe_domain(section: Json) -> str:
    """A domain in a line: where its images come from."""
    made = mapping(section.get("generate"))
    if is_generated(section):
        size = made.get("size", "?")
        size_text = "×".join(str(side) for side in size) if isinstance(size, list | tuple) else str(size).replace("x", "×")
        scenes = f"{number(made.get('num')):,.0f} generated scenes of the world “{made.get('world', '?')}”"
        return f"{scenes}, {size_text} pixels, seed {made.get('seed', '?')}"
    if not section.get("path"):
        return "not given"
    split = f", split {section['split']}" if section.get("split") else ""
    return f"{section['path']} (format {section.get('format', 'auto')}{split})"


def why_no_score(run: Run) -> str:
    """The reason why a run has no score on the target."""
    if short_name(run.section("val")):
        if not run.is_complete:
            return "The run has not finished an evaluation on its validation images yet."
        return "The validation images carry no labels that could be compared with."
    return "The target came without labels and no labelled validation images were given (val), so nobody can say how many pixels are right."


def remarks(run: Run) -> list[Remark]:
    """What there is to say about a run with scores, most important first."""
    scored = run.scored_stages
    found = [_overall(scored, "at the end" if run.is_complete else "so far")]
    for before, after in itertools.pairwise(scored):
        if len(scored) > 2 or after.name == "step2":  # otherwise the first sentence has said it
            found.append(_step(run, before, after))
    found += [remark for stage in scored for remark in _best_and_last(stage)]
    found += _model_and_ema(scored[-1])
    found += _at_zero(scored[-1])
    found += identity_remarks(run)
    found.append(
        Remark("This is one run with one seed. Differences of a point or so can be chance; several seeds and more images would tell.")
    )
    return found


def identity_remarks(run: Run) -> list[Remark]:
    """A warning for every stage whose denoiser hardly changes the latent."""
    found = []
    for stage in run.stages:
        gap = number(stage.summary.get("identity_gap"))
        if gap is not None and gap < IDENTITY:
            found.append(
                Remark(
                    f"{stage.title} is close to the identity: its denoiser changes the target latents by {100 * gap:.2f} % (identity gap, "
                    f"under 1 %), so it can hardly change a mask. With the clean latent as condition this is what a perfect denoiser does.",
                    "warning",
                )
            )
    return found


def progress_remarks(run: Run) -> list[Remark]:
    """How training went, for a run without scores: first and last of what can be measured without labels."""
    found = []
    for stage in run.main_stages:
        share = _span(stage, "pseudo_label_share", 100.0)
        entropy, agreement = _span(stage, "entropy"), _span(stage, "agreement", 100.0)
        parts = []
        if share:
            parts.append(f"the share of target pixels confident enough to teach went from {share[0]:.1f} % to {share[1]:.1f} %")
        if entropy:
            parts.append(f"the mean entropy from {entropy[0]:.2f} to {entropy[1]:.2f} nats")
        if agreement:
            parts.append(f"model and EMA agree on {agreement[1]:.1f} % of pixels ({agreement[0]:.1f} % at the start)")
        if stage.source_validation is not None:
            parts.append(f"held-out source images score {stage.source_validation:.1f} mIoU")
        if parts:
            found.append(Remark(f"{stage.title}: {', '.join(parts)}."))
    found += identity_remarks(run)
    found.append(
        Remark(
            "None of this is a score. A model that is confidently wrong also shows a high share, a low entropy and good agreement, and "
            "source images say nothing certain about the target. Look at the pictures, or label a few dozen target images and evaluate."
        )
    )
    return found


def _span(stage: Stage, key: str, scale: float = 1.0) -> tuple[float, float] | None:
    values = [value for line in stage.training if (value := number(line.get(key))) is not None]
    return (values[0] * scale, values[-1] * scale) if values else None


def _overall(scored: list[Stage], when: str) -> Remark:
    first, last = scored[0], scored[-1]
    assert first.miou is not None
    assert last.miou is not None
    if first is last:
        return Remark(f"Only {first.title.lower()} has a score: {first.miou:.1f} mIoU. There is nothing to compare it with yet.")
    gain = last.miou - first.miou
    baseline = "training on the source only" if first.name == "source" else first.title.lower()
    if abs(gain) < NOTHING:
        text = f"Adaptation changed nothing measurable: {first.miou:.1f} mIoU after {baseline}, {last.miou:.1f} {when}."
        return Remark(text, "warning")
    if gain < 0:
        text = f"Adaptation did harm: {last.miou:.1f} mIoU {when}, {points(gain)} below {baseline} ({first.miou:.1f})."
        return Remark(text, "loss")
    text = f"Adaptation brought {points(gain)} of mIoU: from {first.miou:.1f} after {baseline} to {last.miou:.1f} {when}."
    return Remark(text, "gain")


def _step(run: Run, before: Stage, after: Stage) -> Remark:
    assert before.miou is not None
    assert after.miou is not None
    gain = after.miou - before.miou
    sentence, kind = f"{after.title} gains {points(gain)} over {before.title.lower()}.", "gain"
    if abs(gain) < NOTHING:
        sentence, kind = f"{after.title} gains nothing measurable over {before.title.lower()} ({signed(gain)}).", "plain"
    elif gain < 0:
        sentence, kind = f"{after.title} loses {points(gain)} against {before.title.lower()}.", "loss"
    if after.name == "step2":
        return Remark(f"{sentence} {_control(run, after, gain)}".strip(), kind)
    return Remark(sentence, kind)


def _control(run: Run, after: Stage, gain: float) -> str:
    """What step 2's figure is worth against its control: step 1 trained for the same extra iterations."""
    assert after.miou is not None
    control = next((stage for stage in run.stages if stage.is_control and stage.miou is not None), None)
    if control is not None and control.miou is not None:
        difference = after.miou - control.miou
        verdict = "better" if difference >= NOTHING else "worse" if difference <= -NOTHING else "no different"
        return (
            f"Its control, step 1 trained for the same extra iterations, reaches {control.miou:.1f} mIoU: "
            f"step 2 is {verdict} ({signed(difference)})."
        )
    if gain < NOTHING:
        return ""
    extra = f"{after.iterations:,} " if after.iterations else ""
    return (
        f"This gain needs its control before it counts for step 2: step 1 trained for the same {extra}extra iterations, "
        "which this run does not hold."
    )


def _best_and_last(stage: Stage) -> list[Remark]:
    if stage.best is None or stage.miou is None or stage.best[0] - stage.miou < 1.0:
        return []
    miou, iteration = stage.best
    return [
        Remark(
            f"{stage.title} peaked at {miou:.1f} mIoU at iteration {iteration:,} and ended {points(miou - stage.miou)} lower. "
            "The last checkpoint is the one reported: choosing the best with the images that score it would flatter it."
        )
    ]


def _model_and_ema(stage: Stage) -> list[Remark]:
    if stage.weights != "ema" or stage.miou is None or stage.miou_model is None or abs(stage.miou - stage.miou_model) < NOTHING:
        return []
    gap = stage.miou - stage.miou_model
    relation = "above" if gap > 0 else "below"
    text = f"The averaged weights (EMA), which predict, lie {points(gap)} {relation} the trained weights ({stage.miou_model:.1f})."
    return [Remark(text)]


def _at_zero(stage: Stage) -> list[Remark]:
    names = [name for name, value in stage.iou.items() if value is not None and value < AT_ZERO]
    if not names:
        return []
    verb = "is" if len(names) == 1 else "are"
    return [Remark(f"After {stage.title.lower()}, {', '.join(names)} {verb} at zero (IoU below 1 %).", "warning")]
