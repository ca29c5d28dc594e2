"""Foundation encoders: tokens that are no patches, positions at other sizes, what of them learns, dropped paths, rates by depth."""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import transformers
from torch import nn

from iccld.assembly.networks import build_networks, keep_architecture
from iccld.config import NetworkConfig
from iccld.config.optimisation import Optimisation
from iccld.errors import ConfigError
from iccld.methods.common.optimizers import segmenter_optimizer
from iccld.models import Segmenter
from iccld.models.backbone import load_backbone

PLAIN: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "patch_size": 14, "image_size": 56}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "dinov2": ("Dinov2", PLAIN),
    "registers": ("Dinov2WithRegisters", PLAIN | {"num_register_tokens": 3}),
    "dinov3": ("DINOv3ViT", PLAIN | {"patch_size": 16, "image_size": 64, "intermediate_size": 32, "num_register_tokens": 2}),
}
NEW = ("encoder.backbone.scales.", "encoder.stem.", "encoder.lateral.", "encoder.merge.", "encoder.to_latent.", "decoder.")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Tiny random models as `save_pretrained` writes them."""
    root = tmp_path_factory.mktemp("foundation")
    torch.manual_seed(0)
    for family, (kind, sizes) in FAMILIES.items():
        getattr(transformers, f"{kind}Model")(getattr(transformers, f"{kind}Config")(**sizes)).save_pretrained(root / family)
    return {family: root / family for family in FAMILIES}


def segmenter(folder: Path, run: Path | None = None, **settings: Any) -> Segmenter:
    sizes: dict[str, Any] = {"widths": (8, 8, 16, 16, 16), "latent_channels": 4, "decoder_width": 8, "denoiser_widths": (32, 32)}
    torch.manual_seed(1)
    return build_networks(NetworkConfig(encoder=str(folder), **sizes | settings), 5, run=run).make_segmenter()


def taken_over(network: Segmenter) -> Segmenter:
    """As a stage takes over what the one before has trained."""
    return copy.deepcopy(network).requires_grad_(True).train()


def reached(network: nn.Module) -> set[str]:
    """The parameters that gradients reach."""
    network(torch.randn(2, 3, 64, 96)).square().mean().backward()
    return {name for name, p in network.named_parameters() if p.grad is not None and bool(p.grad.abs().sum() > 0)}


# --- tokens and positions ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_maps_are_the_patches_without_class_and_register_tokens(family: str, folders: dict[str, Path]) -> None:
    kind, sizes = FAMILIES[family]
    whole = getattr(transformers, f"{kind}Model").from_pretrained(folders[family]).eval()
    made = load_backbone(folders[family]).eval()
    patch = sizes["patch_size"]
    image = torch.randn(1, 3, 4 * patch, 6 * patch)  # not the size of its positions, and not square
    with torch.no_grad():
        tokens = whole(image).last_hidden_state
        (found,) = made.model(image).feature_maps
    extra = 1 + sizes.get("num_register_tokens", 0)
    assert tokens.shape[1] == extra + 24
    torch.testing.assert_close(found, tokens[:, extra:].transpose(1, 2).reshape(1, 16, 4, 6), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", ["dinov2", "registers"])
def test_position_embeddings_are_interpolated_to_the_pictures_own_grid(family: str, folders: dict[str, Path]) -> None:
    embeddings = load_backbone(folders[family]).eval().model.get_submodule("embeddings")
    positions = embeddings.position_embeddings  # (1, 1 + 4 * 4, 16)
    for rows, columns in ((4, 4), (3, 7), (8, 8)):
        image = torch.randn(1, 3, 14 * rows, 14 * columns)
        with torch.no_grad():
            patches = embeddings(image)[:, -rows * columns :] - embeddings.patch_embeddings(image)
            grid = positions[:, 1:].reshape(1, 4, 4, 16).permute(0, 3, 1, 2)
            wanted = grid if (rows, columns) == (4, 4) else F.interpolate(grid, (rows, columns), mode="bicubic", align_corners=False)
        antialiased = F.interpolate(grid, (rows, columns), mode="bicubic", align_corners=False, antialias=True)
        errors = [float((patches - each.flatten(2).transpose(1, 2)).abs().max().detach()) for each in (wanted, antialiased)]
        assert min(errors) < 1e-5, (rows, columns, errors)


# --- what learns ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_a_frozen_encoder_stays_frozen_when_a_stage_takes_it_over(family: str, folders: dict[str, Path]) -> None:
    network = taken_over(segmenter(folders[family], encoder_training="frozen", drop_path=0.5))
    found = reached(network)
    assert found == {name for name, _ in network.named_parameters() if name.startswith(NEW)}
    assert not any(module.training for module in network.encoder.backbone.model.modules())
    assert network.encoder.backbone.scales.training


@pytest.mark.parametrize("family", FAMILIES)
def test_the_last_blocks_learn_and_the_norm_behind_them(family: str, folders: dict[str, Path]) -> None:
    network = taken_over(segmenter(folders[family], encoder_training="last:2"))
    found = {name for name in reached(network) if not name.startswith(NEW)}
    kept = [name for name in found if any(f"layer.{number}." in name for number in (2, 3))]
    norms = {name for name in found if name.startswith(("encoder.backbone.model.layernorm.", "encoder.backbone.model.norm."))}
    assert found == {*kept, *norms}
    assert len(kept) > 20
    assert len(norms) == 2
    assert {name for name, p in network.named_parameters() if p.requires_grad and not name.startswith(NEW)} >= found


@pytest.mark.parametrize("family", FAMILIES)
def test_adapters_alone_learn_and_change_nothing_at_first(family: str, folders: dict[str, Path], tmp_path: Path) -> None:
    pytest.importorskip("peft")
    image = torch.randn(1, 3, 64, 96)
    plain, network = segmenter(folders[family]).eval(), taken_over(segmenter(folders[family], encoder_training="lora:2"))
    network.load_state_dict({**network.state_dict(), **{k: v for k, v in plain.state_dict().items() if k.startswith(NEW)}})
    with torch.no_grad():
        torch.testing.assert_close(network.eval()(image), plain(image))
    network.train()
    found = {name for name in reached(network) if not name.startswith(NEW)}
    assert found == {name for name, _ in network.named_parameters() if ".lora_B." in name}  # A learns once B is no longer zero
    learns = {name for name, p in network.named_parameters() if p.requires_grad and not name.startswith(NEW)}
    assert learns == {name for name, _ in network.named_parameters() if "lora_" in name}
    # Adapters come without weights: they learn at the rate of the head.
    made = segmenter_optimizer(network, Optimisation(iterations=1, head_factor=10.0))
    assert {round(group["lr"] / 1e-3) for group in made.param_groups} == {10}
    # The run is read without the weights.
    keep_architecture(NetworkConfig(encoder=str(folders[family])), tmp_path)
    read = segmenter(Path("gone"), run=tmp_path, encoder_training="lora:2").eval()
    read.load_state_dict(network.state_dict())
    with torch.no_grad():
        assert torch.equal(read(image), network.eval()(image))


def test_evaluation_in_between_leaves_what_learns_as_it_was(folders: dict[str, Path]) -> None:
    network = taken_over(segmenter(folders["dinov2"], encoder_training="last:1"))
    before = {name for name, p in network.named_parameters() if p.requires_grad}
    network.eval()
    network.train()
    assert {name for name, p in network.named_parameters() if p.requires_grad} == before
    network.requires_grad_(False).train()
    assert not any(p.requires_grad for p in network.parameters())


# --- dropped paths and rates ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_paths_are_dropped_more_often_the_deeper_and_in_training_alone(family: str, folders: dict[str, Path]) -> None:
    network = segmenter(folders[family], drop_path=0.3)
    blocks = network.encoder.backbone.layers()[1:]
    chances = [module.drop_prob for block in blocks for module in block.modules() if type(module).__name__.endswith("DropPath")]
    assert chances == pytest.approx([0.0, 0.1, 0.2, 0.3])
    image = torch.randn(4, 3, 64, 64)
    with torch.no_grad():
        assert not torch.equal(network(image), network(image))
        network.eval()
        assert torch.equal(network(image), network(image))


def test_a_path_is_dropped_with_its_chance(folders: dict[str, Path]) -> None:
    network = segmenter(folders["dinov2"], drop_path=0.3)
    last = network.encoder.backbone.layers()[-1]
    (drop,) = [module for module in last.modules() if type(module).__name__.endswith("DropPath")]
    torch.manual_seed(0)
    dropped = float((drop(torch.ones(10_000, 1, 1)) == 0).float().mean())
    assert dropped == pytest.approx(0.3, abs=0.02)


@pytest.mark.parametrize("family", FAMILIES)
def test_rates_fall_with_depth_and_the_head_learns_fastest(family: str, folders: dict[str, Path]) -> None:
    network = segmenter(folders[family])
    made = segmenter_optimizer(network, Optimisation(iterations=1, learning_rate=1e-3, head_factor=10.0, layer_decay=0.5))
    rates = {id(p): group["lr"] for group in made.param_groups for p in group["params"]}
    assert rates.keys() == {id(p) for p in network.parameters()}
    for name, p in network.named_parameters():
        number = next((int(part) for part in name.split(".") if part.isdigit() and "layer." in name), None)
        if name.startswith(NEW):
            wanted = 1e-2
        elif ".embeddings." in name:
            wanted = 1e-3 * 0.5**5
        else:
            wanted = 1e-3 if number is None else 1e-3 * 0.5 ** (4 - number)
        assert rates[id(p)] == pytest.approx(wanted), name


# --- refusals ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"encoder_training": "last"}, "use full, frozen, last:N or lora:R"),
        ({"encoder_training": "lora:0"}, "use full, frozen, last:N or lora:R"),
        ({"encoder_training": "frozen:3"}, "use full, frozen, last:N or lora:R"),
        ({"drop_path": 1.0}, "use a chance of at least 0 and below 1"),
        ({"encoder": "", "encoder_training": "frozen"}, "encoder_training goes with a pre-trained network"),
        ({"encoder": "", "drop_path": 0.1}, "drop_path goes with a transformers backbone"),
        ({"encoder": "efficientnet-lite0", "drop_path": 0.1}, "drop_path goes with a transformers backbone"),
        ({"encoder": "efficientnet-lite0", "encoder_training": "lora:2"}, "but efficientnet-lite0 has no linear layers; use last:N"),
    ],
)
def test_settings_that_say_nothing_are_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        NetworkConfig(**{"encoder": "some/model"} | settings)


def test_more_blocks_than_there_are_and_a_missing_peft_are_told_in_one_line(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="has 4 blocks in a row"):
        segmenter(folders["dinov2"], encoder_training="last:9")
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ConfigError, match="pip install peft"):
        segmenter(folders["dinov2"], encoder_training="lora:2")


def test_rates_by_depth_need_layers() -> None:
    network = build_networks(NetworkConfig(), 5).make_segmenter()
    with pytest.raises(ConfigError, match="layer_decay goes with a plain ViT"):
        segmenter_optimizer(network, Optimisation(iterations=1, layer_decay=0.9))
