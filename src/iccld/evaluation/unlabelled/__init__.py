"""How good a prediction is where there are no labels: estimates of accuracy and mIoU, each a pure function of what networks say."""

from iccld.evaluation.unlabelled.judge import Figure, Judged, Judgement, answer, judge, judged_voice, preferred
from iccld.evaluation.unlabelled.seen import Seen, joined

__all__ = ["Figure", "Judged", "Judgement", "Seen", "answer", "joined", "judge", "judged_voice", "preferred"]
