"""Fourier style exchange (Yang and Soatto, FDA, CVPR 2020, Eq. 3): the low-frequency amplitude of another image, the own phase."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from iccld.transforms.draw import Draw, where_chosen
from iccld.transforms.precision import full_precision


@full_precision
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
    largest = math.floor(share[1] * min(height, width) + 1e-3)
    by = _among_few if 4 * largest < min(height, width) else _among_all
    restyled = by(image, style, radius, largest).clamp(0, 1)
    return where_chosen(draw.chosen(batch, probability), restyled, image)


def _among_all(image: Tensor, style: Tensor, radius: Tensor, largest: int) -> Tensor:
    """By the transform of the whole picture, for squares that may reach to its highest frequencies."""
    height, width = image.shape[2:]
    spectrum = torch.fft.rfft2(image)  # (B, 3, H, W//2+1)
    amplitude, style_amplitude = spectrum.abs(), torch.fft.rfft2(style).abs()
    frequency_y = torch.fft.fftfreq(height, device=image.device).mul(height).abs()
    frequency_x = torch.fft.rfftfreq(width, device=image.device).mul(width)
    mixed = torch.where(_low(frequency_y, frequency_x, radius), style_amplitude, amplitude)
    changed: Tensor = torch.fft.irfft2(spectrum * (mixed / amplitude.clamp(min=1e-8)), s=(height, width))
    return changed


def _among_few(image: Tensor, style: Tensor, radius: Tensor, largest: int) -> Tensor:
    """The same up to rounding where frequencies up to `largest` are all that may change: products with their waves give those alone."""
    height, width = image.shape[2:]
    rows, columns = _waves(range(-largest, largest + 1), height, image.device), _waves(range(largest + 1), width, image.device)
    spectrum, style_amplitude = _spectrum(image, rows, columns), _spectrum(style, rows, columns).abs()
    frequency = torch.arange(-largest, largest + 1, device=image.device).abs()
    gain = style_amplitude / spectrum.abs().clamp(min=1e-8) - 1
    return image + _picture(torch.where(_low(frequency, frequency[largest:], radius), gain, 0) * spectrum, rows, columns)


def _low(frequency_y: Tensor, frequency_x: Tensor, radius: Tensor) -> Tensor:
    """(F,), (G,), (B,) -> (B, 1, F, G) bool: which lie in each picture's square."""
    farthest = torch.maximum(frequency_y[:, None], frequency_x[None, :])
    return (farthest[None] <= radius[:, None, None])[:, None]


def _waves(frequencies: range, side: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosine and sine of each frequency at each place of a side: (F, side) twice."""
    turns = torch.arange(frequencies.start, frequencies.stop)[:, None] * torch.arange(side) % side  # exact: whole numbers
    angle = turns.double() * (2 * math.pi / side)
    return angle.cos().float().to(device), angle.sin().float().to(device)


def _spectrum(image: Tensor, rows: tuple[Tensor, Tensor], columns: tuple[Tensor, Tensor]) -> Tensor:
    """The picture's Fourier transform at these frequencies of rows and columns: (B, 3, H, W) -> (B, 3, F, G) complex."""
    along_cos, along_sin = image @ columns[0].t(), image @ columns[1].t()  # (B, 3, H, G) twice
    return torch.complex(rows[0] @ along_cos - rows[1] @ along_sin, -(rows[0] @ along_sin + rows[1] @ along_cos))


def _picture(spectrum: Tensor, rows: tuple[Tensor, Tensor], columns: tuple[Tensor, Tensor]) -> Tensor:
    """The inverse of `_spectrum`, nothing at other frequencies: those of negative columns are the others' mirror images."""
    height, width = rows[0].shape[1], columns[0].shape[1]
    twice = torch.full((spectrum.shape[-1],), 2.0, device=spectrum.device)
    twice[0] = 1.0
    real, imaginary = spectrum.real * twice / (height * width), spectrum.imag * twice / (height * width)
    along_cos = rows[0].t() @ real - rows[1].t() @ imaginary  # (B, 3, H, G)
    along_sin = -(rows[1].t() @ real + rows[0].t() @ imaginary)
    return along_cos @ columns[0] + along_sin @ columns[1]
