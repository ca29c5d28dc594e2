"""Colour jitter, blur and sensor noise, one draw per sample.  Images are (B, 3, H, W) float32 in 0..1, and stay there."""

from __future__ import annotations

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from iccld.transforms.draw import Draw, where_chosen
from iccld.transforms.precision import full_precision

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green, blue in the luma of ITU-R BT.601."""


@full_precision
def jitter(image: Tensor, draw: Draw, *, probability: float = 0.8, strength: float = 0.25, white_balance: float = 0.0) -> Tensor:
    """Brightness, contrast, saturation and hue, each by up to `strength`; gamma by up to 2^strength; channel gains by `white_balance`.

    (B, 3, H, W) -> the same; a row is left untouched with probability 1 - `probability`.  The hue is turned in YIQ (a rotation of
    the two chroma axes by up to strength * 0.5 rad), a matrix product instead of a conversion to HSV and back: 20 times faster.
    """
    batch = image.shape[0]
    device = image.device
    luma = torch.tensor(LUMA, device=device)

    def amount(spread: float) -> Tensor:
        return 1 + spread * draw.uniform(batch, low=-1, high=1)[:, None, None, None]

    brightness, contrast, saturation = amount(strength), amount(strength), amount(2 * strength)
    gamma = torch.exp2(2 * strength * draw.uniform(batch, low=-1, high=1))[:, None, None, None]
    gains = torch.exp2(white_balance * draw.uniform(batch, (3,), low=-1, high=1))[:, :, None, None]
    turn = _hue_matrix(0.5 * strength * draw.uniform(batch, low=-1, high=1), luma)  # (B, 3, 3)
    # All but clamp and gamma is one affine map of the colours, since each step keeps what the next one is told: x -> mixing x + offset.
    saturated = saturation.clamp(min=0).view(batch, 1, 1)
    mixing = saturated * torch.eye(3, device=device) + (1 - saturated) * luma
    mixing = gains.view(batch, 3, 1) * (turn @ mixing) * (contrast * brightness).view(batch, 1, 1)  # (B, 3, 3)
    middle = image.mean((2, 3)) @ luma
    offset = middle * ((1 - contrast) * brightness).flatten()  # (B,)
    x = torch.baddbmm(offset.view(batch, 1, 1), mixing, image.flatten(2)).view(image.shape)
    x = x.clamp_(1e-4, 1).log2_().mul_(gamma).exp2_()  # to the power of gamma, in half the time
    return where_chosen(draw.chosen(batch, probability), x, image)


def _hue_matrix(angle: Tensor, luma: Tensor) -> Tensor:
    """(B,) radians -> (B, 3, 3): the rotation of RGB about the grey axis, kept orthogonal to luma."""
    forward = torch.tensor([[0.299, 0.587, 0.114], [0.595716, -0.274453, -0.321263], [0.211456, -0.522591, 0.311135]], device=luma.device)
    cosine, sine = angle.cos(), angle.sin()
    rotation = torch.zeros(len(angle), 3, 3, device=luma.device)
    rotation[:, 0, 0] = 1
    rotation[:, 1, 1], rotation[:, 1, 2] = cosine, -sine
    rotation[:, 2, 1], rotation[:, 2, 2] = sine, cosine
    matrix: Tensor = torch.linalg.inv(forward) @ rotation @ forward
    return matrix


@full_precision
def blur(image: Tensor, draw: Draw, *, probability: float = 0.5, sigma: tuple[float, float] = (0.15, 1.15)) -> Tensor:
    """Gaussian blur with sigma drawn per sample in pixels (DACS: U(0.15, 1.15) with probability 0.5): (B, 3, H, W) -> the same."""
    batch = image.shape[0]
    width = draw.uniform(batch, low=sigma[0], high=sigma[1])
    chosen = draw.chosen(batch, probability)
    return gaussian_blur(image, width * chosen, radius=int(2.5 * sigma[1] + 0.5))  # a width of 0 changes nothing


def gaussian_blur(image: Tensor, sigma: Tensor, radius: int) -> Tensor:
    """Each image with its own Gaussian: (B, C, H, W), (B,) standard deviations in pixels -> (B, C, H, W).

    The Gaussian exp(-n² / 2σ²) at the offsets n = -radius..radius, scaled to sum 1, along rows and then along columns; borders are mirrored
    about the outermost pixel, so both sides must be longer than `radius`.  σ = 0 leaves the image as it is.
    """
    batch, channels, height, width = image.shape
    offset = torch.arange(2 * radius + 1, device=image.device, dtype=image.dtype) - radius
    variance = sigma[:, None].to(image.dtype).pow(2)
    weight = torch.exp(-offset.pow(2) / (2 * variance).clamp(min=torch.finfo(image.dtype).tiny))  # (B, 2 radius + 1)
    weight = weight / weight.sum(-1, keepdim=True)
    is_plain = image.device.type == "cpu" and image.dtype == torch.float32 and not (image.requires_grad or weight.requires_grad)
    if is_plain and min(height, width) > radius:
        return _filtered(image, weight)
    kernel = weight.repeat_interleave(channels, 0)[:, None]  # (B C, 1, 2 radius + 1): one convolution whose groups are the B C planes
    planes = image.reshape(1, batch * channels, height, width)
    planes = F.conv2d(F.pad(planes, (radius, radius, 0, 0), mode="reflect"), kernel[:, :, None, :], groups=batch * channels)
    planes = F.conv2d(F.pad(planes, (0, 0, radius, radius), mode="reflect"), kernel[:, :, :, None], groups=batch * channels)
    return planes.reshape(image.shape)


def _filtered(image: Tensor, weight: Tensor) -> Tensor:
    """The same by OpenCV, plane by plane, in a fifth of the time: (B, C, H, W), (B, N) -> (B, C, H, W)."""
    answer = torch.empty_like(image, memory_format=torch.contiguous_format)
    for planes, kernel, blurred in zip(image.numpy(), weight.numpy(), answer.numpy(), strict=True):
        if kernel.max() == 1:  # of no width
            np.copyto(blurred, planes)
            continue
        for plane, out in zip(planes, blurred, strict=True):
            cv2.sepFilter2D(plane, -1, kernel, kernel, dst=out, borderType=cv2.BORDER_REFLECT_101)
    return answer


def sensor_noise(image: Tensor, draw: Draw, *, probability: float = 0.5, std: float = 0.03) -> Tensor:
    """Additive Gaussian noise, its standard deviation drawn per sample from 0..std (of full scale): (B, 3, H, W) -> the same."""
    batch = image.shape[0]
    amount = std * draw.uniform(batch) * draw.chosen(batch, probability)
    noise = draw.normal(batch, tuple(image.shape[1:]))
    return (image + amount[:, None, None, None] * noise).clamp(0, 1)
