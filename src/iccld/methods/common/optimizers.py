"""The optimiser of a segmenter as its stage asks for it."""

from __future__ import annotations

from typing import Any

import torch

from iccld.config.optimisation import Optimisation
from iccld.methods.common.parts import adamw
from iccld.models import Segmenter


def segmenter_optimizer(segmenter: Segmenter, optimisation: Optimisation, *heads: torch.nn.Module) -> torch.optim.Optimizer:
    """AdamW or SGD with momentum 0.9 over the segmenter and further heads; everything but the encoder at `head_factor` times the rate.

    A schedule multiplies each group's own rate, so the ratio holds throughout.
    """
    head = [p for module in (segmenter.decoder, *heads) for p in module.parameters() if p.requires_grad]
    encoder = [p for p in segmenter.encoder.parameters() if p.requires_grad]
    head_rate = optimisation.learning_rate * optimisation.head_factor
    if optimisation.optimizer == "sgd":
        groups: list[dict[str, Any]] = [{"params": encoder}, {"params": head, "lr": head_rate}]
        return torch.optim.SGD(groups, lr=optimisation.learning_rate, momentum=0.9, weight_decay=optimisation.weight_decay)
    made = adamw(encoder + head, optimisation)
    if optimisation.head_factor != 1:
        made = adamw(encoder, optimisation)
        for group in adamw(head, optimisation).param_groups:
            made.add_param_group({"params": group["params"], "weight_decay": group["weight_decay"], "lr": head_rate})
    return made
