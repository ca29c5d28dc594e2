"""The networks' settings: a preset names a family and fills in the sizes that are left open."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from iccld.config.checks import require, require_at_least, require_one_of

COMPACT: Mapping[str, Any] = {
    "widths": (24, 48, 96, 160, 224),
    "latent_channels": 32,
    "decoder_width": 64,
    "denoiser_widths": (64, 96, 128),
}

PRESETS = ("compact",)
"""The presets; `iccld.build.networks` builds each."""


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """The four networks.  Empty lists and zeros become the preset's own sizes on construction."""

    preset: str = "compact"
    """Family of networks; `compact`, a few million parameters, trains from scratch on two CPU cores."""

    widths: tuple[int, ...] = ()
    """Channels of the encoder's levels; empty = the preset's.  compact: 24,48,96,160,224 at strides 2, 4, 8, 16 and 32."""

    latent_channels: int = 0
    """Channels of the latent that step 2 diffuses; 0 = the preset's.  compact: 32."""

    latent_stride: int = 8
    """Picture pixels a latent cell covers, per side; the paper's 1/8, and the only one the compact preset has."""

    decoder_width: int = 0
    """Channels of the decoder; 0 = the preset's.  compact: 64."""

    denoiser_widths: tuple[int, ...] = ()
    """Channels of the denoising UNet's levels; the discriminator repeats its encoder half; empty = the preset's.  compact: 64,96,128."""

    inter_coder: bool = True
    """Whether encoder levels are handed to the decoder; false narrows the decoder (the paper's ablation)."""

    def __post_init__(self) -> None:
        require_one_of(self, "preset", PRESETS)
        self._fill(COMPACT)
        require_at_least(self, 1, "latent_channels")
        require_at_least(self, 2, "decoder_width")
        for name in ("widths", "denoiser_widths"):
            widths = getattr(self, name)
            require(min(widths) > 0, f"{name} is {list(widths)}; list channels above 0, e.g. 32,64")
        odd = [width for width in self.denoiser_widths if width % 8]
        require(not odd, f"denoiser_widths holds {odd[:1]}; its normalisation has 8 groups, use multiples of 8")
        self._check_compact()

    def _fill(self, sizes: Mapping[str, Any]) -> None:
        """Put the preset's sizes where none are given; config.yaml then tells them all."""
        for name, size in sizes.items():
            object.__setattr__(self, name, getattr(self, name) or size)

    def _check_compact(self) -> None:
        require(self.latent_stride == 8, f"latent_stride is {self.latent_stride}; the compact preset has 8")
        require(len(self.widths) == 5, f"widths has {len(self.widths)} levels; the compact preset has 5, e.g. 24,48,96,160,224")
