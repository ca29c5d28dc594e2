"""Denoiser and discriminator: shapes, conditioning, and their kinship."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel, UNet2DModel

from iccld.models import Denoiser, DomainDiscriminator, UNetKind
from iccld.models.denoiser import positions

from ..rounding import Gradients, differ

TINY = {"widths": (8, 16, 16), "layers_per_block": 1, "head_channels": 8}
ATTENTION = UNetKind(conditioning="attention")


def latents(size: tuple[int, int] = (4, 4), seed: int = 0, rows: int = 2) -> torch.Tensor:
    return torch.randn(rows, 4, *size, generator=torch.Generator().manual_seed(seed))


def denoiser(residual: bool = False, kind: UNetKind | None = None) -> Denoiser:
    torch.manual_seed(0)
    return Denoiser(4, residual=residual, kind=kind, **TINY)


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


@pytest.mark.parametrize("kind", [None, ATTENTION], ids=["concat", "attention"])
def test_latent_timestep_and_condition_all_reach_the_output(kind: UNetKind | None) -> None:
    network = denoiser(kind=kind)
    noised, condition, timestep = latents(), latents(seed=1), torch.tensor([10, 500])
    output = network(noised, timestep, condition)
    assert differ(network(noised + 1, timestep, condition), output)
    assert differ(network(noised, timestep + 100, condition), output)
    assert differ(network(noised, timestep, condition + 1), output)


def test_a_residual_denoiser_starts_by_returning_its_condition() -> None:
    network = denoiser(residual=True)
    condition = latents((7, 9), 1)
    assert torch.equal(network(latents((7, 9)), torch.tensor([3, 999]), condition), condition)
    assert differ(denoiser()(latents((7, 9)), torch.tensor([3, 999]), condition), condition)


def test_a_residual_denoiser_learns_from_its_first_step() -> None:
    """At zero, its last layer is all that learns: there a step of steepest descent lowers the loss."""
    network = denoiser(residual=True)
    inputs, target = (latents(), torch.tensor([3, 999]), latents(seed=1)), latents(seed=2)
    with Gradients(network) as gradients:
        before = F.mse_loss(network(*inputs), target)
        before.backward()
    assert gradients.reached() == {"unet.conv_out.weight", "unet.conv_out.bias"}
    torch.optim.SGD(network.parameters(), lr=0.01).step()
    assert float(F.mse_loss(network(*inputs), target)) < 0.999 * float(before)


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
    assert differ(network(latents(size), timestep + 200), logits)


# --- squares of cells -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(8, 8), (7, 9), (5, 4), (1, 3)])
def test_in_squares_the_unet_sees_a_quarter_of_the_positions(size: tuple[int, int]) -> None:
    """The answer is the plain denoiser's of latents whose channels are the cells of a square, row by row."""
    network = denoiser(kind=UNetKind(patch=2))
    torch.manual_seed(0)
    plain = Denoiser(16, **TINY)
    plain.load_state_dict(network.state_dict())
    noised, condition, timestep = latents(size), latents(size, 1), torch.tensor([0, 999])
    pad = (0, size[1] % 2, 0, size[0] % 2)

    def squares(x: torch.Tensor) -> torch.Tensor:
        x = F.pad(x, pad, mode="replicate")
        cells = [x[:, :, row::2, column::2] for row in (0, 1) for column in (0, 1)]
        return torch.stack(cells, 2).flatten(1, 2)

    expected = plain(squares(noised), timestep, squares(condition))
    output = network(noised, timestep, condition)
    assert output.shape == (2, 4, *size)
    torch.testing.assert_close(squares(output)[..., : size[0] // 2, : size[1] // 2], expected[..., : size[0] // 2, : size[1] // 2])


@pytest.mark.parametrize("conditioning", ["concat", "attention"])
def test_a_residual_denoiser_in_squares_starts_by_returning_its_condition(conditioning: str) -> None:
    network = denoiser(True, UNetKind(conditioning=conditioning, patch=2))
    condition = latents((7, 9), 1)
    assert torch.equal(network(latents((7, 9)), torch.tensor([3, 999]), condition), condition)


@pytest.mark.parametrize("conditioning", ["concat", "attention"])
def test_in_squares_everything_reaches_the_output(conditioning: str) -> None:
    network = denoiser(kind=UNetKind(conditioning=conditioning, patch=2))
    noised, condition, timestep = latents((8, 8)), latents((8, 8), 1), torch.tensor([10, 500])
    output = network(noised, timestep, condition)
    for row, column in ((0, 0), (0, 1), (1, 0), (1, 1)):  # the four cells of a square
        other = condition.clone()
        other[..., 2 + row, 4 + column] += 1
        assert differ(network(noised, timestep, other), output)
    assert differ(network(noised + 1, timestep, condition), output)
    assert differ(network(noised, timestep + 100, condition), output)


@pytest.mark.parametrize("size", [(4, 4), (7, 9), (1, 1)])
def test_the_discriminator_sees_squares_where_the_denoiser_does(size: tuple[int, int]) -> None:
    network = DomainDiscriminator(4, kind=UNetKind(patch=2), **TINY)
    assert network.conv_in.in_channels == 16
    logits = network(latents(size), torch.tensor([10, 500]))
    assert logits.shape == (2, 3)
    assert differ(network(latents(size) + 1, torch.tensor([10, 500])), logits)


# --- conditioning by attention ----------------------------------------------------------------------------------------------


def test_a_place_is_told_by_sines_and_cosines_of_column_and_row() -> None:
    column, row, rate = torch.arange(5.0), torch.arange(3.0), 1 / 10000**0.5
    waves = [wave(side * frequency) for side in (column, row) for wave in (torch.sin, torch.cos) for frequency in (1, rate)]
    expected = torch.stack([wave.expand(3, 5) if len(wave) == 5 else wave[:, None].expand(3, 5) for wave in waves])
    torch.testing.assert_close(positions(3, 5, 8, torch.device("cpu")), expected)


@pytest.mark.parametrize("size", [(7, 9), (1, 3)])
def test_attention_takes_any_latent_size(size: tuple[int, int]) -> None:
    assert denoiser(kind=ATTENTION)(latents(size), torch.tensor([0, 999]), latents(size, 1)).shape == (2, 4, *size)


def test_attention_knows_where_in_the_condition_it_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same cells elsewhere are another condition: without their places, tokens would be a set."""
    network = denoiser(kind=ATTENTION)
    noised, condition, timestep = latents(), latents(seed=1), torch.tensor([10, 500])
    output = network(noised, timestep, condition)
    assert float((network(noised, timestep, condition.flip(-1)) - output).detach().abs().max()) > 1e-4
    monkeypatch.setattr(network.tokens, "forward", lambda cells: network.tokens.project(cells.flatten(2).transpose(1, 2)))
    torch.testing.assert_close(network(noised, timestep, condition.flip(-1)), network(noised, timestep, condition))


def test_with_attention_the_condition_is_nowhere_but_in_the_tokens() -> None:
    network = denoiser(kind=ATTENTION)
    assert network.unet.conv_in.in_channels == 4 + 16  # the noised latent and its places
    for name, parameter in network.unet.named_parameters():
        if ".attn2.to_out." in name:
            torch.nn.init.zeros_(parameter)
    noised, timestep = latents(), torch.tensor([10, 500])
    assert torch.equal(network(noised, timestep, latents(seed=1)), network(noised, timestep, latents(seed=2)))


def test_with_attention_gradients_reach_every_parameter_and_the_condition() -> None:
    """In float64, where rounding is far below any gradient.  8 x 8 leave four tokens to the coarsest level, since attention over one has
    no gradient for queries and keys; norms of two channels and more, since one of a single channel takes back every bias before it."""
    torch.manual_seed(0)
    network = Denoiser(4, (16, 16, 32), 1, 8, kind=ATTENTION).double()
    noised, condition = latents((8, 8)).double(), latents((8, 8), 1).double().requires_grad_()
    with Gradients(network) as gradients:
        network(noised, torch.tensor([3, 999]), condition).square().sum().backward()
    assert gradients.unreached() == set()
    assert condition.grad is not None
    cells = condition.grad.flatten(2).abs().amax(1)  # (B, h w): every cell is a token
    assert float(cells.min()) > 1e-9 * float(cells.max())


def test_a_residual_denoiser_with_attention_starts_by_returning_its_condition() -> None:
    condition = latents((7, 9), 1)
    assert torch.equal(denoiser(True, ATTENTION)(latents((7, 9)), torch.tensor([3, 999]), condition), condition)


def test_with_attention_the_discriminator_is_the_encoder_half_without_what_reads_the_condition() -> None:
    torch.manual_seed(0)
    network = DomainDiscriminator(4, kind=ATTENTION, **TINY)
    unet = UNet2DConditionModel(
        in_channels=4,
        out_channels=4,
        block_out_channels=TINY["widths"],
        layers_per_block=1,
        down_block_types=("DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        norm_num_groups=8,
        attention_head_dim=(1, 2, 2),
        cross_attention_dim=16,
    )
    own = {name: tensor for name, tensor in network.state_dict().items() if not name.startswith(("norm.", "classify."))}
    half = ("conv_in.", "time_embedding.", "down_blocks.", "mid_block.")
    reads_condition = {name for name in unet.state_dict() if ".attn2." in name or (".norm2." in name and ".transformer_blocks." in name)}
    assert own.keys() == {name for name in unet.state_dict() if name.startswith(half)} - reads_condition
    assert {name for name in denoiser(kind=ATTENTION).unet.state_dict() if name.startswith(half)} - reads_condition == own.keys()
    # Where the UNet's cross-attention says nothing, both compute the same on their way down.
    silent = {name: torch.zeros_like(t) for name, t in unet.state_dict().items() if ".attn2.to_out." in name}
    unet.load_state_dict(unet.state_dict() | own | silent)
    seen: list[torch.Tensor] = []
    unet.mid_block.register_forward_hook(lambda module, inputs, output: seen.append(output))
    timestep = torch.tensor([5, 900])
    unet(latents(), timestep, encoder_hidden_states=torch.randn(2, 5, 16))
    expected = network.classify(F.silu(network.norm(seen[0])).mean((2, 3)))
    torch.testing.assert_close(network(latents(), timestep), expected)
