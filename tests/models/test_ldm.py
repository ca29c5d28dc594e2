"""LDM's geometry: parameter counts at full size (on the meta device), shapes at any size, where gradients reach, checkpointing."""

from __future__ import annotations

import copy
from functools import cache, partial

import pytest
import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from iccld.assembly.networks import build_networks
from iccld.config import NetworkConfig
from iccld.config.network import LDM, LDM_DENOISER_LARGE
from iccld.models import Denoiser, DomainDiscriminator, Features, LdmDecoder, Segmenter

from ..rounding import Gradients, differ

TINY = partial(NetworkConfig, preset="ldm", widths=(32, 32, 64, 64), denoiser_widths=(32, 64))


def count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


@cache
def on_meta(**settings: object) -> tuple[Segmenter, Denoiser, DomainDiscriminator]:
    with torch.device("meta"):
        networks = build_networks(NetworkConfig(preset="ldm", **settings), 19)  # type: ignore[arg-type]
        return networks.make_segmenter(), networks.make_denoiser(False), networks.make_discriminator()


def tiny(seed: int = 0, **settings: object) -> Segmenter:
    torch.manual_seed(seed)
    return build_networks(TINY(**settings), 5).make_segmenter()  # type: ignore[arg-type]


# --- counts -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stride", [8, pytest.param(4, marks=pytest.mark.slow), pytest.param(16, marks=pytest.mark.slow)])
def test_the_autoencoder_counts_what_ldms_counts(stride: int) -> None:
    segmenter, _, _ = on_meta(latent_stride=stride, inter_coder=False)
    widths, latent = LDM[stride]["widths"], LDM[stride]["latent_channels"]
    levels, attended = len(widths), stride == 16
    with torch.device("meta"):
        reference = AutoencoderKL(
            block_out_channels=widths,
            down_block_types=("DownEncoderBlock2D",) * (levels - 1) + ("AttnDownEncoderBlock2D" if attended else "DownEncoderBlock2D",),
            up_block_types=("AttnUpDecoderBlock2D" if attended else "UpDecoderBlock2D",) + ("UpDecoderBlock2D",) * (levels - 1),
            layers_per_block=2,
            latent_channels=latent,
            mid_block_add_attention=stride != 4,
        )
    variance = latent * (9 * widths[-1] + 1)  # the half of the last convolution that gives the posterior's width
    assert count(segmenter.encoder) == count(reference.encoder) - variance
    colours, classes = 3 * (9 * widths[0] + 1), 19 * (9 * widths[0] + 1)
    assert count(segmenter.decoder) == count(reference.decoder) - colours + classes + count(reference.post_quant_conv)


def test_the_sizes_of_kl_f8_and_of_both_denoisers() -> None:
    segmenter, denoiser, discriminator = on_meta()
    assert (count(segmenter.encoder), count(segmenter.decoder)) == (34_145_156, 56_098_855)
    assert (count(denoiser), count(discriminator)) == (89_542_532, 35_260_675)
    _, denoiser, discriminator = on_meta(denoiser_widths=LDM_DENOISER_LARGE)
    assert (count(denoiser), count(discriminator)) == (274_068_260, 107_918_275)


def test_the_sizes_of_kl_f8_with_a_connection_a_block_and_with_attention() -> None:
    segmenter, _, _ = on_meta(inter_coder_at="block")
    assert (count(segmenter.encoder), count(segmenter.decoder)) == (34_145_156, 67_804_711)
    _, denoiser, discriminator = on_meta(conditioning="attention")
    assert (count(denoiser), count(discriminator)) == (138_280_708, 52_268_291)


def test_with_a_connection_a_block_each_block_reads_the_encoders_layer_of_its_place() -> None:
    """From the last layer of a level back to the convolution that enters it, whose channels are those of the finer level."""
    state = on_meta(inter_coder_at="block")[0].decoder.state_dict()
    read = [[state[f"up_blocks.{level}.resnets.{block}.conv1.weight"].shape[1] for block in range(3)] for level in range(4)]
    assert read == [
        [512 + 512, 512 + 512, 512 + 512],
        [512 + 512, 512 + 512, 512 + 256],
        [512 + 256, 256 + 256, 256 + 128],
        [256 + 128, 128 + 128, 128 + 128],
    ]


def test_without_connections_the_first_block_of_each_level_is_narrower() -> None:
    wide, narrow = on_meta()[0].decoder.state_dict(), on_meta(inter_coder=False)[0].decoder.state_dict()
    name = "up_blocks.{}.resnets.0.conv1.weight"
    assert [tuple(wide[name.format(i)].shape[:2]) for i in range(4)] == [(512, 1024), (512, 1024), (256, 768), (128, 384)]
    assert [tuple(narrow[name.format(i)].shape[:2]) for i in range(4)] == [(512, 512), (512, 512), (256, 512), (128, 256)]


def test_the_discriminator_is_the_denoisers_encoder_half() -> None:
    _, denoiser, discriminator = on_meta()
    half = ("conv_in.", "time_embedding.", "down_blocks.", "mid_block.")
    expected = {name: tuple(p.shape) for name, p in denoiser.unet.named_parameters() if name.startswith(half)}
    shapes = {name: tuple(p.shape) for name, p in discriminator.named_parameters() if name.startswith(half)}
    assert shapes == expected | {"conv_in.weight": (128, 4, 3, 3)}  # it reads no condition
    assert tuple(discriminator.classify.weight.shape) == (3, 512)


# --- shapes -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("stride", "widths", "latent"), [(4, (32, 32, 64), 3), (8, (32, 32, 64, 64), 4), (16, (32, 32, 32, 32, 64), 16)])
@pytest.mark.parametrize("size", [(21, 35), pytest.param((32, 48), marks=pytest.mark.slow)])
def test_latent_levels_and_logits_have_their_strides_at_any_size(stride, widths, latent, size) -> None:
    network = build_networks(NetworkConfig(preset="ldm", latent_stride=stride, widths=widths, denoiser_widths=(32, 64)), 5)
    segmenter = network.make_segmenter()
    with torch.no_grad():
        features: Features = segmenter.encoder(torch.randn(2, 3, *size))
        logits = segmenter.decoder(features.latent, features.pyramid)
    assert features.latent.shape == (2, latent, -(-size[0] // stride), -(-size[1] // stride))
    assert [tuple(level.shape[1:]) for level in features.pyramid] == [
        (width, -(-size[0] // 2**i), -(-size[1] // 2**i)) for i, width in enumerate(widths)
    ]
    assert logits.shape == (2, 5, *size)
    assert (network.latent_stride, network.latent_channels) == (stride, latent)
    assert network.size_multiple % stride == 0


def test_a_part_of_the_picture_and_its_padding_give_the_same_answer() -> None:
    """A side that is no multiple is padded by replication, nothing else."""
    segmenter, image = tiny().eval(), torch.randn(1, 3, 37, 51)
    padded = nn.functional.pad(image, (0, 5, 0, 3), mode="replicate")
    with torch.no_grad():
        torch.testing.assert_close(segmenter.encoder(image).latent, segmenter.encoder(padded).latent)
        assert segmenter(image).shape == (1, 5, 37, 51)


# --- gradients --------------------------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("inter_coder", [True, False])
def test_every_level_reaches_the_logits_through_its_connection_alone(inter_coder: bool) -> None:
    segmenter = tiny(inter_coder=inter_coder).eval()
    features = segmenter.encoder(torch.randn(1, 3, 16, 16))
    logits = segmenter.decoder(features.latent, features.pyramid)
    for changed in range(4):
        # Mirrored: the norm behind the connection, of single channels here, would take back anything that is added to a whole channel.
        pyramid = tuple(level.flip(-1) if i == changed else level for i, level in enumerate(features.pyramid))
        answer = segmenter.decoder(features.latent, pyramid)
        assert differ(answer, logits) if inter_coder else torch.equal(answer, logits)


@torch.no_grad()
def test_every_layer_of_every_level_reaches_the_logits_through_a_block_of_its_own() -> None:
    segmenter = tiny(inter_coder_at="block").eval()
    features = segmenter.encoder(torch.randn(1, 3, 13, 19))
    logits = segmenter.decoder(features.latent, features.pyramid)
    assert [tuple(level.shape[1:]) for level in features.pyramid] == [(96, 13, 19), (96, 7, 10), (160, 4, 5), (192, 2, 3)]
    for level, (entering, width, _) in enumerate(segmenter.encoder.pyramid_layers):
        for first, last in ((0, entering), (entering, entering + width), (entering + width, entering + 2 * width)):
            changed = [x.clone() for x in features.pyramid]
            changed[level][:, first:last] = changed[level][:, first:last].flip(-1)
            assert differ(segmenter.decoder(features.latent, tuple(changed)), logits)


@torch.no_grad()
def test_layers_of_a_level_are_what_its_blocks_give() -> None:
    encoder, seen = tiny(inter_coder_at="block").eval().encoder, []
    level = encoder.body.down_blocks[2]
    for layer in (encoder.body.down_blocks[1].downsamplers[0], *level.resnets):
        layer.register_forward_hook(lambda module, inputs, output: seen.append(output))
    features = encoder(torch.randn(1, 3, 16, 24))
    assert torch.equal(features.pyramid[2], torch.cat(seen, 1))


@torch.no_grad()
def test_where_a_level_has_one_layer_every_block_reads_it() -> None:
    """A transformers backbone in the encoder's place hands one map over for each level."""
    decoder = LdmDecoder(4, (32, 64), 5, per_block=True)
    assert [block.conv1.in_channels for level in decoder.up_blocks for block in level.resnets] == [128, 128, 128, 96, 64, 64]
    pyramid = (torch.randn(1, 32, 8, 8), torch.randn(1, 64, 4, 4))
    assert decoder(torch.randn(1, 4, 4, 4), pyramid).shape == (1, 5, 8, 8)


def gradients(network: nn.Module, *inputs: Tensor) -> dict[str, Tensor | None]:
    network(*inputs).square().mean().backward()
    return {name: p.grad for name, p in network.named_parameters()}


@pytest.mark.parametrize("at", ["level", "block"])
def test_gradients_reach_every_parameter(at: str) -> None:
    """But for the keys' biases: softmax takes no notice of what all keys have in common.  In float64, and with two channels and more to a
    norm: one of a single channel takes back every bias before it."""
    network = tiny(inter_coder_at=at, widths=(64, 64, 64, 64)).double()
    with Gradients(network) as found:
        network(torch.randn(1, 3, 16, 24).double()).square().mean().backward()
    assert found.unreached() == {name for name, _ in network.named_parameters() if name.endswith(".to_k.bias")}


@pytest.mark.parametrize(
    ("preset", "settings"), [("ldm", {}), ("compact", {}), ("ldm", {"inter_coder_at": "block", "conditioning": "attention"})]
)
def test_checkpointing_changes_no_gradient(preset: str, settings: dict[str, str]) -> None:
    sizes = settings | ({"widths": (8, 8, 16, 16, 16), "decoder_width": 16} if preset == "compact" else {"widths": (32, 32, 64, 64)})
    kept, forgotten = (
        build_networks(NetworkConfig(preset=preset, denoiser_widths=(32, 64), gradient_checkpointing=on, **sizes), 5)  # type: ignore[arg-type]
        for on in (False, True)
    )
    latent, timestep = torch.randn(2, kept.latent_channels, 3, 4), torch.tensor([3, 900])
    for make, inputs in (
        ("make_segmenter", (torch.randn(2, 3, 24, 32),)),
        ("make_denoiser", (latent, timestep, latent + 1)),
        ("make_discriminator", (latent, timestep)),
    ):
        arguments = (False,) if make == "make_denoiser" else ()
        plain, checkpointed = getattr(kept, make)(*arguments), getattr(forgotten, make)(*arguments)
        checkpointed.load_state_dict(plain.state_dict())
        assert saved_bytes(checkpointed, *inputs) < saved_bytes(plain, *inputs)
        expected, found = gradients(plain, *inputs), gradients(checkpointed, *inputs)
        assert list(found) == list(expected)
        torch.testing.assert_close(found, expected, rtol=0, atol=0)


def saved_bytes(network: nn.Module, *inputs: Tensor) -> int:
    """Bytes that a forward pass keeps for the backward pass."""
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = network(*inputs)
    own = {p.untyped_storage().data_ptr() for p in network.parameters()}
    assert output.requires_grad
    return sum(size for pointer, size in kept.items() if pointer not in own)


def test_a_copy_recomputes_its_own_blocks() -> None:
    """The average is a deep copy: it must not run the model it was copied from."""
    segmenter = tiny(gradient_checkpointing=True)
    average = copy.deepcopy(segmenter)
    with torch.no_grad():
        average.encoder.body.conv_in.weight.zero_()
        average.encoder.body.conv_in.bias.zero_()
    image = torch.randn(1, 3, 16, 16)
    assert differ(average(image), segmenter(image))
    average(image).mean().backward()
    assert segmenter.encoder.body.conv_in.weight.grad is None


def test_bf16_trains_with_finite_gradients() -> None:
    network = tiny(gradient_checkpointing=True)
    with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
        loss = network(torch.randn(1, 3, 16, 24)).float().square().mean()
    loss.backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 and bool(p.grad.isfinite().all()) for p in network.parameters())
