"""The generator of codes, p(code | label map, domain): its condition, its network, how it is trained and sampled."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generation.lines import tell
from generation.stack import STRIDE, Code
from iccld.diffusion import Diffusion
from iccld.methods.common.average import Ema
from iccld.methods.common.schedule import warmup_poly
from iccld.models.unet import UNet
from iccld.training.engine import Engine

SOURCE, TARGET = 0, 1
ALL_TIMES = tuple(range(49, 1000, 50))
"""Timesteps that are trained: every one that DDIM takes in 1, 2, 4, 5, 10 or 20 steps."""


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
        output: Tensor = self.network(noised, timestep, told).float()
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
        loss.backward()  # type: ignore[no-untyped-call]
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
    network = Generator(kept, told_channels, given.widths).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
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
            output: Tensor = network(noised, timestep, told)
        return (output.float() - wanted).square().mean()

    average = trained(network, diffused, given, f"{given.scope}, {given.predict}")
    if given.scope == "all":
        return model._replace(network=average)
    levels = Generator(kept, told_channels, given.widths, code.width - kept).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def regressed(iteration: int) -> Tensor:
        clean, told = batches.draw()
        with engine.autocast():
            output: Tensor = levels(clean[:, :kept], torch.zeros(len(clean), dtype=torch.long), told)
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
    for part in torch.split(label, batch):
        told = condition_of(part, torch.full((len(part),), domain), num_classes)
        noise = torch.randn((len(part), kept, *told.shape[2:]), generator=generator)
        with engine.autocast():
            drawn = model.diffusion.sample(partial(model.clean, told=told), noise, steps)
            if model.levels is not None:
                rest = model.levels(drawn, torch.zeros(len(part), dtype=torch.long), told).float()
                drawn = torch.cat([drawn, rest], 1)
        found.append(drawn.to(torch.bfloat16))
    return torch.cat(found)
