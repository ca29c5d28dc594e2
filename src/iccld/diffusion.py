"""Noise schedule and DDIM sampling (Song et al. 2021), in the arithmetic of diffusers' scheduler.

    paper                here
    beta_t               betas = scaled_linear(0.0015, 0.0155), T = 1000 (LDM's churches configuration)
    alpha_t              1 - beta_t
    alpha-bar_t          alpha_bar[t], the product of alpha_s up to t
    z_t (Eq. 4, 6)       sqrt(alpha_bar) z_0 + sqrt(1 - alpha_bar) noise

`noise_scale="alpha"` selects the literal reading of Eq. 6-7, which print alpha_t where Eq. 4 has alpha-bar_t (docs/readings.md,
row 1: the noise then never exceeds a standard deviation of 0.125).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from iccld.errors import ConfigError

Denoise = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Diffusion:
    """Forward process, target of the prediction, and DDIM sampling with eta = 0.

    prediction: "epsilon" (the paper) or "sample" (the clean latent).  noise_scale: "alpha_bar" (Eq. 4) or "alpha" (Eq. 6 as printed).
    """

    num_timesteps: int = 1000
    beta_start: float = 0.0015
    beta_end: float = 0.0155
    prediction: str = "epsilon"
    noise_scale: str = "alpha_bar"

    def __post_init__(self) -> None:
        if self.prediction not in ("epsilon", "sample"):
            raise ConfigError(f"prediction is {self.prediction!r}: use 'epsilon' or 'sample'")
        if self.noise_scale not in ("alpha_bar", "alpha"):
            raise ConfigError(f"noise_scale is {self.noise_scale!r}: use 'alpha_bar' or 'alpha'")

    def alphas(self) -> Tensor:
        """alpha_t = 1 - beta_t, (T,) float32."""
        root = torch.linspace(self.beta_start**0.5, self.beta_end**0.5, self.num_timesteps, dtype=torch.float32)
        return 1.0 - root**2

    def alpha_bar(self) -> Tensor:
        """alpha-bar_t, (T,) float32."""
        return torch.cumprod(self.alphas(), dim=0)

    def signal(self, timestep: Tensor) -> Tensor:
        """(B,) int64 -> (B, 1, 1, 1): alpha-bar_t (or alpha_t for the literal reading)."""
        table = self.alpha_bar() if self.noise_scale == "alpha_bar" else self.alphas()
        return table.to(timestep.device)[timestep][:, None, None, None]

    def add_noise(self, latent: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
        """z_t = sqrt(a) z_0 + sqrt(1 - a) noise (Eq. 4; Eq. 6).  (B, C, h, w) twice, (B,) -> (B, C, h, w)."""
        signal = self.signal(timestep)
        return signal.sqrt() * latent + (1 - signal).sqrt() * noise

    def target(self, latent: Tensor, noise: Tensor) -> Tensor:
        """What the network is asked for: the noise, or the clean latent."""
        return noise if self.prediction == "epsilon" else latent

    def clean(self, output: Tensor, noised: Tensor, timestep: Tensor) -> Tensor:
        """The clean latent that an output implies: z_0 = (z_t - sqrt(1 - a) eps) / sqrt(a), or the output itself."""
        if self.prediction == "sample":
            return output
        signal = self.signal(timestep)
        return (noised - (1 - signal).sqrt() * output) / signal.sqrt()

    def noise(self, output: Tensor, noised: Tensor, timestep: Tensor) -> Tensor:
        """The noise that an output implies: eps = (z_t - sqrt(a) z_0) / sqrt(1 - a), or the output itself."""
        if self.prediction == "epsilon":
            return output
        signal = self.signal(timestep)
        return (noised - signal.sqrt() * output) / (1 - signal).sqrt()

    def sample(self, denoise: Denoise, noise: Tensor, num_steps: int) -> Tensor:
        """DDIM from z_T = noise in `num_steps` steps, eta = 0: (B, C, h, w) -> (B, C, h, w).

        num_steps must divide the number of timesteps.  The first step is at t = T: with one step, all there is to see is the noise
        (Lin et al. 2024: "trailing" timesteps).  Nothing is clipped: latents have no range.
        """
        check_steps(num_steps, self.num_timesteps)
        alpha_bar, stride = self.alpha_bar(), self.num_timesteps // num_steps
        latent = noise
        for timestep in range(self.num_timesteps - 1, -1, -stride):
            output = denoise(latent, torch.full((latent.shape[0],), timestep, device=latent.device))
            signal = alpha_bar[timestep]
            before = alpha_bar[timestep - stride] if timestep >= stride else torch.tensor(1.0)  # z_0 itself holds no noise
            # Song et al. 2021, Eq. 12 with sigma = 0: the clean latent that the output implies, noised again to the step before.
            if self.prediction == "sample":
                clean, direction = output, (latent - signal**0.5 * output) / (1 - signal) ** 0.5
            else:
                clean, direction = (latent - (1 - signal) ** 0.5 * output) / signal**0.5, output
            latent = before**0.5 * clean + (1 - before) ** 0.5 * direction
        return latent


@dataclass(frozen=True)
class DdimSampler:
    """A process with its step count: (denoise, z_T) -> z_0, what a diffusion segmenter is given."""

    diffusion: Diffusion
    num_steps: int

    def __call__(self, denoise: Denoise, noise: Tensor) -> Tensor:
        return self.diffusion.sample(denoise, noise, self.num_steps)


def check_steps(num_steps: int, num_timesteps: int = 1000) -> None:
    """ConfigError unless 1 <= num_steps and it divides the number of timesteps."""
    if num_steps < 1 or num_timesteps % num_steps:
        raise ConfigError(f"sampler_steps is {num_steps}: use a divisor of {num_timesteps}, such as 1, 2, 5, 10, 20 or 50")
