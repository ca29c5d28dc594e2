"""A network in the form that exporters take: no Python decision may depend on a picture's size, nothing may ask for the CPU's own paths."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iccld.diffusion import DdimSampler
from iccld.errors import ConfigError
from iccld.models import DiffusionSegmenter
from iccld.models.denoiser import Denoiser
from iccld.models.efficientnet import ConvNorm
from iccld.models.two_resolutions import TwoResolutions


class Exported(nn.Module):
    """(B, 3, H, W) float32 RGB in 0..1 [, (B, C, H/s, W/s) noise] -> (B, K, h, w) float32 logits: normalisation, then the network."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(mean)[None, :, None, None])
        self.register_buffer("std", torch.tensor(std)[None, :, None, None])

    def forward(self, image: Tensor, noise: Tensor | None = None) -> Tensor:
        return cast(Tensor, self.network((image - self.mean) / self.std, noise))


class FusedConv(nn.Module):
    """What `ConvNorm` computes, with the norm inside kernel and bias, for sides that are multiples of the stride."""

    def __init__(self, layer: ConvNorm) -> None:
        super().__init__()
        with torch.no_grad():
            scale, shift = layer.affine()
            weight = layer.weight * scale[:, None, None, None]
        channels_out, _, kernel, _ = weight.shape
        added = max(kernel - layer.stride, 0)  # zeros that a side of whole strides gets, the odd one at its end
        before, after = added // 2, added - added // 2
        self.pad = (before, after, before, after) if before != after else None
        padding = 0 if self.pad else before
        self.conv = nn.Conv2d(weight.shape[1] * layer.groups, channels_out, kernel, layer.stride, padding, groups=layer.groups)
        self.conv.weight.data, self.conv.bias.data = weight.contiguous(), shift.contiguous()  # type: ignore[union-attr]
        self.has_activation = layer.has_activation

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x if self.pad is None else F.pad(x, self.pad))
        return x.clamp(0.0, 6.0) if self.has_activation else x


def padded_by_look_up(x: Tensor, multiple: int) -> Tensor:
    """`padded` of the denoiser, looked up instead of decided: the same for every size.  (B, C, h, w) -> sides rounded up."""
    for axis in (2, 3):
        side = x.shape[axis]
        whole = (side + multiple - 1) // multiple * multiple
        x = x.index_select(axis, torch.arange(whole, device=x.device).clamp(max=side - 1))  # the last row or column repeated
    return x


def exportable(network: nn.Module, mean: Sequence[float], std: Sequence[float]) -> Exported:
    """A copy on the CPU, in float32 and evaluation mode; ConfigError with the reason for a network that cannot be exported."""
    refuse_unexportable(network)
    plain = copy.deepcopy(network).to("cpu", torch.float32).to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    _replaced(plain)
    return Exported(plain, mean, std).eval().requires_grad_(False)


def refuse_unexportable(network: nn.Module) -> None:
    """ConfigError for several denoising steps, windows inside the network, and a denoiser that reads its condition as tokens."""
    if any(isinstance(module, TwoResolutions) for module in network.modules()):
        raise ConfigError(
            "this network moves windows of its own over a picture (HRDA, MIC), a loop of another length for every size; no format here "
            "holds it: predict with the run"
        )
    for module in network.modules():
        if isinstance(module, DiffusionSegmenter):
            steps = module.sampler.num_steps if isinstance(module.sampler, DdimSampler) else None
            if steps != 1:
                raise ConfigError(
                    f"the model denoises in {steps or 'unknown'} steps, and every step would be one more copy of the denoiser in the file; "
                    "export one step (--sampler_steps 1)"
                )
        if isinstance(module, Denoiser) and module.tokens is not None:
            raise ConfigError("the denoiser reads its condition as tokens (network.conditioning attention), which no exporter follows")


def _replaced(network: nn.Module) -> None:
    """Put the exportable forms in the place of the layers that have one, in place."""
    for name, child in network.named_children():
        if isinstance(child, ConvNorm):
            setattr(network, name, FusedConv(child))
        elif isinstance(child, Denoiser):
            child.pad = padded_by_look_up
        else:
            _replaced(child)
