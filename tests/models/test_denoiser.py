"""Denoiser and discriminator: shapes, conditioning, and their kinship."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from diffusers import UNet2DModel

from iccld.models import Denoiser, DomainDiscriminator

TINY = {"widths": (8, 16, 16), "layers_per_block": 1, "head_channels": 8}


def latents(size: tuple[int, int] = (4, 4), seed: int = 0, rows: int = 2) -> torch.Tensor:
    return torch.randn(rows, 4, *size, generator=torch.Generator().manual_seed(seed))


def denoiser(residual: bool = False) -> Denoiser:
    torch.manual_seed(0)
    return Denoiser(4, residual=residual, **TINY)


@pytest.mark.parametrize("size", [(4, 4), (7, 9), (5, 4), (1, 3)])
def test_any_latent_size_is_padded_and_cropped_back(size: tuple[int, int]) -> None:
    network = denoiser()
    noised, condition = latents(size), latents(size, 1)
    timestep = torch.tensor([0, 999])
    output = network(noised, timestep, condition)
    assert output.shape == (2, 4, *size)
    pad = (0, -size[1] % 4, 0, -size[0] % 4)
    padded = network(F.pad(noised, pad, mode="replicate"), timestep, F.pad(condition, pad, mode="replicate"))
    torch.testing.assert_close(output, padded[..., : size[0], : size[1]])


def test_latent_timestep_and_condition_all_reach_the_output() -> None:
    network = denoiser()
    noised, condition, timestep = latents(), latents(seed=1), torch.tensor([10, 500])
    output = network(noised, timestep, condition)
    assert not torch.equal(network(noised + 1, timestep, condition), output)
    assert not torch.equal(network(noised, timestep + 100, condition), output)
    assert not torch.equal(network(noised, timestep, condition + 1), output)


def test_a_residual_denoiser_starts_by_returning_its_condition() -> None:
    network = denoiser(residual=True)
    condition = latents((7, 9), 1)
    assert torch.equal(network(latents((7, 9)), torch.tensor([3, 999]), condition), condition)
    assert not torch.equal(denoiser()(latents((7, 9)), torch.tensor([3, 999]), condition), condition)


def test_a_residual_denoiser_learns_from_its_first_step() -> None:
    network = denoiser(residual=True)
    network(latents(), torch.tensor([3, 999]), latents(seed=1)).square().sum().backward()
    gradient = network.unet.conv_out.weight.grad
    assert gradient is not None
    assert float(gradient.abs().max()) > 0


def test_the_discriminator_is_the_encoder_half_of_the_unet() -> None:
    unet = UNet2DModel(
        in_channels=4,
        out_channels=4,
        block_out_channels=TINY["widths"],
        layers_per_block=1,
        down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        norm_num_groups=8,
        attention_head_dim=8,
    )
    half = ("conv_in.", "time_embedding.", "down_blocks.", "mid_block.")
    expected = {name: tuple(p.shape) for name, p in unet.named_parameters() if name.startswith(half)}
    shapes = {name: tuple(p.shape) for name, p in DomainDiscriminator(4, **TINY).named_parameters()}
    own = {name: shape for name, shape in shapes.items() if not name.startswith(half)}
    assert {name: shape for name, shape in shapes.items() if name.startswith(half)} == expected
    assert own == {"norm.weight": (16,), "norm.bias": (16,), "classify.weight": (3, 16), "classify.bias": (3,)}
    # The denoiser's encoder half differs in one thing: it also reads the condition.
    denoising = {name: tuple(p.shape) for name, p in denoiser().unet.named_parameters() if name.startswith(half)}
    assert denoising == expected | {"conv_in.weight": (8, 8, 3, 3)}


def test_the_discriminator_computes_what_the_unet_computes_on_its_way_down() -> None:
    torch.manual_seed(0)
    network = DomainDiscriminator(4, **TINY)
    unet = UNet2DModel(
        in_channels=4,
        out_channels=4,
        block_out_channels=TINY["widths"],
        layers_per_block=1,
        down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        norm_num_groups=8,
        attention_head_dim=8,
    )
    unet.load_state_dict(unet.state_dict() | {k: v for k, v in network.state_dict().items() if not k.startswith(("norm", "classify"))})
    seen: list[torch.Tensor] = []
    unet.mid_block.register_forward_hook(lambda module, inputs, output: seen.append(output))
    timestep = torch.tensor([5, 900])
    unet(latents(), timestep)
    expected = network.classify(F.silu(network.norm(seen[0])).mean((2, 3)))
    torch.testing.assert_close(network(latents(), timestep), expected)


@pytest.mark.parametrize("size", [(4, 4), (7, 9), (1, 1)])
def test_the_discriminator_names_three_domains_at_any_size(size: tuple[int, int]) -> None:
    network = DomainDiscriminator(4, **TINY)
    timestep = torch.tensor([10, 500])
    logits = network(latents(size), timestep)
    assert logits.shape == (2, 3)
    assert not torch.equal(network(latents(size), timestep + 200), logits)
