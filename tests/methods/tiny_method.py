"""Factories of tiny methods.  As a script: trains both steps in two gloo processes, then alone at twice the batch, and saves both."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from iccld.batch import DomainBatch
from iccld.config.optimisation import Optimisation
from iccld.config.views import Views
from iccld.labels import LabelClass, LabelSpace
from iccld.methods import iccld
from iccld.methods.common.parts import Parts
from iccld.methods.common.protocol import Method
from iccld.methods.common.supervised import Supervised
from iccld.models import CompactEncoder, Denoiser, DomainDiscriminator, InterCoderDecoder, Segmenter
from iccld.training.engine import Engine

SPACE = LabelSpace("tiny", tuple(LabelClass(f"class {i}", (60 * i, 10, 20)) for i in range(4)))
LATENT = 4
STILL = Views(scale_min=1, scale_max=1, target_scale_max=1, stretch=0, jitter=0, white_balance=0, blur=0, noise=0)
"""Views without augmentation but the flip."""


def make_segmenter(widths: tuple[int, ...] = (8, 8, 16, 16, 16)) -> Segmenter:
    encoder = CompactEncoder(widths, LATENT)
    return Segmenter(encoder, InterCoderDecoder(LATENT, encoder.pyramid_channels, SPACE.num_classes, width=16))


def make_wide_segmenter() -> Segmenter:
    """With two channels and more to a norm: one of a single channel takes back the bias before it, which then has no gradient."""
    return make_segmenter((16, 16, 32, 32, 32))


def parts(seed: int = 0, **changes: Any) -> Parts:
    """Factories whose networks are a function of the seed and of the order of the calls."""
    torch.manual_seed(seed)
    made = Parts(
        make_segmenter=make_segmenter,
        make_denoiser=lambda residual: Denoiser(LATENT, (8, 16), 1, 8, residual),
        make_discriminator=lambda: DomainDiscriminator(LATENT, (8, 16), 1, 8),
        label_space=SPACE,
        views=Views(),
        crop=(32, 32),
        working_size=(32, 48),
        latent_channels=LATENT,
    )
    return replace(made, **changes)


def optimisation(**changes: Any) -> Optimisation:
    """A stage of many steps at a constant-looking learning rate; no weight decay, so that only gradients move weights."""
    return replace(Optimisation(iterations=10_000, learning_rate=3e-3, warmup=0.0, weight_decay=0.0, ema_decay=0.9), **changes)


def batch(rows: int = 2, size: tuple[int, int] = (36, 44), seed: int = 0) -> DomainBatch:
    """Pictures whose blocks of 8 x 8 have their class's grey, noisier and darker in the target; depth of 2 to 62 m."""
    generator = torch.Generator().manual_seed(seed)

    def scene(gain: float) -> tuple[Tensor, Tensor]:
        coarse = torch.randint(0, 4, (rows, -(-size[0] // 8), -(-size[1] // 8)), generator=generator)
        label = coarse.repeat_interleave(8, 1).repeat_interleave(8, 2)[:, : size[0], : size[1]]
        grey = gain * (30 + 60 * label[:, None].expand(-1, 3, -1, -1)) + 10 * torch.randn(rows, 3, *size, generator=generator)
        return grey.clamp(0, 255).to(torch.uint8), label.to(torch.uint8)

    source_image, source_label = scene(1.0)
    target_image, _ = scene(0.8)
    index = torch.arange(rows)
    depth = 2 + 60 * torch.rand(2, rows, *size, generator=generator)
    return DomainBatch(source_image, source_label, target_image, index, index, source_depth=depth[0], target_depth=depth[1])


def ready(method: Method, engine: Engine | None = None) -> Method:
    """The method with an engine for one process."""
    method.setup(engine or Engine(accelerator="cpu"))
    return method


def supervised(seed: int = 0, *, stage: Optimisation | None = None, **changes: Any) -> Supervised:
    method = Supervised(parts(seed, **changes), stage or optimisation())
    ready(method)
    return method


def step1(seed: int = 0, *, settings: iccld.Settings | None = None, engine: Engine | None = None, **changes: Any) -> iccld.Step1:
    made = parts(seed, **changes)
    method = iccld.Step1(made, settings or iccld.Settings(threshold=0.3), optimisation(), made.make_segmenter())
    ready(method, engine)
    return method


def step2(seed: int = 0, *, settings: iccld.Settings | None = None, engine: Engine | None = None, **changes: Any) -> iccld.Step2:
    made = parts(seed, **changes)
    method = iccld.Step2(made, settings or iccld.Settings(threshold=0.3), optimisation(), made.make_segmenter())
    ready(method, engine)
    return method


def step(method: Method, iteration: int, data: DomainBatch | None = None, seed: int | None = None) -> dict[str, Tensor]:
    """One step with the generator of the iteration."""
    generator = torch.Generator().manual_seed(100 + iteration if seed is None else seed)
    return method.step(batch() if data is None else data, iteration, method.engine.draw(generator))


def asked(method: Method) -> dict[str, list[float]]:
    """The losses that each optimiser is given from now on; the updates are made all the same."""
    losses: dict[str, list[float]] = {}
    update = method.update

    def noted(optimizer: str, loss: Tensor, **options: Any) -> Any:
        losses.setdefault(optimizer, []).append(float(loss.detach()))
        return update(optimizer, loss, **options)

    method.update = noted  # type: ignore[assignment, method-assign]
    return losses


def values(network: nn.Module) -> Tensor:
    """All parameters and buffers as one vector."""
    return torch.cat([t.detach().reshape(-1).clone() for t in (*network.parameters(), *network.buffers())])


def train(engine: Engine, kind: str) -> dict[str, Any]:
    """Three steps of a global batch of four rows, of which each rank takes every world_size-th."""
    method = {"step1": step1, "step2": step2}[kind](engine=engine)
    if isinstance(method, iccld.Step2):
        method.start_round([rows_of(engine, 9)])
    for iteration in range(3):
        step(method, iteration, rows_of(engine, 20 + iteration))  # none of whose pseudo-labels lies within rounding of another class
    networks = torch.cat([values(network) for network in (*method.networks().values(), *method.ema_networks().values())])
    return {"world_size": engine.world_size, "values": networks}


def rows_of(engine: Engine, seed: int) -> DomainBatch:
    """This rank's rows r, r + n, ... of a global batch."""
    return DomainBatch(*(None if t is None else t[engine.rank :: engine.world_size] for t in batch(4, seed=seed)))  # type: ignore[arg-type]


def train_both(engine: Engine, path: str) -> None:
    """Rank 0 writes what it ends with: an answer larger than a pipe's buffer does not fit through a spawned launch."""
    answer = {kind: train(engine, kind) for kind in ("step1", "step2")}
    if engine.rank == 0:
        torch.save(answer, path)


if __name__ == "__main__":
    torch.set_num_threads(1)
    folder = sys.argv[1]
    # Forked before the first backward pass, after which autograd's threads forbid it; spawned processes import torch again.
    Engine(accelerator="cpu", devices=2, start="fork").launch(train_both, f"{folder}/both.pt")
    train_both(Engine(accelerator="cpu"), f"{folder}/alone.pt")
