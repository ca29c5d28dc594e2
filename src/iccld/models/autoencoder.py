"""Weights of a saved diffusers `AutoencoderKL` -> `LdmEncoder` and `LdmDecoder`."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor, nn

from iccld.errors import ConfigError
from iccld.models.ldm import LdmDecoder, LdmEncoder


def read_autoencoder(folder: Path, widths: tuple[int, ...], latent_channels: int) -> dict[str, Tensor]:
    """The weights of the folder (or of its `vae` part), once its geometry is the asked one; ConfigError names what differs."""
    folder = folder if (folder / "config.json").is_file() else folder / "vae"
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise ConfigError(f"network.autoencoder: {folder} holds no readable config.json; give a saved AutoencoderKL folder") from None
    asked = {"block_out_channels": list(widths), "latent_channels": latent_channels, "layers_per_block": 2}
    for key, value in asked.items():
        if config.get(key) != value:
            raise ConfigError(f"network.autoencoder: {folder} has {key} {config.get(key)}, network asks for {value}; make them agree")
    from diffusers import AutoencoderKL

    try:
        model = AutoencoderKL.from_pretrained(folder, local_files_only=True, low_cpu_mem_usage=False)
    except (OSError, ValueError, RuntimeError) as error:
        problem = " ".join(str(error).split())[:200]
        raise ConfigError(f"network.autoencoder: cannot read the weights in {folder} ({problem}); save them with save_pretrained") from None
    weights: dict[str, Tensor] = model.state_dict()
    return weights


@torch.no_grad()
def load_encoder(encoder: LdmEncoder, weights: dict[str, Tensor]) -> None:
    """The encoder then gives the mean of the autoencoder's posterior.

    The 1x1 `quant_conv` behind the last convolution is folded into it, and the variance half of its outputs is left out: the same
    function, since nothing stands between the two.
    """
    own = _under(weights, "encoder.")
    channels = encoder.latent_channels
    kernel, bias = own["conv_out.weight"], own["conv_out.bias"]  # (2C, W, 3, 3), (2C,)
    if "quant_conv.weight" in weights:
        mix = weights["quant_conv.weight"][:, :, 0, 0]  # (2C, 2C)
        kernel = torch.einsum("om,mwyx->owyx", mix, kernel)
        bias = mix @ bias + weights["quant_conv.bias"]
    own |= {"conv_out.weight": kernel[:channels], "conv_out.bias": bias[:channels]}
    _load(encoder.body, own)


@torch.no_grad()
def load_decoder(decoder: LdmDecoder, weights: dict[str, Tensor]) -> None:
    """Everything but the last layer, which names classes and not colours.

    Concatenated channels start with weights of zero (and the shortcuts they make necessary with the identity): before training, the
    decoder's features are the autoencoder's.
    """
    own = _under(weights, "decoder.")
    own = {name: tensor for name, tensor in own.items() if not name.startswith("conv_out.")}
    own |= {name: tensor for name, tensor in weights.items() if name.startswith("post_quant_conv.")}
    state = decoder.state_dict()
    if "post_quant_conv.weight" not in own:  # an autoencoder without it
        channels = len(state["post_quant_conv.bias"])
        own |= {"post_quant_conv.weight": torch.eye(channels)[:, :, None, None], "post_quant_conv.bias": torch.zeros(channels)}
    for name in [name for name in state if ".conv_shortcut." in name and name not in own]:
        rows = len(state[name])
        own[name] = torch.eye(rows)[:, :, None, None] if name.endswith("weight") else torch.zeros(rows)
    for name, tensor in own.items():
        if name in state and state[name].shape[1:2] != tensor.shape[1:2]:
            own[name] = _widened(tensor, state[name], 1)
        elif name in state and ".norm1." in name and len(state[name]) != len(tensor):
            own[name] = _widened(tensor, state[name], 0, fill=1.0 if name.endswith("weight") else 0.0)
    kept = {name: state[name] for name in state if name.startswith("classify.")}
    _load(decoder, own | kept)
    decoder.is_pretrained = True


def _widened(tensor: Tensor, like: Tensor, axis: int, fill: float = 0.0) -> Tensor:
    added = list(like.shape)
    added[axis] -= tensor.shape[axis]
    return torch.cat([tensor, torch.full(added, fill)], axis)


def _under(weights: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}


def _load(module: nn.Module, state: dict[str, Tensor]) -> None:
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        problem = " ".join(str(error).split())[:200]
        raise ConfigError(f"network.autoencoder: the weights do not fit the network ({problem}); check widths and latent_stride") from None
