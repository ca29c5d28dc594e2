"""The UNet, the residual block and DDIM against diffusers: the same parameters by name, order and first value, the same bits."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler, UNet2DModel
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn

from iccld.diffusion import Diffusion
from iccld.models.blocks import TimedBlock
from iccld.models.unet import UNet, attend

SIZES = {
    "compact": ((64, 96, 128), 1, 32, 1, 8),
    "ldm": ((32, 64, 96, 128), 2, 32, 3, 32),
    "one level": ((16,), 1, 8, 1, 8),
    "no attention": ((8, 16), 1, 8, 0, 8),
}
"""widths, layers_per_block, head_channels, attention_levels, num_groups."""


def both(size: str, recompute: bool = False) -> tuple[UNet2DModel, UNet]:
    """diffusers' UNet and ours from the same seed."""
    widths, layers, head, attended, groups = SIZES[size]
    plain = len(widths) - attended
    torch.manual_seed(0)
    theirs = UNet2DModel(
        in_channels=6,
        out_channels=3,
        block_out_channels=widths,
        layers_per_block=layers,
        down_block_types=("DownBlock2D",) * plain + ("AttnDownBlock2D",) * attended,
        up_block_types=("AttnUpBlock2D",) * attended + ("UpBlock2D",) * plain,
        norm_num_groups=groups,
        attention_head_dim=head,
    )
    drawn = torch.random.get_rng_state()
    torch.manual_seed(0)
    ours = UNet(6, 3, widths, layers, head, attended, groups, recompute)
    assert torch.equal(torch.random.get_rng_state(), drawn)
    return theirs, ours


@pytest.mark.parametrize("size", SIZES)
def test_parameters_are_those_of_diffusers_in_their_order(size: str) -> None:
    theirs, ours = both(size)
    expected, found = dict(theirs.named_parameters()), dict(ours.named_parameters())
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("size", SIZES)
def test_outputs_and_gradients_are_those_of_diffusers_bit_for_bit(
    size: str, layout: torch.memory_format, bf16: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where they are trained in bf16, those of diffusers with attention and the norms of its blocks in float32."""
    x = torch.randn(2, 6, 16, 24, generator=torch.Generator().manual_seed(1)).contiguous(memory_format=layout)
    timestep = torch.tensor([3, 900])
    theirs, ours = (network.to(memory_format=layout) for network in both(size))
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16), torch.no_grad():
        assert torch.equal(ours(x, timestep), theirs(x, timestep).sample)
    found = trained(ours, x, timestep, bf16)
    if bf16:
        in_float32(theirs, monkeypatch)
    expected = trained(theirs, x, timestep, bf16)
    for name in expected:
        assert torch.equal(found[name], expected[name]), name


def in_float32(network: UNet2DModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let diffusers' network, and nothing else from now on, attend and normalise in float32."""
    attention = F.scaled_dot_product_attention

    def attend_in_float32(query: Tensor, key: Tensor, value: Tensor, **_: object) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            return attention(query.float(), key.float(), value.float()).to(query.dtype)

    monkeypatch.setattr(F, "scaled_dot_product_attention", attend_in_float32)
    for block in network.modules():
        if isinstance(block, ResnetBlock2D):
            for norm in (block.norm1, block.norm2):
                norm.register_forward_pre_hook(lambda module, inputs: (inputs[0].float(),))


def test_what_is_trained_in_bf16_is_attended_and_normalised_in_float32() -> None:
    """Also under autocast, which casts what attention is given: in bf16 both take longer, and round more."""
    drawn = torch.randn(3, 2, 4, 24, 8, generator=torch.Generator().manual_seed(2)).bfloat16()
    query, key, value = drawn.clone().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, plain = attend(query, key, value), attend(*drawn)
    assert torch.equal(found, F.scaled_dot_product_attention(*drawn.float()).bfloat16())
    assert torch.equal(plain, F.scaled_dot_product_attention(*drawn))
    norm = TimedBlock(8, 8, (4, 4), 16).norm1
    x = drawn[0].flatten(0, 1)[:, :8, None]
    assert norm(x).dtype == torch.float32
    with torch.no_grad():
        assert norm(x).dtype == torch.bfloat16


def test_in_float64_gradients_are_those_of_diffusers_too() -> None:
    x = torch.randn(2, 6, 16, 24, generator=torch.Generator().manual_seed(1)).double()
    theirs, ours = (network.double() for network in both("compact"))
    expected, found = (trained(network, x, torch.tensor([3, 900]), bf16=False) for network in (theirs, ours))
    assert found["conv_in.weight"].dtype == torch.float64
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def trained(network: nn.Module, x: Tensor, timestep: Tensor, bf16: bool) -> dict[str, Tensor]:
    """The output and every parameter's gradient of its summed squares."""
    network.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        answer = network(x, timestep)
    output: Tensor = answer if isinstance(answer, Tensor) else answer.sample
    output.float().square().sum().backward()
    gradients = {name: parameter.grad for name, parameter in network.named_parameters()}
    assert all(gradient is not None for gradient in gradients.values())
    return {"output": output.detach().float(), **{name: gradient.clone() for name, gradient in gradients.items() if gradient is not None}}


def test_recomputed_activations_change_nothing() -> None:
    x = torch.randn(2, 6, 16, 24, generator=torch.Generator().manual_seed(1))
    plain, recomputing = both("ldm")[1], both("ldm", recompute=True)[1]
    for network in (plain, recomputing):
        network(x, torch.tensor([3, 900])).square().sum().backward()
    for own, other in zip(recomputing.parameters(), plain.parameters(), strict=True):
        assert own.grad is not None
        assert torch.equal(own.grad, other.grad)


@pytest.mark.parametrize("channels", [(8, 8), (8, 16)])
def test_residual_block_without_a_timestep_is_that_of_diffusers(channels: tuple[int, int]) -> None:
    torch.manual_seed(0)
    theirs = ResnetBlock2D(in_channels=channels[0], out_channels=channels[1], temb_channels=None, groups=4, groups_out=8)
    torch.manual_seed(0)
    ours = TimedBlock(*channels, (4, 8))
    assert [name for name, _ in ours.named_parameters()] == [name for name, _ in theirs.named_parameters()]
    x = torch.randn(2, channels[0], 6, 5)
    assert torch.equal(ours(x), theirs(x, None))


@pytest.mark.parametrize("steps", [1, 2, 5, 50, 1000])
@pytest.mark.parametrize("prediction", ["epsilon", "sample"])
def test_sampling_is_that_of_diffusers_scheduler_bit_for_bit(prediction: str, steps: int) -> None:
    diffusion = Diffusion(prediction=prediction)
    scheduler = DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.0015,
        beta_end=0.0155,
        beta_schedule="scaled_linear",
        prediction_type=prediction,
        clip_sample=False,
        timestep_spacing="trailing",
    )
    assert torch.equal(diffusion.alpha_bar(), scheduler.alphas_cumprod)
    noise = torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(0))

    def denoise(noised: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        return 0.3 * noised.sin() + timestep[:, None, None, None] / 1000

    scheduler.set_timesteps(steps)
    latent = noise
    for timestep in scheduler.timesteps.tolist():
        latent = scheduler.step(denoise(latent, torch.full((2,), timestep)), timestep, latent, eta=0.0, return_dict=False)[0]
    assert torch.equal(diffusion.sample(denoise, noise, steps), latent)
