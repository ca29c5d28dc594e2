"""The one callable behind evaluation, prediction, export and serving: uint8 pictures of any size in, logits at that size out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from iccld.errors import ConfigError
from iccld.evaluation.antialias import resized
from iccld.evaluation.sliding import Position, sliding_window
from iccld.evaluation.views import View, mean_log_probability, show_at, views_of
from iccld.geometry import check_scales, padded, scaled, working_shape
from iccld.labels import LabelSpace

PRECISIONS = ("fp32", "bf16")
MASK32 = 0xFFFFFFFF


class LatentNoise(NamedTuple):
    """The noise that a network starts from, a function of (seed, position in the whole picture)."""

    channels: int
    """C of the latent noise; 0 for a network that takes none."""
    stride: int = 8
    """Pixels of the prepared picture per latent, per side."""
    seed: int = 0


class Predictor(nn.Module):
    """Owns weights, normalisation, label space, window, stride and size multiple.

    network: (images (B, 3, H, W) float32 normalised, noise (B, C, H/s, W/s) or None) -> logits (B, K, h, w) of any resolution.
    working_size: (H, W) whose area pictures are resized to at their own aspect, or None for their own size.
    window: (H, W) in the resized picture, or None for the whole of it; stride: pixels between windows, half the window's shorter side
    by default.  mean, std: (R, G, B) in 0..1.
    noise: what the network starts from besides the picture, if anything.

    precision ("fp32" or "bf16" autocast), channels_last (of the weights, where they are placed; None: as goes with the precision) and
    windows_at_once are attributes: they change speed and memory.  So are scales and flip, the
    views of a picture: each scale of the working size, with flip mirrored too; several views answer with the mean of their probabilities
    at the size asked for.  window and stride may be set at any time.  Inconsistent settings raise ConfigError, when made or when next used.
    """

    def __init__(
        self,
        network: nn.Module,
        label_space: LabelSpace,
        *,
        working_size: tuple[int, int] | None,
        size_multiple: int,
        mean: Sequence[float],
        std: Sequence[float],
        window: tuple[int, int] | None = None,
        stride: int | None = None,
        noise: LatentNoise | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.label_space = label_space
        self.working_size = working_size
        self.size_multiple = size_multiple
        self.mean, self.std = tuple(mean), tuple(std)
        self.window = window
        self.stride = stride
        self.noise_channels, self.noise_stride, self.seed = noise or LatentNoise(0)
        self.precision = "fp32"
        self.channels_last: bool | None = None
        self.windows_at_once = 1
        self.scales: tuple[float, ...] = (1.0,)
        self.flip = False
        self.check()

    def forward(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        """Predict: (B, 3, H, W) uint8 RGB -> logits (B, K, H, W) float32; of several views, the logarithm of their mean probability."""
        return self.logits_at(images, (images.shape[2], images.shape[3]), noise)

    def logits_at(self, images: Tensor, size: tuple[int, int], noise: Tensor | None = None) -> Tensor:
        """Logits at another size than the picture's, resized once: (B, 3, H, W) uint8, (H', W') -> (B, K, H', W') float32."""
        views = self.view_logits(images, noise)
        return _resize(views[0], size) if len(views) == 1 else mean_log_probability(views, lambda logits: _resize(logits, size))

    def network_logits(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        """Logits at the network's own resolution, covering exactly the picture: (B, 3, H, W) uint8 -> (B, K, h, w) float32.

        Of several views, whose resolutions differ, the logarithm of their mean probability at the picture's.
        """
        views, size = self.view_logits(images, noise), (images.shape[2], images.shape[3])
        return views[0] if len(views) == 1 else mean_log_probability(views, lambda logits: _resize(logits, size))

    def view_logits(self, images: Tensor, noise: Tensor | None = None) -> list[Tensor]:
        """Logits of each view at the network's own resolution of it, covering exactly the picture: (B, 3, H, W) uint8 -> (B, K, h, w) each.

        noise: (B, C, H'/s, W'/s) for the resized picture H' x W' (`prepared_size`) of scale 1; drawn from (seed, position) when None.
        """
        return [view.of_picture() for view in self.views(images, noise)]

    def views(self, images: Tensor, noise: Tensor | None = None) -> list[View]:
        """What the network says in each view, as it comes, for `decide`; arguments as for `view_logits`."""
        self.check()
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
            raise TypeError(f"a predictor takes (B, 3, H, W) uint8 RGB, not {tuple(images.shape)} {images.dtype}")
        if noise is not None and set(self.scales) != {1.0}:
            raise TypeError(f"noise was given for one size, but this predictor sees pictures at scales {self.scales}")
        return [self._view(images, scale, mirrored, noise) for scale, mirrored in views_of(self.scales, self.flip)]

    def _view(self, images: Tensor, scale: float, mirrored: bool, noise: Tensor | None) -> View:
        """One view, turned back: (B, 3, H, W) uint8 -> (B, K, h, w)."""
        prepared, content = self._prepare(images, scale)  # (B, 3, H', W'), the part of it that is picture
        height, width = prepared.shape[2:]
        noise = self._noise_for(prepared, noise)
        if mirrored:  # padding and noise stay with their pixels
            prepared, noise = prepared.flip(3), None if noise is None else noise.flip(3)
        if self.window is None:
            logits = self._run(prepared, noise)  # (B, K, h, w)
        else:
            shorter = min(self.window)
            logits = sliding_window(
                lambda crops, positions: self._run(crops, self._noise_at(noise, crops, positions)),
                prepared,
                self.window,
                self.stride or max(self.size_multiple, shorter // 2 // self.size_multiple * self.size_multiple),
                windows_at_once=self.windows_at_once,
            )
        return View(logits.flip(3) if mirrored else logits, (height, width), content)

    def prepared_size(self, height: int, width: int, scale: float = 1.0) -> tuple[int, int]:
        """The (H', W') that a picture of that size is resized and padded to before the network sees it."""
        return padded(self.content_size(height, width, scale), self.size_multiple)

    def content_size(self, height: int, width: int, scale: float = 1.0) -> tuple[int, int]:
        """The part of `prepared_size` that is picture, at scale 1 as training sees it too (`working_shape`); the rest is padding."""
        if self.working_size is None:
            return scaled((height, width), scale)
        return working_shape(height, width, scaled(self.working_size, scale), self.size_multiple)

    def _prepare(self, images: Tensor, scale: float) -> tuple[Tensor, tuple[int, int]]:
        """Resize (antialiased), pad at the lower right by replication, then normalise."""
        height, width = images.shape[2:]
        if height == 0 or width == 0:
            raise TypeError(f"a predictor takes pictures of at least one pixel, not {tuple(images.shape)}")
        content = self.content_size(height, width, scale)
        is_resized = content != (height, width)
        values = resized(images, content) if is_resized and images.device.type == "cpu" else images.to(torch.float32) / 255.0
        values = show_at(values, content, padded(content, self.size_multiple))
        mean = values.new_tensor(self.mean)[:, None, None]
        std = values.new_tensor(self.std)[:, None, None]
        return values.sub_(mean).div_(std), content  # in its own memory

    def _run(self, images: Tensor, noise: Tensor | None) -> Tensor:
        images = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16"):
            logits: Tensor = self.network(images, noise)
        return logits.float()

    def noise_like(self, prepared: Tensor) -> Tensor | None:
        """The noise this predictor draws for pictures already at the working size: (B, 3, H', W') -> (B, C, H'/s, W'/s), or None."""
        return self._noise_for(prepared, None)

    def _noise_for(self, prepared: Tensor, noise: Tensor | None) -> Tensor | None:
        """(B, C, H'/s, W'/s) noise of the whole picture; the same for every picture, so that a batch changes nothing."""
        if self.noise_channels == 0:
            if noise is not None:
                raise TypeError("noise was given, but this predictor's network takes none (noise_channels is 0)")
            return None
        latent = (prepared.shape[2] // self.noise_stride, prepared.shape[3] // self.noise_stride)
        if noise is None:
            drawn = positional_noise(latent, self.seed, 0, 0, self.noise_channels, device=prepared.device)
            return drawn.expand(prepared.shape[0], -1, -1, -1)
        expected = (prepared.shape[0], self.noise_channels, *latent)
        if tuple(noise.shape) != expected:
            raise TypeError(f"noise has shape {tuple(noise.shape)}, this picture needs {expected}")
        return noise

    def _noise_at(self, noise: Tensor | None, crops: Tensor, positions: Sequence[Position]) -> Tensor | None:
        """The windows' parts of the whole picture's noise, in the order of the crops."""
        if noise is None:
            return None
        step = self.noise_stride
        height, width = crops.shape[2] // step, crops.shape[3] // step
        return torch.cat([noise[:, :, y // step : y // step + height, x // step : x // step + width] for y, x in positions])

    def check(self) -> None:
        """ConfigError for settings that do not go together; asked when made and whenever used."""
        if self.size_multiple < 1 or self.noise_stride < 1:
            raise ConfigError(f"size_multiple and noise_stride must be at least 1, not {self.size_multiple} and {self.noise_stride}")
        if self.noise_channels and self.size_multiple % self.noise_stride:
            raise ConfigError(f"size_multiple {self.size_multiple} must be a multiple of the noise's stride {self.noise_stride}")
        check_scales(self.scales)
        if self.precision not in PRECISIONS:
            raise ConfigError(f"precision is one of {', '.join(PRECISIONS)}, not {self.precision!r}")
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise ConfigError(f"mean and std hold three numbers, std above 0, not {self.mean} and {self.std}")
        if self.working_size is not None and min(self.working_size) < self.size_multiple:
            raise ConfigError(f"working size {self.working_size} is smaller than the size multiple {self.size_multiple}")
        smallest = min(self.scales)
        if self.working_size is not None and min(scaled(self.working_size, smallest)) < self.size_multiple:
            raise ConfigError(
                f"at scale {smallest:g} working size {self.working_size} is smaller than the size multiple {self.size_multiple}"
            )
        if self.window is None:
            return
        if min(self.window) < 1 or any(side % self.size_multiple for side in self.window):
            raise ConfigError(f"window {self.window[0]}x{self.window[1]} must have sides that are multiples of {self.size_multiple}")
        if self.stride is not None and not 1 <= self.stride <= min(self.window):
            raise ConfigError(f"stride {self.stride} must lie between 1 and the window's shorter side {min(self.window)}")
        if self.stride is not None and self.noise_channels and self.stride % self.noise_stride:
            raise ConfigError(f"stride {self.stride} must be a multiple of the noise's stride {self.noise_stride}")


def positional_noise(
    shape: tuple[int, int], seed: int, offset_y: int = 0, offset_x: int = 0, channels: int = 4, *, device: torch.device | None = None
) -> Tensor:
    """Standard normal noise of absolute positions: (h, w) -> (channels, h, w) float32.

    The value at (channel, y, x) is a function of (seed, channel, y + offset_y, x + offset_x) alone, so that a window's noise is the
    window of the noise.  Two 32-bit hashes of the position, made normal by Box and Muller's formula.
    """
    y = torch.arange(offset_y, offset_y + shape[0], device=device)[:, None] & MASK32  # (h, 1)
    x = torch.arange(offset_x, offset_x + shape[1], device=device) & MASK32  # (w,)
    channel = torch.arange(channels, device=device)[:, None, None]  # (channels, 1, 1)
    radius, angle = (_hash_position(seed, stream, channel, y, x) for stream in (0, 1))  # (channels, h, w) int64 in 0..2^32-1
    radius_uniform = (radius.double() + 0.5) / 2**32  # in (0, 1): the logarithm stays finite
    angle_uniform = (angle.double() + 0.5) / 2**32
    normal = torch.sqrt(-2.0 * torch.log(radius_uniform)) * torch.cos(2.0 * math.pi * angle_uniform)
    return normal.float()


def _hash_position(seed: int, stream: int, channel: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """Absorb one number after another; each is mixed before the next, so that (y, x) and (x, y) have nothing in common."""
    state = torch.tensor((seed & MASK32) ^ 0x9E3779B9, device=x.device)
    for value in (torch.tensor((seed >> 32) & MASK32, device=x.device), torch.tensor(stream, device=x.device), channel, y, x):
        state = _mix32((_mix32(state) + value) & MASK32)
    return state


def _mix32(value: Tensor) -> Tensor:
    """A bijection of 32-bit numbers held in int64 (Wellons' hash-prospector, two rounds of xorshift-multiply).

    Both multipliers are below 2^31: products stay below 2^63, where int64 arithmetic is exact on every device.
    """
    value = value ^ (value >> 16)
    value = (value * 0x21F0AAAD) & MASK32
    value = value ^ (value >> 15)
    value = (value * 0x735A2D97) & MASK32
    return value ^ (value >> 15)


def _resize(logits: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(logits.shape[2:]) == tuple(size):
        return logits
    return functional.interpolate(logits, size=size, mode="bilinear", align_corners=False)
