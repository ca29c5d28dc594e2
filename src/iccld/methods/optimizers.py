"""The optimiser of a stage: what came with weights learns at the stage's rate, everything else at `head_factor` times that."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import torch
from torch import nn

from iccld.methods.ingredients import Optimisation, adamw
from iccld.models import Segmenter

Make = Callable[[list[nn.Parameter], Optimisation], torch.optim.Optimizer]
"""Parameters and their stage -> an optimiser of all of them at the stage's rate."""


def segmenter_optimizer(
    segmenter: Segmenter, optimisation: Optimisation, *heads: nn.Module, make: Make | None = None
) -> torch.optim.Optimizer:
    """AdamW or SGD with momentum 0.9, or what `make` gives, over the trainable parameters of the segmenter and of further heads.

    The encoder learns at the stage's rate, but for its new layers; those, the decoder and the heads at `head_factor` times that.
    A schedule multiplies each group's own rate, so the ratio holds throughout.
    """
    head = _trainable(segmenter.decoder, *heads)
    encoder = _trainable(segmenter.encoder)
    if optimisation.head_factor != 1:
        new = {id(parameter) for parameter in _trainable(*_new_layers(segmenter.encoder))}
        head = [parameter for parameter in encoder if id(parameter) in new] + head
        encoder = [parameter for parameter in encoder if id(parameter) not in new]
    return two_rates(encoder, head, optimisation, make)


def two_rates(
    pretrained: list[nn.Parameter], new: list[nn.Parameter], optimisation: Optimisation, make: Make | None = None
) -> torch.optim.Optimizer:
    """One optimiser for both; the new ones at `head_factor` times the rate.  Either list may be empty."""
    make = make or (_sgd if optimisation.optimizer == "sgd" else adamw)
    if optimisation.head_factor == 1 and make is not _sgd:
        return make([*pretrained, *new], optimisation)
    faster = replace(optimisation, learning_rate=optimisation.learning_rate * optimisation.head_factor)
    made = [make(parameters, plan) for parameters, plan in ((pretrained, optimisation), (new, faster)) if parameters]
    for group in made[-1].param_groups if len(made) > 1 else []:
        made[0].add_param_group(group)
    return made[0]


def _sgd(parameters: list[nn.Parameter], optimisation: Optimisation) -> torch.optim.SGD:
    return torch.optim.SGD(parameters, lr=optimisation.learning_rate, momentum=0.9, weight_decay=optimisation.weight_decay)


def _new_layers(encoder: nn.Module) -> Iterable[nn.Module]:
    """The layers that an encoder says do not come with pre-trained weights; none where it says nothing."""
    told: Callable[[], Iterable[nn.Module]] | None = getattr(encoder, "new_layers", None)
    return () if told is None else told()


def _trainable(*modules: nn.Module) -> list[nn.Parameter]:
    return [parameter for module in modules for parameter in module.parameters() if parameter.requires_grad]
