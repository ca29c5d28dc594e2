"""Noise schedule and DDIM: closed forms, an oracle denoiser, and what the literal reading implies."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from iccld.diffusion import DdimSampler, Diffusion, check_steps
from iccld.errors import ConfigError

BETAS = np.linspace(0.0015**0.5, 0.0155**0.5, 1000, dtype=np.float64) ** 2  # LDM's churches configuration, by hand
ALPHA = 1 - BETAS
ALPHA_BAR = np.cumprod(ALPHA)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("num_steps", [1, 5, 50])
@pytest.mark.parametrize("prediction", ["epsilon", "sample"])
def test_ddim_with_an_oracle_denoiser_returns_the_clean_latent(prediction: str, num_steps: int) -> None:
    diffusion = Diffusion(prediction=prediction)
    latent, noise = normal(2, 3, 4, 5), normal(2, 3, 4, 5, seed=1)

    def oracle(noised: Tensor, timestep: Tensor) -> Tensor:
        if prediction == "sample":
            return latent
        alpha_bar = torch.tensor(ALPHA_BAR, dtype=torch.float32)[timestep][:, None, None, None]
        return (noised - alpha_bar.sqrt() * latent) / (1 - alpha_bar).sqrt()

    # The first division is by sqrt(alpha_bar_T) = 0.03: float32 keeps five digits.
    torch.testing.assert_close(diffusion.sample(oracle, noise, num_steps), latent, atol=1e-4, rtol=1e-4)


def test_ddim_sampler_carries_its_step_count() -> None:
    visited: list[int] = []

    def denoise(noised: Tensor, timestep: Tensor) -> Tensor:
        assert timestep.shape == (2,)
        visited.append(int(timestep[0]))
        return noised

    DdimSampler(Diffusion(), 5)(denoise, normal(2, 1, 2, 2))
    assert visited == [999, 799, 599, 399, 199]


def test_trailing_spacing_runs_one_step_at_the_last_timestep() -> None:
    visited: list[list[int]] = []
    Diffusion().sample(lambda noised, timestep: visited.append(timestep.tolist()) or noised, normal(2, 1, 2, 2), 1)
    assert visited == [[999, 999]]


@pytest.mark.parametrize("num_steps", [0, -1, 3, 7, 999, 1001])
def test_steps_that_do_not_divide_the_timesteps_are_refused(num_steps: int) -> None:
    with pytest.raises(ConfigError, match=f"sampler_steps is {num_steps}"):
        check_steps(num_steps)
    with pytest.raises(ConfigError, match="divisor of 1000"):
        Diffusion().sample(lambda noised, timestep: noised, normal(1, 1, 2, 2), num_steps)


@pytest.mark.parametrize(("noise_scale", "table"), [("alpha_bar", ALPHA_BAR), ("alpha", ALPHA)])
def test_add_noise_agrees_with_the_formula(noise_scale: str, table: np.ndarray) -> None:
    timestep = torch.tensor([0, 1, 499, 999])
    latent, noise = normal(4, 2, 3, 3), normal(4, 2, 3, 3, seed=1)
    signal = table[timestep.numpy()][:, None, None, None]
    expected = np.sqrt(signal) * latent.double().numpy() + np.sqrt(1 - signal) * noise.double().numpy()
    noised = Diffusion(noise_scale=noise_scale).add_noise(latent, noise, timestep)
    # The tables are cumulated in float32, which costs up to 1e-4 of sqrt(1 - alpha_bar) at t = 0.
    np.testing.assert_allclose(noised.numpy(), expected, atol=1e-5)


def test_literal_alpha_never_exceeds_a_standard_deviation_of_an_eighth() -> None:
    every = torch.arange(1000)
    literal = (1 - Diffusion(noise_scale="alpha").signal(every)).sqrt()
    assert 0.124 < float(literal.max()) <= 0.125
    assert float((1 - Diffusion().signal(every)).sqrt().max()) > 0.999


def test_literal_alpha_leaves_the_latent_visible_at_the_last_timestep() -> None:
    noised = Diffusion(noise_scale="alpha").add_noise(torch.zeros(1, 1, 100, 100), normal(1, 1, 100, 100), torch.tensor([999]))
    assert 0.12 < float(noised.std()) < 0.13


@pytest.mark.parametrize("noise_scale", ["alpha_bar", "alpha"])
@pytest.mark.parametrize("prediction", ["epsilon", "sample"])
def test_clean_and_noise_invert_the_forward_process(prediction: str, noise_scale: str) -> None:
    diffusion = Diffusion(prediction=prediction, noise_scale=noise_scale)
    timestep = torch.tensor([10, 500, 900])
    latent, noise = normal(3, 2, 4, 4), normal(3, 2, 4, 4, seed=1)
    noised = diffusion.add_noise(latent, noise, timestep)
    output = diffusion.target(latent, noise)
    torch.testing.assert_close(output, noise if prediction == "epsilon" else latent)
    torch.testing.assert_close(diffusion.clean(output, noised, timestep), latent, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(diffusion.noise(output, noised, timestep), noise, atol=1e-4, rtol=1e-4)


def test_literal_condition_makes_the_noise_an_exact_linear_function() -> None:
    """Given z_t and the clean z_0 as condition, least squares finds the noise without an error: nothing is left to learn."""
    timestep = 700
    latent, noise = normal(64, 1, 8, 8).double(), normal(64, 1, 8, 8, seed=1).double()
    noised = Diffusion().add_noise(latent, noise, torch.full((64,), timestep))
    inputs = torch.stack([noised.flatten(), latent.flatten()], 1)  # (4096, 2)
    solution = torch.linalg.lstsq(inputs, noise.flatten()[:, None]).solution
    scale = np.sqrt(1 - ALPHA_BAR[timestep])
    np.testing.assert_allclose(solution.flatten().numpy(), [1 / scale, -np.sqrt(ALPHA_BAR[timestep]) / scale], rtol=1e-4)
    assert float((inputs @ solution - noise.flatten()[:, None]).abs().max()) < 1e-6
    # Half of the condition hidden: the noise is no longer determined.
    hidden = inputs * torch.stack([torch.ones(4096), (torch.arange(4096) % 2).float()], 1)
    rest = hidden @ torch.linalg.lstsq(hidden, noise.flatten()[:, None]).solution - noise.flatten()[:, None]
    assert float(rest.std()) > 0.05


@pytest.mark.parametrize(("num_steps", "gap"), [(1, 0.387), (10, 0.0045), (50, 0.0018)])
def test_many_steps_forgive_what_one_step_multiplies(num_steps: int, gap: float) -> None:
    """The literal denoiser with an error of standard deviation 0.01: one step multiplies it by sqrt((1 - a) / a) = 38.7 at t = T, while
    every further step sees the wrong latent beside the right condition and takes most of its error back (docs/step2.md)."""
    latent, noise = normal(4, 8, 16, 16), normal(4, 8, 16, 16, seed=1)
    generator = torch.Generator().manual_seed(2)

    def denoise(noised: Tensor, timestep: Tensor) -> Tensor:
        signal = Diffusion().signal(timestep)
        exact = (noised - signal.sqrt() * latent) / (1 - signal).sqrt()
        return exact + 0.01 * torch.randn(latent.shape, generator=generator)

    sampled = Diffusion().sample(denoise, noise, num_steps)
    assert float((sampled - latent).norm() / latent.norm()) == pytest.approx(gap, rel=0.1)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ConfigError, match="prediction is 'velocity'"):
        Diffusion(prediction="velocity")
    with pytest.raises(ConfigError, match="noise_scale is 'beta'"):
        Diffusion(noise_scale="beta")
