"""What methods on one segmenter have in common: the network, its average, its optimiser and schedule, and how it predicts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cached_property, partial
from typing import Generic, TypeVar

import torch
from torch import nn

from iccld.config.optimisation import Optimisation
from iccld.methods.common.average import Ema
from iccld.methods.common.optimizers import segmenter_optimizer
from iccld.methods.common.parts import Parts
from iccld.methods.common.protocol import Method, Schedule
from iccld.methods.common.schedule import warmup_poly
from iccld.models import Segmenter
from iccld.predictor import Predictor

S = TypeVar("S")
"""The method's own settings."""


class SegmenterMethod(Method, Generic[S]):
    """A segmenter that one optimiser trains, and its average, all named "segmenter".  A subclass adds `step`, and what else it has.

    Further networks, optimisers and schedules go beside these: `{**super().networks(), "discriminator": self.discriminator}`.
    """

    model: nn.Module
    """What is trained; a subclass that looks into it says of what kind it is: `model: Segmenter`."""

    def __init__(
        self,
        parts: Parts,
        settings: S,
        optimisation: Optimisation,
        segmenter: Segmenter,
        *,
        model: nn.Module | None = None,
        heads: Iterable[nn.Module] = (),
        optimizer: Callable[[], torch.optim.Optimizer] | None = None,
        schedule: Callable[[torch.optim.Optimizer], Schedule] | None = None,
    ) -> None:
        """Train `segmenter`, in a larger `model` where there is one, with further `heads` in its optimiser.

        `optimizer` and `schedule` replace the stage's usual ones, `segmenter_optimizer` and `warmup_poly`.  They are made when training is
        set up: the first optimiser of a process makes PyTorch import its compiler, for seconds, and to predict takes none.
        """
        self.parts = parts
        self.settings = settings
        self.model = segmenter if model is None else model
        self.ema = Ema(self.model, optimisation.ema_decay)
        self._make_optimizer = optimizer or (lambda: segmenter_optimizer(segmenter, optimisation, *heads))
        self._make_schedule = schedule or partial(
            warmup_poly, iterations=optimisation.iterations, warmup=optimisation.warmup_steps, power=optimisation.power
        )

    @cached_property
    def optimizer(self) -> torch.optim.Optimizer:
        """The segmenter's optimiser."""
        return self._make_optimizer()

    @cached_property
    def schedule(self) -> Schedule:
        """Its schedule."""
        return self._make_schedule(self.optimizer)

    def networks(self) -> Mapping[str, nn.Module]:
        return {"segmenter": self.model}

    def ema_networks(self) -> Mapping[str, nn.Module]:
        return {"segmenter": self.ema.module}

    def optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        return {"segmenter": self.optimizer}

    def schedules(self) -> Mapping[str, Schedule]:
        return {"segmenter": self.schedule}

    def predictor(self, weights: str = "ema") -> Predictor:
        return self.parts.predictor(self.ema.module if weights == "ema" else self.model)
