"""How good a prediction is: one confusion matrix over a split, its IoUs, and the loops that fill it."""

from iccld.evaluation.bootstrap import Interval, bootstrap_difference, bootstrap_miou, bootstrap_over_seeds
from iccld.evaluation.confusion import Confusion, Scores
from iccld.evaluation.conventions import all_means, convention_of, own_means, synthia_scores
from iccld.evaluation.decision import decide, resize_rows
from iccld.evaluation.evaluate import evaluate
from iccld.evaluation.masks import evaluate_predictions
from iccld.evaluation.record import Record
from iccld.evaluation.sliding import sliding_window, window_starts
from iccld.evaluation.views import teacher_logits

__all__ = [
    "Confusion",
    "Interval",
    "Record",
    "Scores",
    "all_means",
    "bootstrap_difference",
    "bootstrap_miou",
    "bootstrap_over_seeds",
    "convention_of",
    "decide",
    "evaluate",
    "evaluate_predictions",
    "own_means",
    "resize_rows",
    "sliding_window",
    "synthia_scores",
    "teacher_logits",
    "window_starts",
]
