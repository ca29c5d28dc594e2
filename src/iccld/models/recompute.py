"""Gradient checkpointing: blocks forget their activations and compute them again in the backward pass."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


def run_block(block: nn.Module, *inputs: Any, recompute: bool) -> Any:
    """`block(*inputs)`; with `recompute`, its activations are not kept for the backward pass.

    Nothing changes where no gradient is asked for.  Non-reentrant, so that `backward(inputs=...)` reaches the parameters and
    autocast and random numbers are those of the first time.
    """
    if recompute and torch.is_grad_enabled():
        return checkpoint(block, *inputs, use_reentrant=False)
    return block(*inputs)
