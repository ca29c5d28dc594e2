"""One stage: steps, log lines, evaluations, checkpoints, and a clean stop when asked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import nn

from iccld.batch import DomainBatch
from iccld.errors import CheckpointError, DataError, Preempted
from iccld.methods.common.protocol import STATISTICS, Method, Stage
from iccld.methods.common.written import WrittenBuffers
from iccld.progress import progress as progress_bar
from iccld.progress import say
from iccld.training import checkpoint, snapshot
from iccld.training.engine import Engine
from iccld.training.health import PseudoLabelWatch
from iccld.training.options import Evaluation, Hooks, LoopOptions
from iccld.training.signals import Stopped, StopRequest, leaving_at_once, stop_on_signals
from iccld.training.tracking import Metrics, RunningMeans, Stopwatch

LoaderFactory = Callable[[str, int, int], Iterable[DomainBatch]]
"""(stage, start, end) -> this rank's batches of the iterations start, ..., end - 1: a pure function of (seed, stage, iteration)."""


@dataclass(frozen=True)
class StageResult:
    """What a finished stage tells."""

    iterations: int
    seconds: float
    """Wall time of training in seconds, saving included and evaluations not, summed over resumes."""
    processor_seconds: float | None
    """The same as this process kept cores busy, which what runs beside it changes little; None where an earlier start did not count it."""
    peak_memory_gib: float
    best: dict[str, Any] | None
    """{"miou": percent, "iteration": int} of the best evaluation, None without one."""
    last: tuple[dict[str, Any], ...]
    """The evaluation entries at the end of the stage."""
    checkpoint: Path
    is_restored: bool = False
    """Whether the stage came back finished from its checkpoint, without a step of its own."""


def train_stage(
    method: Method,
    stage: Stage,
    loader_factory: LoaderFactory,
    options: LoopOptions,
    hooks: Hooks,
    *,
    engine: Engine,
    run: Path,
    order: int = 0,
    target_loader: Iterable[DomainBatch] = (),
    is_scored: bool = False,
) -> StageResult:
    """Train `method`, freshly made, to the end of `stage`, or return at once when a resumed stage is finished.

    Evaluation happens on rank 0 as `options` and `hooks` say.  order: the stage's position in the run.
    Preempted (exit code 75) after SIGTERM, SIGUSR1 or Ctrl-C, once the step at hand is saved; an evaluation at hand is left, and done
    after the resume.  is_scored: the evaluation at the stage's end is on record elsewhere, and is not done again for a finished stage.
    """
    loop = _StageLoop(method, stage, options, hooks, engine, run)
    loop.order, loop.is_scored = order, is_scored
    return loop.run_to_end(loader_factory, target_loader)


class _StageLoop:
    """The variables of one stage's loop; `train_stage` documents them."""

    is_scored: bool
    order: int
    metrics: Metrics | None = None

    def __init__(self, method: Method, stage: Stage, options: LoopOptions, hooks: Hooks, engine: Engine, run: Path) -> None:
        self.method = method
        self.stage = stage
        self.options = options
        self.hooks = hooks
        self.engine = engine
        self.run = run
        self.directory = checkpoint.stage_directory(run, stage.name)
        self.means = RunningMeans()
        self.written = WrittenBuffers()
        self.watch = PseudoLabelWatch(stage.iterations, options.class_shares)
        self.iteration = 0  # finished iterations
        self.evaluated = 0  # the last iteration whose evaluation is in metrics.jsonl
        self.saved = -1
        self.best: dict[str, Any] | None = None
        self.last: list[dict[str, Any]] = []
        self.peak_before = 0.0
        self.clock = Stopwatch()

    def run_to_end(self, loader_factory: LoaderFactory, targets: Iterable[DomainBatch]) -> StageResult:
        engine, end = self.engine, self.stage.iterations
        # 1. Set up, and find out where to start.
        if engine.is_first:
            checkpoint.ensure_writable(self.run)
        engine.scratch = self.run
        self.method.setup(engine)
        self._restore()
        if self.iteration == end and self.saved == end and (self.evaluated == end or self.is_scored):
            return self._result()
        if engine.is_first:
            self.metrics = Metrics(self.run / "metrics.jsonl", self.stage.name, self.iteration, self.evaluated)
        # 2. Train.
        try:
            with stop_on_signals() as stop:
                if self.saved < 0:
                    self._start_round(targets)
                if self._is_evaluation_due() and self.evaluated != self.iteration:
                    self._evaluate()  # the signal that stopped the earlier process came before its evaluation
                if self.iteration < end:
                    self._train(loader_factory, targets, stop)
                else:
                    self._save()
                if engine.any_rank(bool(stop)):
                    raise Preempted(f"stopped by {stop.name or 'a signal'}, stage {self.stage.name} is finished; go on with --resume auto")
        finally:
            if self.metrics is not None:
                self.metrics.close()
        engine.barrier()
        return self._result()

    def _start_round(self, targets: Iterable[DomainBatch]) -> None:
        try:
            self.method.start_round(islice(targets, self.method.round_batches))
        except DataError as error:
            raise (self._saved_for(error) if self.iteration else error) from error  # before the first step there is nothing to save

    def _train(self, loader_factory: LoaderFactory, targets: Iterable[DomainBatch], stop: StopRequest) -> None:
        start, end = self.iteration, self.stage.iterations
        label = f"Training {self.stage.name}" + (f" from {start}" if start else "")
        shows = self.options.progress and self.engine.is_first
        with progress_bar(label, total=end - start) if shows else nullcontext(_Silent()) as bar:
            for batch in self._saved_on_data_errors(self._batches(loader_factory, start, end)):
                if self.iteration > 0 and self.method.starts_round(self.iteration):
                    self._start_round(targets)
                self._step(None if batch is None else self.engine.to_device(batch))
                note = self._log() if self.iteration % self.options.log_every == 0 or self.iteration == end else ""
                bar.advance(1, note)
                self._finish_iteration(stop)
                if self.iteration == end:
                    break
        if self.iteration != end:
            raise DataError(f"stage {self.stage.name}: the loader gave {self.iteration - start} batches of {end - start}")

    def _batches(self, loader_factory: LoaderFactory, start: int, end: int) -> Iterator[DomainBatch | None]:
        """What each step takes, None for one that reads no batch: loaders of as many in a row as the method wants."""
        iteration = start
        while iteration < end:
            first = self.method.batch_of(iteration)
            if first is None:
                yield None
                iteration += 1
                continue
            count = 1
            while iteration + count < end and self.method.batch_of(iteration + count) == first + count:
                count += 1
            end_of_these = iteration + count
            for batch in islice(loader_factory(self.stage.name, first, first + count), count):
                yield batch
                iteration += 1
            if iteration < end_of_these:
                return  # the loader gave too few

    def _saved_on_data_errors(self, batches: Iterable[DomainBatch | None]) -> Iterator[DomainBatch | None]:
        """The batches; what was trained is saved before the error of a file that cannot be read goes on its way."""
        arriving = iter(batches)
        while True:
            try:
                batch = next(arriving)
            except StopIteration:
                return
            except DataError as error:
                raise self._saved_for(error) from error
            yield batch

    def _saved_for(self, error: DataError) -> DataError:
        self._save()
        remedy = "mend the file and go on with --resume auto, or go on without it with --resume auto --runtime.data_errors skip"
        return DataError(f"{error} (stage {self.stage.name} is saved after iteration {self.iteration}); {remedy}")

    def _step(self, batch: DomainBatch | None) -> None:
        engine, name, iteration = self.engine, self.stage.name, self.iteration
        # Every random number is a function of (seed, stage, iteration): the position is one integer, and neither an
        # evaluation nor a resume can shift what comes after it.
        engine.seed_global(self.options.seed, name, iteration)
        draw = engine.draw(engine.generator(self.options.seed, name, iteration))
        engine.update.describe_batch = lambda: (
            f"iteration {iteration} of {name}, {'a view that is kept' if batch is None else self.hooks.describe_batch(batch)}"
        )
        with engine.autocast():
            losses = self.method.step_again(iteration, draw) if batch is None else self.method.step(batch, iteration, draw)
        self.means.add(losses)
        for notice in engine.update.notices:
            self._warn(notice)
        engine.update.notices.clear()
        if engine.world_size > 1:  # as DistributedDataParallel does with running statistics
            buffers = self.written.take((*self.method.networks().values(), *self.method.ema_networks().values()))
            engine.broadcast(buffers)
            self.written.forget(buffers)
        self.iteration += 1

    def _finish_iteration(self, stop: StopRequest) -> None:
        """Evaluate and save where due; save and leave where asked to."""
        end = self.stage.iterations
        is_asked = self.engine.any_rank(bool(stop))
        if is_asked and self.iteration < end:
            self._save()
            self.engine.barrier()
            name = stop.name or "a signal"
            raise Preempted(f"stopped by {name} after iteration {self.iteration} of {self.stage.name}, saved; go on with --resume auto")
        is_better = self._is_evaluation_due() and self._evaluate()
        if is_better or self.iteration == end or self.iteration % self.options.checkpoint_every == 0:
            self._save()

    def _is_evaluation_due(self) -> bool:
        if self.hooks.on_evaluate is None or self.iteration == 0:
            self.evaluated = self.iteration
            return False
        every = self.options.evaluate_every
        is_due = self.iteration == self.stage.iterations or (every > 0 and self.iteration % every == 0)
        if not is_due:
            self.evaluated = self.iteration
        return is_due

    def _evaluate(self) -> bool:
        """Evaluate on rank 0 and write the lines; returns whether this is the best so far.  Asked to stop, it saves and leaves without."""
        is_better = is_left = False
        answer: Evaluation = None
        if self.engine.is_first and self.hooks.on_evaluate is not None:
            networks = [*self.method.networks().values(), *self.method.ema_networks().values()]
            with _training_flags_kept(networks), self.clock.stopped():
                try:
                    with leaving_at_once():
                        answer = self.hooks.on_evaluate(self.stage.name, self.method, self.iteration)
                except Stopped:
                    is_left = True
                except DataError as error:
                    raise self._saved_for(error) from error
        if self.engine.any_rank(is_left):
            self._save()
            self.engine.barrier()
            raise Preempted(f"stopped before iteration {self.iteration} of {self.stage.name} was scored, saved; go on with --resume auto")
        self.evaluated = self.iteration
        if self.engine.is_first:
            entries = [] if answer is None else [answer] if isinstance(answer, Mapping) else list(answer)
            self.last = [dict(entry) for entry in entries]
            for entry in self.last:
                self._write({"eval": entry})
            miou = next((float(entry["miou"]) for entry in self.last if entry.get("miou") is not None), None)
            is_better = miou is not None and (self.best is None or miou > self.best["miou"])
            if is_better:
                self.best = {"miou": miou, "iteration": self.iteration}
        self.engine.barrier()
        return is_better

    def _log(self) -> str:
        """Write a line of means, start the next window; returns the losses as a short note."""
        means = self.means.means()
        self.means.reset()
        losses = {name: value for name, value in means.items() if name not in STATISTICS}
        optimizers = self.method.optimizers()
        rate = next(iter(optimizers.values())).param_groups[0]["lr"] if optimizers else None
        skipped = {"skipped": self.engine.update.skipped} if self.engine.update.skipped else {}
        runaways = {name: count for name, count in self.engine.update.runaways.items() if count}
        clipped = {"runaways": runaways} if runaways else {}
        statistics = {name: value for name, value in means.items() if name in STATISTICS}
        self._write({"time": round(self.clock.now[0], 3), "losses": losses, "lr": rate, **skipped, **clipped, **statistics})
        start = (self.iteration - 1) // self.options.log_every * self.options.log_every
        for sentence in self.watch.due_warnings(means, start, self.iteration):
            self._warn(sentence)
        return " ".join(f"{name} {value:.3g}" for name, value in losses.items() if isinstance(value, float))

    def _warn(self, sentence: str) -> None:
        """Tell the user now, and the report later."""
        self._write({"warning": sentence})
        if self.engine.is_first:
            say(f"warning: stage {self.stage.name}: {sentence}")

    def _write(self, record: Mapping[str, Any]) -> None:
        if self.metrics is not None:
            self.metrics.write({"iteration": self.iteration, **record})
            if self.hooks.on_record is not None:
                self.hooks.on_record({"stage": self.stage.name, "iteration": self.iteration, **record})

    def _save(self) -> None:
        """Save on rank 0; the other ranks hold the same."""
        if self.engine.is_first and self.saved != self.iteration:
            if self.metrics is not None:
                self.metrics.sync()
            seconds, processor_seconds = self.clock.now
            progress = {
                "iteration": self.iteration,
                "evaluated": self.evaluated,
                "seconds": seconds,
                "processor_seconds": processor_seconds,
                "peak_memory_gib": self._peak(),
                "best": self.best,
                "last": self.last,
                "watch": self.watch.state_dict(),
            }
            payload = snapshot.take(self.method, self.engine.update, self.options.seed, progress, self.means.state_dict())
            checkpoint.save(
                self.directory,
                self.iteration,
                payload,
                fingerprint=self.options.fingerprint,
                order=self.order,
                keep_last=self.options.keep_last,
                keep=[self.best["iteration"]] if self.best else [],
            )
        self.saved = self.iteration

    def _restore(self) -> None:
        if not self.options.resume:
            if checkpoint.iterations(self.directory):
                raise CheckpointError(f"{self.run}: holds a training already; go on with --resume auto, or choose another output")
            return
        loaded = checkpoint.load_latest(self.directory, fingerprint=self.options.fingerprint)
        if loaded is None:
            return
        snapshot.restore(self.method, loaded, self.engine.update, self.options.seed)
        try:
            progress = loaded.state["progress"]
            self.iteration, self.evaluated = int(progress["iteration"]), int(progress["evaluated"])
            self.clock = Stopwatch(float(progress["seconds"]), progress.get("processor_seconds"))
            self.peak_before = float(progress["peak_memory_gib"])
            self.best, self.last = progress["best"], list(progress["last"])
            self.watch.load_state_dict(progress["watch"])
            self.means.load_state_dict(loaded.state["metrics"], self.engine.device)
        except KeyError as error:
            raise CheckpointError(f"{loaded.path}: holds no {error}, so training cannot go on from it exactly") from error
        if self.iteration > self.stage.iterations:
            raise CheckpointError(f"{loaded.path}: is past the {self.stage.iterations} iterations of stage {self.stage.name}")
        self.saved = self.iteration

    def _peak(self) -> float:
        return max(self.peak_before, self.engine.peak_memory_gib())

    def _result(self) -> StageResult:
        path = self.directory / f"{self.iteration:08d}"
        is_new = self.metrics is not None
        peak = self._peak() if is_new else self.peak_before
        seconds = self.clock.now if is_new else self.clock.before
        return StageResult(self.iteration, *seconds, peak, self.best, tuple(self.last), path, not is_new)


class _Silent:
    """A progress bar for ranks and callers that show none."""

    def advance(self, steps: int = 1, note: str = "") -> None:
        return None


@contextmanager
def _training_flags_kept(networks: Sequence[nn.Module]) -> Iterator[None]:
    """Whatever puts a shared network into evaluation mode, training goes on in the mode it had (fault 15)."""
    flags = [(module, module.training) for network in networks for module in network.modules()]
    try:
        with torch.no_grad():
            yield
    finally:
        for module, is_training in flags:
            module.training = is_training
