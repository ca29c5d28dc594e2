"""Generate labelled latents instead of refining them: is what a small diffusion model draws good enough to teach a decoder?

    python benchmarks/generate.py RUN --keep FOLDER [--predict v] [--scope latent] [--iterations 400]

RUN: a run with held-out source pictures (`source.holdout`) and labelled `val` pictures; nothing is written into it.  From its step 1,
whose encoder stays as it is, p(latent, levels | label map, domain) is learnt on source pictures with their labels and on target pictures
with labels of several views.  Then, on pictures that it never saw, the two rules that stop the experiment before its expensive part:

1. the proxy A-distance of generated and real target latents is below 0.5;
2. a decoder trained on generated source latents comes within 2 points of mIoU of one trained on real ones.

Where both hold (or with `--anyway`), a decoder learns from generated target latents of true source labels beside everything that the
control learns from, the row `decoder` of `iccld ablate --grid step2`.  Prints one JSON object a line.

How the levels are generated: the level of stride 8 as it is, those of strides 4 and 2 folded to stride 8 (space to depth), each reduced to
the principal components that hold `--variance` of its variance; the latent and all of it are one stack, of unit variance a channel.
`--scope all` diffuses the stack; `--scope latent` diffuses the latent alone, and a second network of the same kind, by least squares,
answers with the levels that go with it.  The condition: shares of the classes in each quarter of a cell, and the domain.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iccld.assembly.objects import class_weights, make_parts, open_data, optimisations, pair_dataset
from iccld.batch import DomainBatch
from iccld.config import read_config
from iccld.data import FileDataset
from iccld.data.check import class_statistics
from iccld.diffusion import Diffusion
from iccld.evaluation import Confusion, evaluate, teacher_logits
from iccld.evaluation.alignment import mmd2, proxy_a_distance
from iccld.evaluation.evaluate import spread
from iccld.evaluation.views import show_at
from iccld.experiments.formulations import DECODER
from iccld.geometry import padded
from iccld.labels import IGNORE, LabelSpace
from iccld.losses import cross_entropy
from iccld.methods.common.average import Ema
from iccld.methods.common.iccld_settings import Settings
from iccld.methods.common.iccld_step2 import Step2
from iccld.methods.common.parts import Parts, normalise
from iccld.methods.common.schedule import warmup_poly
from iccld.methods.common.view_labels import STORE
from iccld.models import Features, Segmenter
from iccld.models.unet import UNet
from iccld.runs.base import open_base
from iccld.runs.data import read_ranges
from iccld.training.engine import Engine

SOURCE, TARGET = 0, 1
STEPS = (1, 2, 4)
"""Of the sampler."""
STRIDE = 8
"""Picture pixels a cell of the stack covers, per side."""
TILE = 12
"""Side of the tiles in which latents are compared beside whole pictures, cells."""
A_DISTANCE, POINTS = 0.5, 2.0
"""The two stop rules."""
ALL_TIMES = tuple(range(49, 1000, 50))
"""Timesteps that are trained: every one that DDIM takes in 1, 2, 4, 5, 10 or 20 steps."""


# --- what the decoder reads, as one stack -------------------------------------------------------------------------------------


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
    latent, level8, level4, level2 = stack.split(list(channels), 1)
    return Features(latent, (F.pixel_shuffle(level2, 4), F.pixel_shuffle(level4, 2), level8))


class Code:
    """The stack with its levels reduced to principal components, every channel of zero mean and unit variance."""

    def __init__(self, stack: Tensor, channels: Sequence[int], variance: float) -> None:
        """stack: (N, D, h, w), of both domains alike.  variance: the share of a folded level's variance that is kept."""
        cells = stack.float().permute(1, 0, 2, 3).flatten(1)  # (D, N h w)
        self.channels = list(channels)
        self.bases: list[Tensor] = []
        self.kept: list[float] = []
        for number, part in enumerate(cells.split(self.channels)):
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
        parts = (code * self.scale[:, None, None]).split(self.sizes, 1)
        restored = [torch.einsum("bchw,dc->bdhw", part, basis) for part, basis in zip(parts, self.bases, strict=True)]
        return torch.cat(restored, 1) + self.mean[:, None, None]

    def _rotated(self, stack: Tensor) -> Tensor:
        parts = (stack - self.mean[:, None, None]).split(self.channels, 1)
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
    half, quarter, eighth = base.segmenter.encoder.pyramid_channels
    channels = [parts.latent_channels, eighth, 4 * quarter, 16 * half]
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.save({role: tuple(each) for role, each in found.items()} | {"channels": channels, "val_views": val_views}, file)
    return Material(base.segmenter, parts, channels, **found, val_views=val_views)


# --- the generator ----------------------------------------------------------------------------------------------------------


def condition_of(label: Tensor, domain: Tensor, num_classes: int) -> Tensor:
    """Shares of the classes in each quarter of a cell, and the domain: (B, H, W) uint8, (B,) -> (B, 4 K + 1, H/8, W/8)."""
    classes = torch.arange(num_classes, dtype=torch.uint8)[:, None, None]
    shares = F.avg_pool2d((label[:, None] == classes).float(), STRIDE // 2)  # (B, K, H/4, W/4)
    folded = F.pixel_unshuffle(shares, 2)
    return torch.cat([folded, domain.view(-1, 1, 1, 1).float().expand(-1, 1, *folded.shape[2:])], 1)


class Generator(nn.Module):
    """The project's U-Net on a code and its condition: (B, C, h, w), (B,) int64, (B, E, h, w) -> (B, C_out, h, w)."""

    def __init__(self, channels: int, told: int, widths: Sequence[int], answers: int | None = None) -> None:
        super().__init__()
        self.multiple = 2 ** (len(widths) - 1)
        self.unet = UNet(channels + told, answers or channels, widths, 1, 32, 1, 8)
        nn.init.zeros_(self.unet.conv_out.weight)
        assert self.unet.conv_out.bias is not None
        nn.init.zeros_(self.unet.conv_out.bias)

    def forward(self, code: Tensor, timestep: Tensor, told: Tensor) -> Tensor:
        height, width = code.shape[2:]
        x = torch.cat([code, told], 1)
        x = F.pad(x, (0, -width % self.multiple, 0, -height % self.multiple), mode="replicate")
        answer: Tensor = self.unet(x.contiguous(memory_format=torch.channels_last), timestep)
        return answer[..., :height, :width]


class Model(NamedTuple):
    """A trained generator.  scope: all, or latent, whose `levels` answers with the rest of the code."""

    network: nn.Module
    levels: nn.Module | None
    predict: str
    diffusion: Diffusion

    def clean(self, noised: Tensor, timestep: Tensor, told: Tensor) -> Tensor:
        """The clean code that the network implies.  v = sqrt(a) noise - sqrt(1 - a) code (Salimans and Ho 2022, appendix D)."""
        output = self.network(noised, timestep, told).float()
        if self.predict == "sample":
            return output
        signal = self.diffusion.signal(timestep)
        return signal.sqrt() * noised - (1 - signal).sqrt() * output


def windows(codes: Tensor, label: Tensor, rows: Tensor, side: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A random window of each row: (N, C, h, w), (N, H, W) -> (B, C, s, s) float32, (B, 8 s, 8 s)."""
    height, width = min(side, codes.shape[2]), min(side, codes.shape[3])
    found, labels = [], []
    for row in rows.tolist():
        top, left = (
            int(torch.randint(whole - part + 1, (1,), generator=generator))
            for whole, part in zip(codes.shape[2:], (height, width), strict=True)
        )
        found.append(codes[row, :, top : top + height, left : left + width].float())
        labels.append(label[row, STRIDE * top : STRIDE * (top + height), STRIDE * left : STRIDE * (left + width)])
    return torch.stack(found), torch.stack(labels)


class Batches:
    """Windows of both domains, half of each: -> code, condition."""

    def __init__(self, codes: tuple[Tensor, Tensor], labels: tuple[Tensor, Tensor], given: argparse.Namespace, num_classes: int) -> None:
        self.codes, self.labels, self.given, self.num_classes = codes, labels, given, num_classes
        self.generator = torch.Generator().manual_seed(given.seed)

    def draw(self) -> tuple[Tensor, Tensor]:
        parts = []
        for codes, label in zip(self.codes, self.labels, strict=True):
            rows = torch.randint(len(codes), (self.given.batch // 2,), generator=self.generator)
            parts.append(windows(codes, label, rows, self.given.window, self.generator))
        domain = torch.tensor([SOURCE, TARGET]).repeat_interleave(self.given.batch // 2)
        return torch.cat([part[0] for part in parts]), condition_of(torch.cat([part[1] for part in parts]), domain, self.num_classes)


def fitted(network: nn.Module, loss_of: Callable[[int], Tensor], iterations: int, learning_rate: float) -> tuple[nn.Module, list[float]]:
    """The averaged network after steps of AdamW on `loss_of(iteration)`, and the losses."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=learning_rate, weight_decay=0.01)
    schedule = warmup_poly(optimizer, iterations, iterations // 20)
    average, losses = Ema(network, 0.99), []
    for iteration in range(iterations):
        loss = loss_of(iteration)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        average.update(network, iteration)
        losses.append(float(loss.detach()))
    return average.module, losses


def trained(network: nn.Module, loss_of: Callable[[int], Tensor], given: argparse.Namespace, title: str) -> nn.Module:
    """`fitted` for the generator's networks, and told."""
    start = time.process_time()
    average, losses = fitted(network, loss_of, given.iterations, given.learning_rate)
    tenth = max(given.iterations // 10, 1)
    told = {"error_first_tenth": sum(losses[:tenth]) / tenth, "error_last_tenth": sum(losses[-tenth:]) / tenth}
    tell("trained", network=title, **told, parameters=sum(p.numel() for p in network.parameters()), seconds=time.process_time() - start)
    return average


def generator_of(
    codes: tuple[Tensor, Tensor], labels: tuple[Tensor, Tensor], code: Code, given: argparse.Namespace, num_classes: int
) -> Model:
    """Learn p(code | label, domain) in both domains."""
    torch.manual_seed(given.seed)
    diffusion = Diffusion(prediction="sample")
    batches = Batches(codes, labels, given, num_classes)
    engine = Engine(accelerator="cpu", precision="auto", num_threads=1)
    told_channels = 4 * num_classes + 1
    kept = code.width if given.scope == "all" else code.latent
    network = Generator(kept, told_channels, given.widths).to(memory_format=torch.channels_last)
    model = Model(network, None, given.predict, diffusion)
    times = torch.tensor(ALL_TIMES)
    few = torch.tensor([249, 499, 749, 999])

    def diffused(iteration: int) -> Tensor:
        clean, told = batches.draw()
        clean = clean[:, :kept]
        drawn = torch.rand(len(clean), generator=batches.generator) < 0.5
        timestep = torch.where(drawn, pick(few, len(clean), batches.generator), pick(times, len(clean), batches.generator))
        noise = torch.randn(clean.shape, generator=batches.generator)
        # At the last step sampling has nothing but noise, so training has nothing else (Lin et al. 2024).
        noised = torch.where((timestep == 999)[:, None, None, None], noise, diffusion.add_noise(clean, noise, timestep))
        signal = diffusion.signal(timestep)
        wanted = clean if given.predict == "sample" else signal.sqrt() * noise - (1 - signal).sqrt() * clean
        with engine.autocast():
            output = network(noised, timestep, told)
        return (output.float() - wanted).square().mean()

    average = trained(network, diffused, given, f"{given.scope}, {given.predict}")
    if given.scope == "all":
        return model._replace(network=average)
    levels = Generator(kept, told_channels, given.widths, code.width - kept).to(memory_format=torch.channels_last)

    def regressed(iteration: int) -> Tensor:
        clean, told = batches.draw()
        with engine.autocast():
            output = levels(clean[:, :kept], torch.zeros(len(clean), dtype=torch.long), told)
        return (output.float() - clean[:, kept:]).square().mean()

    return model._replace(network=average, levels=trained(levels, regressed, given, "levels from the latent"))


def pick(values: Tensor, count: int, generator: torch.Generator) -> Tensor:
    return values[torch.randint(len(values), (count,), generator=generator)]


@torch.no_grad()
def generated(model: Model, label: Tensor, domain: int, steps: int, code: Code, num_classes: int, seed: int, batch: int = 10) -> Tensor:
    """Codes of label maps: (N, H, W) uint8 -> (N, C, h, w) bfloat16."""
    generator = torch.Generator().manual_seed(seed)
    engine = Engine(accelerator="cpu", precision="auto", num_threads=1)
    kept = code.width if model.levels is None else code.latent
    found = []
    for part in label.split(batch):
        told = condition_of(part, torch.full((len(part),), domain), num_classes)
        noise = torch.randn((len(part), kept, *told.shape[2:]), generator=generator)
        with engine.autocast():
            drawn = model.diffusion.sample(lambda noised, timestep, told=told: model.clean(noised, timestep, told), noise, steps)
            if model.levels is not None:
                rest = model.levels(drawn, torch.zeros(len(part), dtype=torch.long), told).float()
                drawn = torch.cat([drawn, rest], 1)
        found.append(drawn.to(torch.bfloat16))
    return torch.cat(found)


# --- rule 1 -----------------------------------------------------------------------------------------------------------------


def tiles(codes: Tensor, side: int = TILE) -> Tensor:
    """Whole tiles of codes as rows, those of a picture one after the other: (N, C, h, w) -> (M, C, cells)."""
    side = min(side, *codes.shape[2:])
    cut = codes.float().unfold(2, side, side).unfold(3, side, side)  # (N, C, a, b, s, s)
    return cut.permute(0, 2, 3, 1, 4, 5).flatten(4).flatten(0, 2)


def distances(first: Tensor, second: Tensor, code: Code) -> dict[str, float]:
    """How well codes are told apart, by the same number of rows of each: `pictures` is what summary.json calls a_distance."""
    rows = [codes[:, : code.latent].float().mean((2, 3)) for codes in (first, second)]
    told = {"a_distance_pictures": proxy_a_distance(*rows), "mmd_pictures": mmd2(*rows)}
    cut = [tiles(codes) for codes in (first, second)]
    told["a_distance_tiles"] = proxy_a_distance(*(each[:, : code.latent].mean(2) for each in cut))
    told["a_distance_tiles_all"] = proxy_a_distance(*(each.mean(2) for each in cut))
    both = [torch.cat([each.mean(2), each.std(2)], 1) for each in cut]
    told["a_distance_tiles_latent_spread"] = proxy_a_distance(
        *(torch.cat([each[:, : code.latent].mean(2), each[:, : code.latent].std(2)], 1) for each in cut)
    )
    told["a_distance_tiles_all_spread"] = proxy_a_distance(*both)
    return told


# --- rule 2 -----------------------------------------------------------------------------------------------------------------


@torch.no_grad()
def miou(decoder: nn.Module, scenes: Scenes, channels: Sequence[int], space: LabelSpace) -> float:
    """mIoU, %, of a decoder on real stacks, at the labels' size."""
    confusion = Confusion(space.num_classes)
    for stack, label in zip(scenes.stack, scenes.label, strict=True):
        features = unstacked(stack[None].float(), channels)
        logits = F.interpolate(
            decoder(features.latent, features.pyramid).float(), size=tuple(label.shape), mode="bilinear", align_corners=False
        )
        confusion.update(label.numpy(), logits.argmax(1)[0].to(torch.uint8).numpy())
    return confusion.scores(space).miou


def decoder_of(
    stack_at: Callable[[Tensor], Tensor], num: int, label: Tensor, material: Material, given: argparse.Namespace, seed: int
) -> nn.Module:
    """A decoder from scratch.  stack_at: rows of a (possibly generated) set -> (B, D, h, w)."""
    torch.manual_seed(seed)
    decoder = material.parts.make_segmenter().decoder.train()
    generator = torch.Generator().manual_seed(seed)
    engine = Engine(accelerator="cpu", precision="auto", num_threads=1)

    def loss_of(iteration: int) -> Tensor:
        rows = torch.randint(num, (given.decoder_batch,), generator=generator)
        stack, seen = windows(stack_at(rows), label[rows], torch.arange(len(rows)), given.window, generator)
        with engine.autocast():
            features = unstacked(stack, material.channels)
            return cross_entropy(decoder(features.latent, features.pyramid), seen.long(), class_weight=material.parts.class_weight)

    return fitted(decoder, loss_of, given.decoder_iterations, given.decoder_learning_rate)[0]


def learnt(
    name: str, stack_at: Callable[[Tensor], Tensor], label: Tensor, material: Material, given: argparse.Namespace
) -> dict[str, list[float]]:
    """mIoU on held-out source and on val pictures of decoders from scratch, one a seed.  Those of real stacks are kept."""
    file = None
    if given.keep is not None and name.startswith("real"):
        plan = (given.num, given.seed, given.decoder_iterations, given.decoder_batch, given.decoder_learning_rate, given.window)
        parts = "-".join(map(str, (given.run.resolve().parent.name, given.run.name, name.replace(" ", "_"), *plan, given.decoder_seeds)))
        file = given.keep / f"{parts}.json"
        if file.is_file():
            kept: dict[str, list[float]] = json.loads(file.read_text())
            tell("decoder", learnt_from=name, **kept, kept=True)
            return kept
    scores: dict[str, list[float]] = {"source_val": [], "val": []}
    start = time.process_time()
    for seed in range(given.decoder_seeds):
        decoder = decoder_of(stack_at, len(label), label, material, given, given.seed + seed)
        for role in scores:
            scores[role].append(miou(decoder, getattr(material, role), material.channels, material.parts.label_space))
    tell("decoder", learnt_from=name, **scores, seconds=time.process_time() - start)
    if file is not None:
        file.write_text(json.dumps(scores))
    return scores


# --- the expensive part -----------------------------------------------------------------------------------------------------


class WithGenerated(Step2):
    """The control, whose decoder reads generated target latents of true source labels as well."""

    drawn: Callable[[], tuple[Features, Tensor]]

    def setup(self, engine: Any) -> None:
        super().setup(engine)
        plain = self.update

        def update(optimizer: str, loss: Tensor, *, retain_graph: bool = False) -> None:
            features, label = self.drawn()
            extra = cross_entropy(self.model.decoder(features.latent, features.pyramid), label, class_weight=self.parts.class_weight)
            plain(optimizer, loss + extra, retain_graph=retain_graph)

        self.update = update  # type: ignore[assignment]


def against_control(
    run: Path, given: argparse.Namespace, material: Material, drawn: Callable[[], tuple[Features, Tensor]]
) -> dict[str, float]:
    """mIoU on val of step 1, of the control, and of the control with generated latents beside the rest; the same batches for both."""
    config = read_config(run / "config.yaml")
    data = open_data(config, read_ranges(run), tells=False)
    told = {}
    if given.keep is not None:
        os.environ.setdefault(STORE, str(given.keep / "view_labels"))  # labels of the views, made for the first and read by the second
    for name, kind in (("decoder", Step2), ("generated", WithGenerated)):
        segmenter = open_base(run, given.stage).segmenter.train()
        plan = {**optimisations(config)}["step1"]
        plan = type(plan)(**{**vars(plan), "iterations": given.control_iterations})
        step2 = kind(material.parts, Settings(**{**DECODER, "label_scales": tuple(DECODER["label_scales"])}), plan, segmenter)
        if isinstance(step2, WithGenerated):
            step2.drawn = drawn
        engine = Engine(accelerator="cpu", precision="auto", num_threads=1, max_norm=1.0)
        step2.setup(engine)
        pairs = pair_dataset(config, data)
        for iteration in range(given.control_iterations):
            with engine.autocast():
                step2.step(DomainBatch(*pairs[iteration]), iteration, engine.draw(engine.generator(config.seed, "step2", iteration)))
        assert data.val is not None
        told[name] = evaluate(step2.predictor("ema"), data.val, data.label_space, title=name).miou
    return told


# --- the study --------------------------------------------------------------------------------------------------------------


def tell(what: str, **figures: Any) -> None:
    """One JSON line, numbers rounded."""

    def short(value: Any) -> Any:
        if isinstance(value, float):
            return round(value, 4)
        return [short(each) for each in value] if isinstance(value, list) else value

    print(json.dumps({"what": what} | {key: short(value) for key, value in figures.items()}), flush=True)


def study(material: Material, given: argparse.Namespace) -> tuple[bool, Model, Code]:
    """Train the generator, measure both rules: -> whether both hold, the generator, its code."""
    space = material.parts.label_space
    num_classes = space.num_classes
    some = [
        scenes.stack[torch.linspace(0, len(scenes.stack) - 1, min(40, len(scenes.stack))).long()]
        for scenes in (material.source, material.target)
    ]
    code = Code(torch.cat(some), material.channels, given.variance)
    codes = {
        role: torch.cat([code.encode(part).to(torch.bfloat16) for part in getattr(material, role).stack.split(20)])
        for role in ("source", "source_val", "target", "val")
    }
    decoder = material.segmenter.decoder
    through = Scenes(torch.cat([code.decode(part.float()) for part in codes["val"].split(20)]), material.val.label)
    tell(
        "code",
        channels=material.channels,
        kept=code.sizes,
        variance=code.kept,
        source_val_miou_step1=miou(decoder, material.source_val, material.channels, space),
        val_miou_step1=miou(decoder, material.val, material.channels, space),
        val_miou_step1_through_code=miou(decoder, through, material.channels, space),
    )
    model = generator_of((codes["source"], codes["target"]), (material.source.label, material.target.label), code, given, num_classes)

    # Rule 1: held-out pictures, generated from their own label maps.
    count = min(len(codes["val"]), len(codes["target"]))
    some_target = codes["target"][torch.linspace(0, len(codes["target"]) - 1, count).long()]
    tell("a_distance", of="real target, real val (no generation: the floor)", **distances(some_target, codes["val"][:count], code))
    few = min(len(codes["val"]), len(codes["source_val"]))
    tell(
        "a_distance",
        of="real held-out source, real val (no generation: what adaptation left)",
        **distances(codes["source_val"][:few], codes["val"][:few], code),
    )
    apart = {}
    for steps in given.steps:
        start = time.process_time()
        drawn = generated(model, material.val.label, TARGET, steps, code, num_classes, given.seed)
        seconds = (time.process_time() - start) / len(drawn)
        found = distances(drawn, codes["val"], code)
        apart[steps] = found["a_distance_pictures"]
        decoded = Scenes(torch.cat([code.decode(part.float()) for part in drawn.split(20)]), material.val.label)
        agrees = miou(decoder, decoded, material.channels, space)
        tell(
            "a_distance",
            of="generated target of val's true labels, real val",
            steps=steps,
            **found,
            step1_reads_miou=agrees,
            seconds_a_picture=seconds,
        )
        if steps == max(given.steps):
            drawn = generated(model, material.val_views, TARGET, steps, code, num_classes, given.seed)
            tell(
                "a_distance", of="generated target of val's labels of views, real val", steps=steps, **distances(drawn, codes["val"], code)
            )
        drawn = generated(model, material.source_val.label, SOURCE, steps, code, num_classes, given.seed)
        tell("a_distance", of="generated source, real held-out source", steps=steps, **distances(drawn, codes["source_val"], code))

    # Rule 2: decoders from scratch on real and on generated source stacks of the same label maps.
    source = material.source
    real = learnt("real source", lambda rows: source.stack[rows], source.label, material, given)
    if not given.only_rules:
        coded = codes["source"]
        learnt("real source through the code", lambda rows: code.decode(coded[rows].float()), source.label, material, given)
    lost = {}
    for steps in given.steps:
        drawn = generated(model, source.label, SOURCE, steps, code, num_classes, given.seed + 1)
        got = learnt(
            f"generated source, {steps} steps", lambda rows, drawn=drawn: code.decode(drawn[rows].float()), source.label, material, given
        )
        lost[steps] = float(np.mean(real["source_val"]) - np.mean(got["source_val"]))
    if not given.only_rules:
        _peek(material, model, code, given)
    holds = {steps: apart[steps] < A_DISTANCE and lost[steps] <= POINTS for steps in given.steps}
    tell("rules", a_distance=apart, points_lost=lost, both_hold=holds)
    return any(holds.values()), model, code


def _peek(material: Material, model: Model, code: Code, given: argparse.Namespace) -> None:
    """What generating is for, in small: a decoder that knows generated target latents of true source labels alone, and one of real ones."""
    learnt("real target, labels of views", lambda rows: material.target.stack[rows], material.target.label, material, given)
    steps, label = max(given.steps), material.source.label
    drawn = generated(model, label, TARGET, steps, code, material.parts.label_space.num_classes, given.seed + 2)
    name = f"generated target of source labels, {steps} steps"
    learnt(name, lambda rows: code.decode(drawn[rows].float()), label, material, given)


def drawer(material: Material, model: Model, code: Code, given: argparse.Namespace) -> Callable[[], tuple[Features, Tensor]]:
    """Windows of generated target latents of true source labels, the rarer a map's classes the likelier it is drawn."""
    source, num_classes = material.source, material.parts.label_space.num_classes
    counts = torch.stack([torch.bincount(label.flatten().long(), minlength=256)[:num_classes] for label in source.label]).float()
    share = counts / counts.sum(1, keepdim=True).clamp(min=1)
    weight = (share / share.mean(0).clamp(min=1e-6)).mean(1)
    generator = torch.Generator().manual_seed(given.seed)
    drawn = generated(model, source.label, TARGET, max(given.steps), code, num_classes, given.seed + 2)

    def batch() -> tuple[Features, Tensor]:
        rows = torch.multinomial(weight, 2, replacement=True, generator=generator)
        stack, label = windows(code.decode(drawn[rows].float()), source.label[rows], torch.arange(2), given.window, generator)
        return unstacked(stack, material.channels), label.long()

    return batch


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--stage", default="step1", help="whose averaged encoder and decoder are taken")
    parser.add_argument("--keep", type=Path, default=None, help="folder for features and labels, which are then made once")
    parser.add_argument("--num", type=int, default=300, help="pictures of each domain at most, evenly spread")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scope", choices=("all", "latent"), default="all")
    parser.add_argument("--predict", choices=("sample", "v"), default="sample")
    parser.add_argument("--variance", type=float, default=0.95)
    parser.add_argument("--widths", type=int, nargs="+", default=[64, 96, 128])
    parser.add_argument("--iterations", type=int, default=400)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--window", type=int, default=24, help="side of a training window, cells of 8 pixels")
    parser.add_argument("--learning_rate", type=float, default=1e-3)
    parser.add_argument("--steps", type=int, nargs="+", default=list(STEPS))
    parser.add_argument("--decoder_iterations", type=int, default=200)
    parser.add_argument("--decoder_batch", type=int, default=4)
    parser.add_argument("--decoder_learning_rate", type=float, default=2e-3)
    parser.add_argument("--decoder_seeds", type=int, default=2)
    parser.add_argument("--only_rules", action="store_true", help="leave out the decoders that no rule asks for")
    parser.add_argument("--anyway", action="store_true", help="train beside the control whatever the rules say")
    parser.add_argument("--control_iterations", type=int, default=400)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    given = parsed(arguments)
    torch.set_num_threads(1)
    start = time.process_time()
    material = material_of(given.run, given.stage, given.num, given.keep)
    tell(
        "material",
        run=given.run.name,
        pictures=[len(getattr(material, role).stack) for role in ("source", "source_val", "target", "val")],
        seconds=time.process_time() - start,
    )
    holds, model, code = study(material, given)
    if holds or given.anyway:
        tell("against the control", **against_control(given.run, given, material, drawer(material, model, code, given)))
    tell("done", seconds=time.process_time() - start)


if __name__ == "__main__":
    main()
