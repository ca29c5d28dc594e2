"""Pseudo-labels that have collapsed: seen in what is logged anyway, named once for each way of collapsing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

LEAST_ITERATIONS = 100
"""Iterations without a break before anything is said: the first ones of a stage say little."""

LEAST_PART = 0.1
"""The same as a part of the stage."""

FEW, ALL = 0.01, 0.99
"""Shares of confident pixels below and above which the weight of the pseudo-labels is stuck."""

ONE_CLASS = 0.95
"""Share of one class among the pseudo-labels above which the others are lost."""

LOST = 0.25
"""Part of the other classes' share in the source below which they are lost among the pseudo-labels."""

SENTENCES = {
    "few": "fewer than 1 % of the target's pixels are confident, so they teach nothing; lower the threshold or train source longer",
    "all": "more than 99 % of the target's pixels are confident, so the threshold selects nothing; raise it",
    "one_class": "one class has more than 95 % of the pseudo-labels; train source longer, or balance the classes (sampling)",
}


class PseudoLabelWatch:
    """Follows the logged means of a stage of `iterations` steps.

    class_shares: of the source's labelled pixels, 0..1, by train id; where one class fills nearly everything there, it may do so here.
    """

    def __init__(self, iterations: int, class_shares: Sequence[float] = ()) -> None:
        self.class_shares = tuple(class_shares)
        self.patience = max(LEAST_ITERATIONS, LEAST_PART * iterations)
        self.since: dict[str, int] = {}
        self.told: list[str] = []

    def due_warnings(self, means: Mapping[str, Any], start: int, end: int) -> list[str]:
        """Sentences that are due and new, from the means of the iterations `start` .. `end` - 1."""
        due = []
        holds = _collapses(means, self.class_shares)
        for kind in SENTENCES:
            if not holds[kind]:
                self.since.pop(kind, None)
                continue
            since = self.since.setdefault(kind, start)
            if end - since >= self.patience and kind not in self.told:
                self.told.append(kind)
                due.append(f"since iteration {since} {SENTENCES[kind]}")
        return due

    def state_dict(self) -> dict[str, Any]:
        """What a resumed stage continues from."""
        return {"since": dict(self.since), "told": list(self.told)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        self.since = {str(kind): int(iteration) for kind, iteration in state["since"].items()}
        self.told = [str(kind) for kind in state["told"]]


def _collapses(means: Mapping[str, Any], class_shares: Sequence[float]) -> dict[str, bool]:
    """Kind -> whether these means show it; comparisons with NaN are false."""
    share = means.get("pseudo_label_share", float("nan"))
    histogram = means.get("pseudo_label_histogram") or [float("nan")]
    largest = max(range(len(histogram)), key=histogram.__getitem__)
    others_in_source = 1 - class_shares[largest] if largest < len(class_shares) else 1.0
    is_lost = 1 - histogram[largest] < LOST * others_in_source
    return {"few": share < FEW, "all": share > ALL, "one_class": histogram[largest] > ONE_CLASS and is_lost}
