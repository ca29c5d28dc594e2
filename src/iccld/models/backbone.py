"""Any transformers backbone as encoder: MiT (SegFormer), PVTv2, ConvNeXt, Swin, DINOv2, DINOv3 and their like."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iccld.errors import ConfigError
from iccld.models.blocks import ConvNormAct, ResidualBlock, num_groups, resize_like
from iccld.models.features import Features
from iccld.models.group_norm import PlainGroupNorm
from iccld.models.recompute import run_block

PROBE = 224
"""Side of the picture that is sent through a backbone's shapes: a multiple of 32 and of the patches 14 and 16."""

TOKEN_STRIDE = 16
"""Picture pixels that a token of a plain ViT covers; a ViT of other patches sees the picture enlarged or reduced to that."""

COARSEST = 32
"""Sides are padded to multiples of it: every family's coarsest level then covers the picture without a remainder."""


class Backbone(nn.Module):
    """A transformers backbone as a pyramid: (B, 3, H, W) normalised -> maps of growing stride, H and W multiples of 32.

    A plain ViT, whose layers all have one stride, becomes a pyramid of strides 4, 8, 16 and 32 as in ViTDet (Li et al. 2022,
    simple feature pyramid): transposed convolutions and pooling on its last map.
    """

    strides: tuple[int, ...]
    channels: tuple[int, ...]

    def __init__(self, model: nn.Module, levels: dict[int, int], recompute: bool = False, training: str = "full") -> None:
        """levels: stride -> channels of the model's maps.  recompute: keep no activation of the model for the backward pass.

        training: what of the model learns, "full", "frozen", "last:N" blocks or "lora:R", whatever is made trainable from outside.
        """
        super().__init__()
        self.model = adapted(model, training)
        self.mode, _, count = training.partition(":")
        self.count = int(count or 0)
        self.recompute = recompute
        self.patch = next(iter(levels)) if len(levels) == 1 else None
        if self.patch is None:
            self.strides, self.channels = tuple(levels), tuple(levels.values())
            self.scales = nn.ModuleList()
        else:
            width = levels[self.patch]
            self.strides, self.channels = (4, 8, 16, 32), (width // 4, width // 2, width, width)
            self.scales = nn.ModuleList(
                [
                    nn.Sequential(
                        nn.ConvTranspose2d(width, width // 2, 2, 2),
                        PlainGroupNorm(num_groups(width // 2), width // 2),
                        nn.GELU(),
                        nn.ConvTranspose2d(width // 2, width // 4, 2, 2),
                    ),
                    nn.ConvTranspose2d(width, width // 2, 2, 2),
                    nn.Identity(),
                    nn.MaxPool2d(2),
                ]
            )

    def train(self, mode: bool = True) -> Self:
        """Freezes again what does not learn: a stage that takes a network over makes all of it trainable first.

        What is frozen drops no paths.
        """
        super().train(mode)
        if self.mode == "full":
            return self
        learning = self._learning()
        learns = {id(parameter) for module in learning for parameter in module.parameters()}
        for parameter in self.model.parameters():
            parameter.requires_grad_(parameter.requires_grad and id(parameter) in learns)
        self.model.eval()
        for module in learning:
            module.train(mode)
        return self

    def _learning(self) -> list[nn.Module]:
        """The parts of the model that learn: none, the last blocks and the norm behind them, or the adapters."""
        if self.mode == "lora":
            return self._adapters()
        if self.mode == "last":
            return [*self.layers()[-self.count :], *(norm for name, norm in self.model.named_children() if name in ("layernorm", "norm"))]
        return []

    def _adapters(self) -> list[nn.Module]:
        return [module for name, module in self.model.named_modules() if name.rpartition(".")[2] in ("lora_A", "lora_B")]

    def layers(self) -> list[nn.Module]:
        """Embeddings, then the blocks of a plain ViT in their order; none of other families."""
        if self.patch is None:
            return []
        blocks = next((module for module in self.model.modules() if isinstance(module, nn.ModuleList) and len(module) > 0), None)
        embeddings = [module for name, module in self.model.named_modules() if name.rpartition(".")[2] == "embeddings"][:1]
        return [] if blocks is None else [*embeddings, *blocks]

    def new_layers(self) -> list[nn.Module]:
        """What does not come with the weights: the pyramid of a plain ViT, and adapters."""
        return [self.scales, *self._adapters()]

    def forward(self, image: Tensor) -> list[Tensor]:
        if self.patch not in (None, TOKEN_STRIDE):
            size = [side * self.patch // TOKEN_STRIDE for side in image.shape[-2:]]
            image = F.interpolate(image, size=size, mode="bilinear", align_corners=False)
        maps: list[Tensor] = run_block(_Maps(self.model), image, recompute=self.recompute)
        return maps if self.patch is None else [scale(maps[-1]) for scale in self.scales]  # (B, C, H/stride, W/stride)


class _Maps(nn.Module):
    """The maps of a model, (B, C, h, w) each; of SegFormer, which is no AutoBackbone, the hidden states."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> list[Tensor]:
        if hasattr(self.model, "out_features"):
            return list(self.model(image).feature_maps)
        return list(self.model(image, output_hidden_states=True).hidden_states)


class BackboneEncoder(nn.Module):
    """Backbone -> pyramid and latent as a decoder wants them: (B, 3, H, W) normalised -> `Features`, H and W of any size.

    strides, channels: of the wanted pyramid, finest first; the latent lies at the last.  Levels finer than the backbone's finest come
    from convolutions on the picture.  Coarser ones are added from the coarsest down, as in a feature pyramid network (Lin et al. 2017).
    """

    def __init__(self, backbone: Backbone, strides: Sequence[int], channels: Sequence[int], latent_channels: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.strides = tuple(strides)
        self.stride = self.strides[-1]
        self.pyramid_channels = tuple(channels)
        self.latent_channels = latent_channels
        width = channels[-1]
        fine = [stride for stride in strides if stride < backbone.strides[0]]
        steps = [1, *fine]
        widths = [3, *channels[: len(fine)]]
        self.stem = nn.ModuleList(
            ConvNormAct(widths[i], widths[i + 1], stride=after // before) for i, (before, after) in enumerate(pairwise(steps))
        )
        sizes = dict(zip(backbone.strides, backbone.channels, strict=True))
        wanted = dict(zip(strides, channels, strict=True))
        self.coarse = sorted((stride for stride in sizes if stride >= self.stride), reverse=True)
        self.lateral = nn.ModuleDict(
            {str(stride): nn.Conv2d(size, wanted.get(stride, width), 1) for stride, size in sizes.items() if stride >= strides[0]}
        )
        self.merge = nn.ModuleDict({str(stride): ResidualBlock(width, width) for stride in self.coarse})
        self.to_latent = nn.Sequential(PlainGroupNorm(num_groups(width), width), nn.SiLU(), nn.Conv2d(width, latent_channels, 1))

    def forward(self, image: Tensor) -> Features:
        height, width = image.shape[-2:]
        image = F.pad(image, (0, -width % COARSEST, 0, -height % COARSEST), mode="replicate")
        maps = dict(zip(self.backbone.strides, self.backbone(image), strict=True))
        levels: dict[int, Tensor] = {}
        x = image
        for stride, block in zip(self.strides, self.stem, strict=False):  # the stem ends where the backbone begins
            levels[stride] = x = block(x)
        levels |= {int(stride): project(maps[int(stride)]) for stride, project in self.lateral.items()}
        merged: Tensor | None = None
        for stride in self.coarse:
            level = levels[stride] if merged is None else levels[stride] + resize_like(merged, levels[stride])
            merged = self.merge[str(stride)](level)
        latent = crop_level(self.to_latent(merged), height, width, self.stride)  # (B, C, H/stride, W/stride)
        return Features(latent, tuple(crop_level(levels[stride], height, width, stride) for stride in self.strides))

    def new_layers(self) -> list[nn.Module]:
        """What does not come with a backbone's weights: it learns at the rate of the head."""
        return [*self.backbone.new_layers(), self.stem, self.lateral, self.merge, self.to_latent]

    def layers(self) -> list[nn.Module]:
        """The backbone's, for rates that fall with depth."""
        return self.backbone.layers()


def adapted(model: nn.Module, training: str) -> nn.Module:
    """The model itself; for "lora:R" with adapters of rank R beside every linear layer of its blocks (Hu et al. 2022), by peft."""
    mode, _, rank = training.partition(":")
    if mode != "lora":
        return model
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise ConfigError(f"network.encoder_training is {training}, which needs the package peft; pip install peft") from None
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    answer: nn.Module = inject_adapter_in_model(LoraConfig(r=int(rank), lora_alpha=int(rank), target_modules=names), model)
    return answer


def load_backbone(
    folder: Path, pretrained: bool = True, gradient_checkpointing: bool = False, *, training: str = "full", drop_path: float = 0.0
) -> Backbone:
    """The backbone of a folder with a transformers config.json, with the folder's weights or, unless `pretrained`, random ones.

    training: what of it learns, see `Backbone`.  drop_path: chance that the last block is left out in training, which falls linearly to
    0 at the first (Huang et al. 2016); 0 = as the configuration has it.

    ConfigError for a folder that holds no backbone or not all of its weights, and where transformers is not installed.
    """
    config = read_architecture(folder)
    if drop_path > 0:
        if not hasattr(config, "drop_path_rate"):
            raise ConfigError(f"network.drop_path is {drop_path}, but {config.model_type} drops no paths; leave it out")
        config.drop_path_rate = drop_path
    kind = _class_of(config)
    is_backbone = hasattr(config, "out_indices")
    if is_backbone:
        config.out_indices = list(range(len(config.stage_names)))
    with torch.device("meta"):
        shapes = [tuple(shape.shape) for shape in _Maps(kind(config))(torch.zeros(1, 3, PROBE, PROBE))]
    last = {PROBE // side: index for index, (*_, side) in enumerate(shapes)}  # the last map of each stride
    if is_backbone:
        config.out_indices = list(last.values())
    model = _pretrained(kind, config, folder) if pretrained else kind(config)
    does_itself = gradient_checkpointing and model.supports_gradient_checkpointing
    if does_itself:  # renamed during transformers 5
        enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
        enable({"use_reentrant": False})
    levels = {stride: shapes[index][1] for stride, index in last.items()}
    made = Backbone(model, levels, gradient_checkpointing and not does_itself, training)
    if drop_path > 0:
        blocks = made.layers()[1:]  # of the embeddings' list; other families fall linearly by themselves
        for number, block in enumerate(blocks):
            for module in block.modules():
                if hasattr(module, "drop_prob"):
                    setattr(module, "drop_prob", drop_path * number / max(len(blocks) - 1, 1))  # noqa: B010
    if training.startswith("last") and len(made.layers()) <= made.count:
        raise ConfigError(f"network.encoder_training is {training}; this encoder has {max(len(made.layers()) - 1, 0)} blocks in a row")
    return made.train()


def save_architecture(folder: Path, out: Path) -> None:
    """Keep what `load_backbone(out, pretrained=False)` needs: the configuration without the weights."""
    out.mkdir(parents=True, exist_ok=True)
    read_architecture(folder).to_json_file(out / "config.json", use_diff=False)


def read_architecture(folder: Path) -> Any:
    """The transformers configuration of a folder."""
    try:
        from transformers import AutoConfig
    except ImportError:
        raise ConfigError("network.encoder needs the package transformers; pip install transformers") from None
    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"network.encoder: {folder} holds no configuration that transformers knows ({_one_line(error)})") from None


def _class_of(config: Any) -> Any:
    """The class of a configuration's backbone; AutoBackbone takes no local folder in transformers 5."""
    from transformers import MODEL_FOR_BACKBONE_MAPPING, MODEL_MAPPING

    if type(config) in MODEL_FOR_BACKBONE_MAPPING:
        return MODEL_FOR_BACKBONE_MAPPING[type(config)]
    if config.model_type == "segformer":
        return MODEL_MAPPING[type(config)]
    raise ConfigError(f"network.encoder: {config.model_type} is no backbone; use for example MiT, PVTv2, ConvNeXt, Swin or DINOv2")


def _pretrained(kind: Any, config: Any, folder: Path) -> Any:
    """from_pretrained without its tables on the screen; norms of the maps may be new, anything else missing is refused."""
    from transformers.utils import logging

    level, had_bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        model, info = kind.from_pretrained(folder, config=config, local_files_only=True, dtype=torch.float32, output_loading_info=True)
    except Exception as error:  # besides OSError, ValueError, RuntimeError: what unpickling refuses, and safetensors' own
        raise ConfigError(f"network.encoder: cannot read the weights in {folder} ({_one_line(error)}); fetch them again") from None
    finally:
        logging.set_verbosity(level)
        if had_bar:
            logging.enable_progress_bar()
    missing = sorted(name for name in info["missing_keys"] if not name.startswith("hidden_states_norms."))
    if missing:
        raise ConfigError(
            f"network.encoder: the weights in {folder} lack {len(missing)} of the model's, e.g. {missing[0]}; fetch them again"
        )
    return model


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def crop_level(x: Tensor, height: int, width: int, stride: int) -> Tensor:
    """The part of a padded picture's map at `stride` that covers the picture of height x width."""
    return x[..., : -(-height // stride), : -(-width // stride)]
