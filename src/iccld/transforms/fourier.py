"""Fourier style exchange (Yang and Soatto, FDA, CVPR 2020, Eq. 3): the low-frequency amplitude of another image, the own phase."""

from __future__ import annotations

import torch
from torch import Tensor

from iccld.transforms.draw import Draw


def exchange_amplitude(
    image: Tensor, style: Tensor, draw: Draw, *, probability: float = 1.0, share: tuple[float, float] = (0.005, 0.02)
) -> Tensor:
    """Give each image the low-frequency amplitude of its style image: (B, 3, H, W) twice, 0..1 -> (B, 3, H, W), 0..1.

    share: half-side of the exchanged square of centred frequencies over min(H, W) (the paper's beta), drawn per sample; at least
    the mean colour is exchanged.  A row is left untouched with probability 1 - `probability`.
    """
    batch, _, height, width = image.shape
    beta = draw.uniform(batch, low=share[0], high=share[1])
    radius = (beta * min(height, width)).floor()  # (B,) in frequency bins
    spectrum = torch.fft.rfft2(image)  # (B, 3, H, W//2+1)
    amplitude, style_amplitude = spectrum.abs(), torch.fft.rfft2(style).abs()
    frequency_y = torch.fft.fftfreq(height, device=image.device).mul(height).abs()
    frequency_x = torch.fft.rfftfreq(width, device=image.device).mul(width)
    farthest = torch.maximum(frequency_y[:, None], frequency_x[None, :])  # (H, W//2+1)
    low = (farthest[None] <= radius[:, None, None])[:, None]  # (B, 1, H, W//2+1)
    mixed = torch.where(low, style_amplitude, amplitude)
    restyled = torch.fft.irfft2(spectrum * (mixed / amplitude.clamp(min=1e-8)), s=(height, width)).clamp(0, 1)
    return torch.where(draw.chosen(batch, probability)[:, None, None, None], restyled, image)
