"""Transformers backbones of six families, tiny and random, from a local folder."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from iccld.assembly.networks import ARCHITECTURE, build_networks, keep_architecture
from iccld.config import NetworkConfig
from iccld.errors import ConfigError
from iccld.models import BackboneEncoder
from iccld.models.backbone import load_backbone

from ..rounding import Gradients, differ

STAGES: dict[str, Any] = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]}
HEADS: dict[str, Any] = {"num_attention_heads": [1, 1, 2, 2]}
PLAIN: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
FAMILIES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "mit": ("SegformerModel", "SegformerConfig", STAGES | HEADS),
    "pvtv2": ("PvtV2Model", "PvtV2Config", STAGES | HEADS),
    "convnext": ("ConvNextModel", "ConvNextConfig", STAGES),
    "swin": ("SwinModel", "SwinConfig", {"embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2], "window_size": 4}),
    "dinov2": ("Dinov2Model", "Dinov2Config", PLAIN | {"patch_size": 14, "image_size": 56}),
    "dinov3": ("DINOv3ViTModel", "DINOv3ViTConfig", PLAIN | {"patch_size": 16, "intermediate_size": 32, "num_register_tokens": 2}),
}
CHANNELS = {"swin": (8, 16, 32, 64), "dinov2": (4, 8, 16, 16), "dinov3": (4, 8, 16, 16)}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a family's tiny random model, as `save_pretrained` writes it."""
    root = tmp_path_factory.mktemp("backbones")

    def folder(family: str) -> Path:
        if not (root / family).is_dir():
            torch.manual_seed(0)
            model, config, sizes = FAMILIES[family]
            getattr(transformers, model)(getattr(transformers, config)(**sizes)).save_pretrained(root / family)
        return root / family

    return folder


def encoder(folder: Path, widths: tuple[int, int, int] = (8, 8, 16), **options: bool) -> BackboneEncoder:
    torch.manual_seed(1)
    return BackboneEncoder(load_backbone(folder, **options), (2, 4, 8), widths, 4)


@pytest.mark.parametrize("family", FAMILIES)
def test_backbones_give_pyramid_and_latent_at_any_size(family: str, saved: Callable[[str], Path]) -> None:
    made = encoder(saved(family))
    assert made.backbone.strides == (4, 8, 16, 32)
    assert made.backbone.channels == CHANNELS.get(family, (8, 16, 24, 32))
    with torch.no_grad():
        features = made(torch.randn(1, 3, 50, 70))
    assert [tuple(level.shape[1:]) for level in features.pyramid] == [(8, 25, 35), (8, 13, 18), (16, 7, 9)]
    assert features.latent.shape == (1, 4, 7, 9)


@pytest.mark.parametrize(
    "family", ["pvtv2", "swin", "dinov2", *(pytest.param(each, marks=pytest.mark.slow) for each in ("mit", "convnext", "dinov3"))]
)
def test_backbones_have_the_saved_weights_and_learn(family: str, saved: Callable[[str], Path]) -> None:
    made = encoder(saved(family), (16, 16, 32))  # a norm of single channels would take back the biases before it
    own, stored = made.backbone.model.state_dict(), getattr(transformers, FAMILIES[family][0]).from_pretrained(saved(family)).state_dict()
    shared = {name: name if name in stored else name.partition(".")[2] for name in own}  # Swin's backbone wraps the model
    shared = {name: other for name, other in shared.items() if other in stored}
    assert len(shared) > 30
    assert all(torch.equal(own[name], stored[other]) for name, other in shared.items())
    made = made.double()  # where rounding is far below any gradient
    with Gradients(made) as gradients:
        features = made(torch.randn(1, 3, 64, 64).double())
        (features.latent.square().mean() + sum(level.square().mean() for level in features.pyramid)).backward()
    # What no map depends on: the token of masked pre-training, the last norm of Swin's classifier, what all keys have in common, and a
    # bias whose channels have a norm each.
    idle = ("mask_token", "swin.layernorm", "attention.key.bias", "attention.k_proj.bias", "scales.0.0.bias")
    assert [name for name in gradients.unreached() if not any(part in name for part in idle)] == []


@pytest.mark.parametrize(
    "family", ["convnext", "dinov3", pytest.param("mit", marks=pytest.mark.slow)]
)  # as a whole, a plain ViT, layer by layer
def test_checkpointing_changes_no_gradient_of_a_backbone(family: str, saved: Callable[[str], Path]) -> None:
    image, gradients = torch.randn(1, 3, 64, 64), []
    for on in (False, True):
        made = encoder(saved(family), gradient_checkpointing=on).train()
        for module in made.modules():  # paths are dropped by chance; DINOv3 rescales positions by chance
            for name in ("drop_prob", "p"):
                if hasattr(module, name):
                    setattr(module, name, 0.0)
        torch.manual_seed(2)
        made(image).latent.square().mean().backward()
        gradients.append({name: p.grad for name, p in made.named_parameters() if p.grad is not None})
    assert list(gradients[0]) == list(gradients[1])
    torch.testing.assert_close(gradients[1], gradients[0], rtol=0, atol=0)


def test_a_token_of_14_pixels_covers_16_of_the_picture(saved: Callable[[str], Path]) -> None:
    made, seen = load_backbone(saved("dinov2")), []
    made.model.register_forward_pre_hook(lambda module, inputs: seen.append(tuple(inputs[0].shape)))
    with torch.no_grad():
        maps = made(torch.randn(1, 3, 64, 96))
    assert seen == [(1, 3, 56, 84)]
    assert [tuple(x.shape[-2:]) for x in maps] == [(16, 24), (8, 12), (4, 6), (2, 3)]


@pytest.mark.parametrize("settings", [{"widths": (8, 8, 16, 16, 16)}, {"preset": "ldm", "widths": (32, 32, 64, 64)}])
def test_a_kept_architecture_reads_the_weights_back_without_the_folder(settings, saved, tmp_path: Path) -> None:
    source = tmp_path / "weights"
    source.mkdir()
    for file in saved("mit").iterdir():
        (source / file.name).write_bytes(file.read_bytes())
    network = NetworkConfig(encoder=str(source), denoiser_widths=(32, 64), **settings)
    trained = build_networks(network, 5).make_segmenter().eval()
    keep_architecture(network, tmp_path / "run")
    for file in source.iterdir():
        file.unlink()
    source.rmdir()
    read = build_networks(network, 5, run=tmp_path / "run").make_segmenter().eval()
    image = torch.randn(1, 3, 50, 70)
    assert differ(read(image), trained(image))
    read.load_state_dict(trained.state_dict())
    assert torch.equal(read(image), trained(image))
    assert [file.name for file in (tmp_path / "run" / ARCHITECTURE).iterdir()] == ["config.json"]


# --- refusals -----------------------------------------------------------------------------------------------------------------


def test_folders_without_a_backbone_are_refused_in_one_line(tmp_path: Path, saved: Callable[[str], Path]) -> None:
    with pytest.raises(ConfigError, match="no configuration that transformers knows"):
        load_backbone(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ConfigError, match="bert is no backbone"):
        load_backbone(tmp_path)
    (tmp_path / "config.json").write_bytes((saved("mit") / "config.json").read_bytes())
    with pytest.raises(ConfigError, match="cannot read the weights") as refusal:
        load_backbone(tmp_path)
    assert "\n" not in str(refusal.value)


def test_weights_that_lack_a_layer_are_refused(tmp_path: Path, saved: Callable[[str], Path]) -> None:
    from safetensors.torch import load_file, save_file

    (tmp_path / "config.json").write_bytes((saved("pvtv2") / "config.json").read_bytes())
    weights = load_file(saved("pvtv2") / "model.safetensors")
    dropped = next(name for name in weights if "attention" in name)
    save_file({name: w for name, w in weights.items() if name != dropped}, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ConfigError, match="lack 1 of the model's"):
        load_backbone(tmp_path)


def test_a_missing_transformers_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch, saved: Callable[[str], Path]) -> None:
    folder = saved("mit")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ConfigError, match="needs the package transformers; pip install transformers"):
        load_backbone(folder)


def test_an_encoder_and_an_autoencoder_exclude_each_other() -> None:
    with pytest.raises(ConfigError, match="both given"):
        NetworkConfig(preset="ldm", encoder="a", autoencoder="b")
    with pytest.raises(ConfigError, match="goes with the ldm preset"):
        NetworkConfig(autoencoder="b")
