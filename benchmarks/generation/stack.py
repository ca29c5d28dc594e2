"""What the decoder reads, as one stack: built and undone, reduced to a code, and taken from a run's pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iccld.assembly.objects import class_weights, make_parts, open_data
from iccld.config import read_config
from iccld.data import FileDataset
from iccld.data.check import class_statistics
from iccld.evaluation import teacher_logits
from iccld.evaluation.evaluate import spread
from iccld.evaluation.views import show_at
from iccld.geometry import padded
from iccld.labels import IGNORE
from iccld.methods.common.iccld_settings import Settings
from iccld.methods.common.parts import Parts, normalise
from iccld.models import Features, Segmenter
from iccld.runs.base import open_base
from iccld.runs.data import read_ranges
from iccld.training.engine import Engine

STRIDE = 8
"""Picture pixels a cell of the stack covers, per side."""


class Scenes(NamedTuple):
    """Pictures of a domain as the decoder reads them.  stack: (N, D, h, w) bfloat16.  label: (N, H, W) uint8, 255 = ignore."""

    stack: Tensor
    label: Tensor


def stacked(features: Features) -> Tensor:
    """Latent and levels of strides 8, 4, 2 at stride 8: -> (B, D, h, w)."""
    level2, level4, level8 = features.pyramid
    return torch.cat([features.latent, level8, F.pixel_unshuffle(level4, 2), F.pixel_unshuffle(level2, 4)], 1)


def unstacked(stack: Tensor, channels: Sequence[int]) -> Features:
    """`stacked` undone; channels: of the four parts in the stack."""
    latent, level8, level4, level2 = torch.split(stack, list(channels), 1)
    return Features(latent, (F.pixel_shuffle(level2, 4), F.pixel_shuffle(level4, 2), level8))


class Code:
    """The stack with its levels reduced to principal components, every channel of zero mean and unit variance."""

    def __init__(self, stack: Tensor, channels: Sequence[int], variance: float) -> None:
        """stack: (N, D, h, w), of both domains alike.  variance: the share of a folded level's variance that is kept."""
        cells = stack.float().permute(1, 0, 2, 3).flatten(1)  # (D, N h w)
        self.channels = list(channels)
        self.bases: list[Tensor] = []
        self.kept: list[float] = []
        for number, part in enumerate(torch.split(cells, self.channels)):
            values, vectors = torch.linalg.eigh(torch.cov(part))
            values, vectors = values.flip(0).clamp(min=0), vectors.flip(1)
            shares = values.cumsum(0) / values.sum()
            count = min(int((shares < variance).sum()) + 1, len(values)) if number >= 2 else len(values)
            basis = torch.eye(len(values)) if number < 2 else vectors[:, :count]
            self.bases.append(basis)  # (D_part, C_part)
            self.kept.append(float(shares[count - 1]))
        self.sizes = [basis.shape[1] for basis in self.bases]
        self.mean = cells.mean(1)
        rotated = self._rotated(stack.float())
        self.scale = rotated.std((0, 2, 3)).clamp(min=1e-6)

    @property
    def width(self) -> int:
        """Channels of the code."""
        return sum(self.sizes)

    @property
    def latent(self) -> int:
        """Of these, those of the latent, which are the first."""
        return self.sizes[0]

    def encode(self, stack: Tensor) -> Tensor:
        """(B, D, h, w) -> (B, C, h, w)."""
        return self._rotated(stack.float()) / self.scale[:, None, None]

    def decode(self, code: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, D, h, w)."""
        parts = torch.split(code * self.scale[:, None, None], self.sizes, 1)
        restored = [torch.einsum("bchw,dc->bdhw", part, basis) for part, basis in zip(parts, self.bases, strict=True)]
        return torch.cat(restored, 1) + self.mean[:, None, None]

    def _rotated(self, stack: Tensor) -> Tensor:
        parts = torch.split(stack - self.mean[:, None, None], self.channels, 1)
        return torch.cat([torch.einsum("bdhw,dc->bchw", part, basis) for part, basis in zip(parts, self.bases, strict=True)], 1)


class Material(NamedTuple):
    """What a run leaves to the experiment.  `target` has labels of several views, `val` its true ones, `val_views` those of the views."""

    segmenter: Segmenter
    parts: Parts
    channels: list[int]
    source: Scenes
    source_val: Scenes
    target: Scenes
    val: Scenes
    val_views: Tensor


def prepared(image: np.ndarray, label: np.ndarray | None, parts: Parts) -> tuple[Tensor, Tensor]:
    """A picture at the working size, its sides padded: -> (1, 3, H, W) normalised, (1, H, W) uint8."""
    content = parts.predictor(nn.Identity()).content_size(*image.shape[:2])
    size = padded(content, parts.size_multiple)
    shown = show_at(torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None].float() / 255, content, size)
    given = torch.full((1, 1, *content), IGNORE, dtype=torch.uint8)
    if label is not None:
        given = F.interpolate(torch.from_numpy(label)[None, None], size=content, mode="nearest-exact")
    return normalise(shown), F.pad(given, (0, size[1] - content[1], 0, size[0] - content[0]), value=IGNORE)[:, 0]


@torch.no_grad()
def scenes_of(
    dataset: FileDataset, num: int, segmenter: Segmenter, parts: Parts, engine: Engine, labels: str
) -> tuple[Scenes, Tensor | None]:
    """Pictures of a dataset, evenly spread, and (N, H, W) labels of several views.  labels: `truth`, `views`, or `both`."""
    stacks, truths, views = [], [], []
    settings = Settings()
    for index in spread(len(dataset), num):
        image = dataset.read_image(index)
        shown, label = prepared(image, dataset.read_label(index) if labels != "views" else None, parts)
        with engine.autocast():
            stacks.append(stacked(segmenter.encoder(shown)).to(torch.bfloat16))
            if labels != "truth":
                logits = teacher_logits(segmenter, shown, settings.label_scales, settings.label_flip, parts.size_multiple)
                seen = F.interpolate(logits.argmax(1, keepdim=True).to(torch.uint8), size=tuple(label.shape[1:]), mode="nearest-exact")
                views.append(seen[:, 0])
        truths.append(views[-1] if labels == "views" else label)
    return Scenes(torch.cat(stacks), torch.cat(truths)), torch.cat(views) if views else None


def material_of(run: Path, stage: str, num: int, keep: Path | None) -> Material:
    """Features and labels of a run's pictures, from the kept file where it is there."""
    config = read_config(run / "config.yaml")
    data = open_data(config, read_ranges(run), tells=False)
    if data.source_val is None or data.val is None:
        raise SystemExit(f"{run}: needs held-out source pictures and labelled val pictures; train with --source.holdout 24 and a val.path")
    base = open_base(run, stage)
    counts = class_statistics(data.source)
    balance = config.sampling.class_balance
    parts = make_parts(config, data.label_space, class_weights(counts, balance) if balance else None, run=run)
    file = None if keep is None else keep / f"{run.resolve().parent.name}-{run.name}-{base.stage}-{num}.pt"
    if file is not None and file.is_file():
        kept: dict[str, Any] = torch.load(file, weights_only=True)
        roles = {role: Scenes(*kept[role]) for role in ("source", "source_val", "target", "val")}
        return Material(base.segmenter, parts, kept["channels"], **roles, val_views=kept["val_views"])
    engine = Engine(accelerator="cpu", precision="auto", num_threads=1)
    found: dict[str, Scenes] = {}
    val_views = None
    for role, labels in (("source", "truth"), ("source_val", "truth"), ("target", "views"), ("val", "both")):
        found[role], val_views = scenes_of(getattr(data, role), num, base.segmenter, parts, engine, labels)
    assert val_views is not None
    half, quarter, eighth = cast(tuple[int, int, int], base.segmenter.encoder.pyramid_channels)
    channels = [parts.latent_channels, eighth, 4 * quarter, 16 * half]
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.save({role: tuple(each) for role, each in found.items()} | {"channels": channels, "val_views": val_views}, file)
    return Material(base.segmenter, parts, channels, **found, val_views=val_views)
