"""A toy method with everything that can be forgotten: dropout, running statistics, two optimisers, an average, prototypes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from iccld.batch import DomainBatch
from iccld.methods.common.average import Ema
from iccld.methods.common.protocol import Method, Stage
from iccld.methods.common.schedule import warmup_poly
from iccld.training import health
from iccld.training.checkpoint import load
from iccld.training.engine import Engine
from iccld.training.options import Hooks, LoopOptions
from iccld.training.stages import RunResult, run_stages
from iccld.transforms import Draw

SEED = 7


class ToyMethod(Method):
    """Two adversarial updates a step, a round every four; everything it owns changes in every step or round."""

    round_batches = 3

    def __init__(self, iterations: int, previous: Method | None) -> None:
        self.model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Dropout(0.3), nn.Conv2d(4, 2, 1))
        if isinstance(previous, ToyMethod):
            self.model.load_state_dict(previous.ema.module.state_dict())
        self.critic = nn.Linear(2, 1)
        self.ema = Ema(self.model, decay=0.9)
        self.prototypes = torch.zeros(2)
        self.seen = 0
        self.rounds = 0
        self.round_sizes: list[int] = []
        self.model_optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.01)
        self.critic_optimizer = torch.optim.SGD(self.critic.parameters(), lr=0.05, momentum=0.9)
        self.model_schedule = warmup_poly(self.model_optimizer, iterations, warmup=2)
        self.critic_schedule = warmup_poly(self.critic_optimizer, iterations, warmup=1)
        self.on_step: Callable[[int], None] = lambda iteration: None

    def networks(self) -> dict[str, nn.Module]:
        return {"model": self.model, "critic": self.critic}

    def ema_networks(self) -> dict[str, nn.Module]:
        return {"model": self.ema.module}

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {"model": self.model_optimizer, "critic": self.critic_optimizer}

    def schedules(self) -> dict[str, Any]:
        return {"model": self.model_schedule, "critic": self.critic_schedule}

    def starts_round(self, iteration: int) -> bool:
        return iteration % 4 == 0

    def start_round(self, target_loader: Iterable[DomainBatch]) -> None:
        self.rounds += 1
        self.round_sizes.append(len(list(target_loader)))

    def step(self, batch: DomainBatch, iteration: int, draw: Draw) -> dict[str, Tensor]:
        self.on_step(iteration)
        rows = len(batch.source_image)
        noise = draw.normal(rows, (3, 4, 4))
        features = self.model(batch.source_image + 0.1 * noise).mean((2, 3))
        fooling = self.critic(features).square().mean() + (features - self.prototypes - self.rounds).square().mean()
        self.update("model", fooling)
        judging = (self.critic(features.detach()) - 1).square().mean()
        judging = judging * float("nan") if iteration == 2 else judging  # one skipped update
        self.update(self.critic_optimizer, judging)
        self.ema.update(self.model, iteration)
        self.prototypes = 0.8 * self.prototypes + 0.2 * features.detach().mean(0)
        self.seen += rows * self.engine.world_size
        # No pixel is ever confident: a warning is due in every stage (see `collapse_is_told_early`).
        statistics = {"entropy": fooling.detach() * self.seen, "pseudo_label_share": torch.tensor(0.0)}
        return {"fooling": fooling.detach(), "judging": judging.detach(), **statistics}

    def state_dict(self) -> dict[str, Any]:
        return {"prototypes": self.prototypes, "seen": self.seen, "rounds": self.rounds}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.prototypes = state["prototypes"]
        self.seen, self.rounds = int(state["seen"]), int(state["rounds"])

    def predictor(self, weights: str = "ema") -> Any:
        return self.ema.module if weights == "ema" else self.model


class ToyBatches(Dataset[DomainBatch]):
    """Batch i is a function of (seed, stage, i)."""

    def __init__(self, stage: str, start: int, end: int) -> None:
        self.stage, self.start, self.end = stage, start, end

    def __len__(self) -> int:
        return self.end - self.start

    def __getitem__(self, position: int) -> DomainBatch:
        iteration = self.start + position
        generator = torch.Generator().manual_seed(1000 * len(self.stage) + iteration)
        image = torch.rand(2, 3, 4, 4, generator=generator)
        index = torch.tensor([2 * iteration, 2 * iteration + 1])
        return DomainBatch(image, torch.zeros(2, 4, 4, dtype=torch.uint8), image.flip(0), index, index)


@dataclass
class Toy:
    """Runs the toy method in two stages under one directory."""

    directory: Path
    iterations: int = 8
    workers: int = 0
    keep_last: int = 10
    log_every: int = 3
    evaluated: list[tuple[str, int]] = field(default_factory=list)
    methods: list[ToyMethod] = field(default_factory=list)
    on_step: Callable[[str, int], None] = lambda stage, iteration: None
    fingerprint: dict[str, Any] = field(default_factory=lambda: {"network": {"width": 4}, "classes": ["road", "sky"]})

    def make(self, name: str) -> Callable[[Method | None], Method]:
        def build(previous: Method | None) -> Method:
            method = ToyMethod(self.iterations, previous)
            method.on_step = lambda iteration: self.on_step(name, iteration)
            self.methods.append(method)
            return method

        return build

    def loader(self, stage: str, start: int, end: int) -> Iterable[DomainBatch]:
        return DataLoader(ToyBatches(stage, start, end), batch_size=None, num_workers=self.workers)

    def evaluate(self, stage: str, method: Method, iteration: int) -> dict[str, Any]:
        self.evaluated.append((stage, iteration))
        torch.rand(5)  # an evaluation may draw random numbers
        method.predictor("model").eval()  # and leave a shared network in evaluation mode
        return {"weights": "ema", "split": "val", "miou": 50.0 - iteration, "iou": {"road": None}}

    def run(
        self,
        resume: bool = False,
        *,
        target_loader: Iterable[Any] = (),
        checkpoint_every: int = 4,
        evaluate_every: int = 4,
        seed: int = SEED,
        **hooks: Any,
    ) -> RunResult:
        stages = [Stage(name, self.iterations, self.make(name)) for name in ("source", "step1")]
        options = LoopOptions(
            seed=seed,
            log_every=self.log_every,
            checkpoint_every=checkpoint_every,
            evaluate_every=evaluate_every,
            keep_last=self.keep_last,
            resume=resume,
            progress=False,
            fingerprint=self.fingerprint,
        )
        engine = Engine(accelerator="cpu", max_norm=1.0)
        told = Hooks(**{"on_evaluate": self.evaluate, **hooks})
        return run_stages(stages, self.loader, options, told, engine=engine, run=self.directory, target_loader=target_loader)

    def trace(self, result: RunResult) -> dict[str, Any]:
        """Everything a run leaves behind that must not depend on interruptions, as comparable values."""
        trace: dict[str, Any] = {}
        for stage, told in result.stages.items():
            loaded = load(told.checkpoint)
            trace |= {f"{stage}/model/{k}": v.tolist() for k, v in loaded.model.items()}
            trace |= {f"{stage}/ema/{k}": v.tolist() for k, v in loaded.ema.items()}
            state = {k: v for k, v in loaded.state.items() if k != "progress"}
            trace[f"{stage}/state"] = plain(state)
            trace[f"{stage}/told"] = (told.iterations, told.best, told.last)
        lines = [json.loads(line) for line in (self.directory / "metrics.jsonl").read_text().splitlines()]
        trace["metrics"] = [{k: v for k, v in line.items() if k != "time"} for line in lines]
        return trace


def plain(value: Any) -> Any:
    """Tensors as lists, so that == compares bits."""
    if isinstance(value, Tensor):
        return value.tolist()
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def collapse_is_told_early() -> Iterator[None]:
    """After five iterations instead of a hundred, so that short runs have the warning after a checkpoint that remembers its beginning."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(health, "LEAST_ITERATIONS", 5)
        yield


@pytest.fixture
def toy(tmp_path: Path) -> Callable[..., Toy]:
    """make(name, **fields) -> a Toy under its own directory."""
    return lambda name="run", **fields: Toy(tmp_path / name, **fields)


@pytest.fixture(scope="session")
def straight(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The trace of the uninterrupted run."""
    torch.set_num_threads(1)
    run = Toy(tmp_path_factory.mktemp("straight") / "run")
    return run.trace(run.run())
