"""Run by test_engine: trains alone at twice the batch, then in two gloo processes; prints both results as JSON."""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from iccld.batch import DomainBatch
from iccld.errors import IccldError
from iccld.methods.common.average import Ema
from iccld.methods.common.protocol import Method, Stage
from iccld.training.engine import Engine
from iccld.training.options import LoopOptions
from iccld.training.stages import run_stages
from iccld.transforms import Draw

ROWS = 4  # of the global batch


class Toy(Method):
    """Mean losses, noise drawn for the global batch, an adversary; some parameters without a gradient in some steps."""

    def __init__(self) -> None:
        self.net, self.critic = nn.Conv2d(3, 2, 3), nn.Linear(2, 1)
        self.unused = nn.Linear(1, 1)
        self.ema = Ema(self.net, 0.9)
        self._optimizers: dict[str, torch.optim.Optimizer] = {
            "net": torch.optim.AdamW([*self.net.parameters(), *self.unused.parameters()], lr=0.01),
            "critic": torch.optim.SGD(self.critic.parameters(), lr=0.1),
        }

    def networks(self) -> dict[str, nn.Module]:
        return {"net": self.net, "critic": self.critic, "unused": self.unused}

    def ema_networks(self) -> dict[str, nn.Module]:
        return {"net": self.ema.module}

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return self._optimizers

    def step(self, batch: DomainBatch, iteration: int, draw: Draw) -> dict[str, Tensor]:
        noise = draw.normal(len(batch.source_image), (3, 8, 8))
        features = self.net(batch.source_image + noise).mean((2, 3))
        loss = self.critic(features).square().mean()
        if iteration == 1 and self.engine.rank == 0:
            loss = loss * 1.0 + self.unused(torch.ones(1, 1)).sum() * 0.0  # reached on one rank only
        if iteration == 2 and self.engine.rank == self.engine.world_size - 1:
            loss = loss * float("nan")  # not finite on one rank: no step on any
        self.update("net", loss)
        self.update("critic", (self.critic(features.detach()) - 1).square().mean())
        self.ema.update(self.net, iteration)
        return {"loss": loss.detach()}

    def predictor(self, weights: str = "ema") -> Any:
        raise NotImplementedError


def train(engine: Engine, run: str) -> dict[str, Any]:
    def loader(stage: str, start: int, end: int) -> Iterable[DomainBatch]:
        for iteration in range(start, end):
            images = torch.rand(ROWS, 3, 8, 8, generator=torch.Generator().manual_seed(iteration))
            rows = images[engine.rank :: engine.world_size]
            yield DomainBatch(rows, rows[:, 0], rows, torch.arange(len(rows)), torch.arange(len(rows)))

    stages = [Stage("only", 5, lambda previous: Toy())]
    result = run_stages(stages, loader, LoopOptions(seed=1, checkpoint_every=2, progress=False), engine=engine, run=Path(run))
    networks = {**result.method.networks(), "ema": result.method.ema_networks()["net"]}
    values = torch.cat([p.detach().reshape(-1) for network in networks.values() for p in network.parameters()])
    gap = (engine.all_reduce(values.clone()) - values).abs().max().item()  # 0 when the ranks agree
    return {"world_size": engine.world_size, "values": values.tolist(), "gap": gap, "skipped": engine.update.skipped}


def describe(engine: Engine) -> dict[str, Any]:
    started = torch.distributed.is_initialized()
    return {"world_size": engine.world_size, "fabric": "lightning_fabric" in sys.modules, "distributed": started}


def stop_in_the_middle(engine: Engine, run: str) -> None:
    """The starting process is told to stop once both ranks train; only it gets the signal."""

    def loader(stage: str, start: int, end: int) -> Iterable[DomainBatch]:
        for iteration in range(start, end):
            if iteration == 1 and engine.is_first:
                os.kill(os.getppid(), signal.SIGTERM)
            time.sleep(0.02)
            images = torch.rand(ROWS // 2, 3, 8, 8)
            yield DomainBatch(images, images[:, 0], images, torch.arange(2), torch.arange(2))

    stages = [Stage("only", 2000, lambda previous: Toy())]
    run_stages(stages, loader, LoopOptions(seed=1, progress=False), engine=engine, run=Path(run))


def stopped(run: str) -> dict[str, Any]:
    try:
        Engine(accelerator="cpu", devices=2, start="fork").launch(stop_in_the_middle, run)
    except IccldError as error:
        saved = [path.name for path in (Path(run) / "checkpoints" / "only").iterdir()]
        return {"error": type(error).__name__, "message": str(error), "saved": saved}
    return {}


if __name__ == "__main__":
    torch.set_num_threads(1)
    single = Engine(accelerator="cpu").launch(describe)
    with tempfile.TemporaryDirectory() as folder:
        # Forked before the first backward pass, after which autograd's threads forbid it.
        both = Engine(accelerator="cpu", devices=2, start="fork").launch(train, f"{folder}/both")
        halted = stopped(f"{folder}/stopped")
        alone = train(Engine(accelerator="cpu"), f"{folder}/alone")
    print(json.dumps({"single": single, "alone": alone, "both": both, "stopped": halted}))
