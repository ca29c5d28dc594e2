"""From what networks say to how often they are right: fitted on labelled pixels, applied to pixels without labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as functional
from torch import Tensor

from iccld.evaluation.unlabelled.seen import Seen

LARGEST_ODDS = 12.0
"""Log-odds beyond which a probability counts as certain."""
LEAST_LOG = -8.0
"""Logarithms of probabilities below this are taken for it."""
LARGEST_FIT = 40_000
"""Pixels from which a regression learns no more."""
RIDGE = 1e-4
"""Weight of the squared coefficients beside a mean log-loss."""


def fit_temperature(log_probability: Tensor, truth: Tensor) -> float:
    """The factor on the logits with the least log-loss (Guo et al., ICML 2017; the inverse of their T): (N, K), (N,) -> number above 0.

    1 for a calibrated voice, below 1 for an overconfident one.  Newton's method on the factor's logarithm, which has one minimum.
    """
    logits = log_probability.double()
    own = logits.gather(1, truth[:, None])[:, 0]  # (N,)
    factor = 1.0
    for _ in range(50):
        probability = (factor * logits).softmax(1)
        mean = (probability * logits).sum(1)
        slope = float((mean - own).mean())
        curvature = float(((probability * logits.square()).sum(1) - mean.square()).mean())
        step = slope / max(curvature, 1e-12)
        factor = min(max(factor - step, factor / 2), factor * 2, 100.0)
        if abs(step) < 1e-7 * factor:
            break
    return max(factor, 1e-3)


def tempered(log_probability: Tensor, factor: float) -> Tensor:
    """Log-probabilities with their logits times a factor: (N, K) -> (N, K)."""
    return (log_probability * factor).log_softmax(1)


@dataclass(frozen=True)
class Correctness:
    """The probability that a voice is right at a pixel, by a logistic regression on what all voices say there.

    main: the voice that is judged.  others: the voices that it is compared with.  hears_itself: whether its own confidence counts.
    mean, scale: (F,) of the features.  weight: (F + 1,), the intercept last.
    """

    main: str
    others: tuple[str, ...]
    hears_itself: bool
    weight: Tensor
    mean: Tensor
    scale: Tensor

    def __call__(self, seen: Seen) -> Tensor:
        """(N,) float64 in 0..1."""
        x = (correctness_features(seen, self.main, self.others, self.hears_itself) - self.mean) / self.scale
        return (x @ self.weight[:-1] + self.weight[-1]).sigmoid()


def fit_correctness(seen: Seen, main: str, others: Sequence[str], hears_itself: bool = True) -> Correctness:
    """Fit on labelled pixels, by Newton's method with a little ridge; ValueError without labels.

    Of more than `LARGEST_FIT` pixels as many are taken, evenly.
    """
    seen = seen.only(torch.linspace(0, len(seen) - 1, LARGEST_FIT).long()) if len(seen) > LARGEST_FIT else seen
    features = correctness_features(seen, main, tuple(others), hears_itself)  # (N, F)
    mean, scale = features.mean(0), features.std(0, unbiased=False).clamp(min=1e-3)
    x = torch.cat([(features - mean) / scale, torch.ones(len(seen), 1, dtype=features.dtype)], 1)
    return Correctness(main, tuple(others), hears_itself, _logistic(x, seen.right(main).double()), mean, scale)


def correctness_features(seen: Seen, main: str, others: Sequence[str], hears_itself: bool = True) -> Tensor:
    """What tells whether `main` is right: -> (N, F) float64.

    Its log-odds and entropy where it hears itself; what each other voice says of its class, whether it decides for that class, and how
    sure it is of its own; and the class, since some classes are seen where they are not, and confidently.
    """
    said = seen.voices[main].double()
    chosen = said.argmax(1, keepdim=True)
    columns = []
    if hears_itself:
        top = said.gather(1, chosen)[:, 0]
        odds = (top - torch.log1p(-top.exp()).clamp(min=-LARGEST_ODDS)).clamp(-LARGEST_ODDS, LARGEST_ODDS)
        columns += [odds, -(said.exp() * said.clamp(min=-100)).sum(1)]
    for other in others:
        heard = seen.voices[other]
        best, decided = heard.max(1)
        columns.append(heard.gather(1, chosen)[:, 0].double().clamp(min=LEAST_LOG))
        columns.append((decided == chosen[:, 0]).double())
        columns.append(best.double().clamp(min=LEAST_LOG))
    classes = functional.one_hot(chosen[:, 0], seen.num_classes).double()
    return torch.cat([torch.stack(columns, 1), classes], 1) if columns else classes


def _logistic(x: Tensor, right: Tensor) -> Tensor:
    """Coefficients of least mean log-loss plus `RIDGE` times their squares: (N, F), (N,) in 0..1 -> (F,)."""
    weight = x.new_zeros(x.shape[1])
    ridge = RIDGE * torch.eye(x.shape[1], dtype=x.dtype)
    for _ in range(100):
        probability = (x @ weight).clamp(-30, 30).sigmoid()
        slope = x.T @ (probability - right) / len(x) + RIDGE * weight
        curvature = (x * (probability * (1 - probability))[:, None]).T @ x / len(x) + ridge
        step = torch.linalg.solve(curvature, slope)
        step = step / max(1.0, float(step.norm()) / 2)  # no leap where the curve is flat
        weight = weight - step
        if float(step.norm()) < 1e-8:
            break
    return weight


def spread_over_classes(log_probability: Tensor, right: Tensor) -> Tensor:
    """Probabilities whose winner has the probability `right` and whose others keep their proportions: (N, K), (N,) -> (N, K) float64."""
    probability = log_probability.double().exp()
    chosen = probability.argmax(1, keepdim=True)
    rest = probability.scatter(1, chosen, 0.0)
    total = rest.sum(1, keepdim=True)
    even = functional.one_hot(chosen[:, 0], probability.shape[1]).double().neg().add(1) / max(probability.shape[1] - 1, 1)
    rest = torch.where(total > 1e-12, rest / total.clamp(min=1e-12), even) * (1 - right.double())[:, None]
    return rest.scatter(1, chosen, right.double()[:, None])
