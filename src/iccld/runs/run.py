"""Train a run from its configuration, stage by stage."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext, suppress
from itertools import count as numbers
from pathlib import Path
from typing import Any

from iccld.assembly.chosen import method_settings, registered_method
from iccld.assembly.objects import (
    class_weights,
    make_engine,
    make_parts,
    open_data,
    optimisations,
    pair_dataset,
    stages_to_train,
)
from iccld.batch import DomainBatch
from iccld.config import Config, comparable
from iccld.data import FileDataset
from iccld.data.check import class_shares, class_statistics
from iccld.data.pairs import PairDataset, pair_loader
from iccld.data.patience import shared_memory_shortage
from iccld.errors import CheckpointError, DataError, NumericError
from iccld.labels import LabelSpace
from iccld.measure.formats import training_format
from iccld.measure.remedies import memory_explained, scoring_remedies, training_remedies
from iccld.methods.common.protocol import Method, Stage
from iccld.predictor import Predictor
from iccld.progress import say, set_quiet
from iccld.runs.base import CONFIG
from iccld.runs.data import data_digest, read_ranges, refuse_other_data, refuse_unlearnable, with_equal_sizes
from iccld.runs.scores import StageScorer
from iccld.runs.source import TrainedSource, find_source, restored_source
from iccld.runs.summary import Summary, open_folder, stages_told
from iccld.runs.trust import judge_data
from iccld.training import checkpoint
from iccld.training.allocator import keep_freed_memory
from iccld.training.engine import Engine
from iccld.training.lock import LOCK_NAME, lock_run
from iccld.training.loop import StageResult
from iccld.training.options import Hooks, LoopOptions
from iccld.training.stages import run_stages
from iccld.training.trackers import Trackers

StageCallback = Callable[[Path, str, Predictor, FileDataset, LabelSpace], None]
"""Called after each stage with the run, the stage's name, its headline predictor, and what to show it on."""


def adapt(config: Config, on_stage: StageCallback | None = None) -> Path:
    """Train all stages of `config`, score them, write the run directory; returns it.

    Resumes when `runtime.resume` is "auto" and something is there.  Raises the package's own errors only (exit codes: docs/index.md).
    """
    engine = make_engine(
        config,
        devices=config.runtime.devices,
        max_norm=config.runtime.clip_norm,
        max_skips=max(config.runtime.max_skips, 1),
        start="spawn",
    )
    engine.format = training_format(config, engine, Path(config.runtime.out) / config.name)
    return engine.launch(_adapt_rank, config, on_stage)


def _adapt_rank(engine: Engine, config: Config, on_stage: StageCallback | None) -> Path:
    keep_freed_memory()
    if not engine.is_first:
        set_quiet(True)
    run = Path(config.runtime.out) / config.name
    made = [folder for folder in (run, *run.parents) if not folder.exists()]
    if engine.is_first:
        run.mkdir(parents=True, exist_ok=True)
    engine.barrier()
    with lock_run(run) if engine.is_first else nullcontext():
        try:
            return _Run(engine, config, run, on_stage).train()
        except BaseException:
            if engine.is_first:
                _leave_nothing(run, made)
            raise


def _leave_nothing(run: Path, made: Sequence[Path]) -> None:
    """Take away what a refused start has made; a run that has begun has its config.yaml, and stays."""
    if (run / CONFIG).exists():
        return
    with suppress(OSError):  # a folder that holds something else stays
        (run / LOCK_NAME).unlink(missing_ok=True)
        for folder in made:
            folder.rmdir()


class _Run:
    """The training of one run on one rank."""

    def __init__(self, engine: Engine, config: Config, run: Path, on_stage: StageCallback | None) -> None:
        self.engine, self.config, self.run, self.on_stage = engine, config, run, on_stage
        skips = config.runtime.data_errors == "skip"
        self.skipped: dict[str, set[str]] = {"source": set(), "target": set()}
        ranges = read_ranges(run) if config.runtime.resume == "auto" else None
        if engine.is_first:
            self.data = with_equal_sizes(open_data(config, ranges), skips)  # draws generated scenes once, for all ranks
            refuse_unlearnable(self.data)  # and counts their classes once
        engine.barrier()
        if not engine.is_first:
            self.data = with_equal_sizes(open_data(config, ranges), skips)
        space = self.data.label_space
        self.pairs = pair_dataset(config, self.data, engine.rank, engine.world_size)
        self.pairs.share_cache(engine.share(self.pairs.cache_places()))  # ranks of one machine read each picture once, together
        if shortage := shared_memory_shortage(self.pairs.batch_bytes * engine.world_size, config.runtime.workers):
            say(shortage)
        weight = class_weights(class_statistics(self.data.source), config.sampling.class_balance) if config.sampling.class_balance else None
        parts = make_parts(config, space, None if weight is None else weight.to(engine.device))
        self.stages = registered_method(config.method).stages(parts, method_settings(config), optimisations(config))
        self.source = (
            None if config.source_checkpoint is None else find_source(Path(config.source_checkpoint), space.names, config.checkpoint_stage)
        )
        self.previous: Method | None = None
        if self.source is not None:
            self.previous = restored_source(self._take_started_from(), self.source, engine)
        self.fingerprint = fingerprint(config, space, self.source) | {"data": data_digest(self.data)}
        self.scorer = StageScorer(config, engine, run, self.data, self.pairs)
        self.summary: Summary | None = None
        self.told_before: dict[str, Any] = {}

    def train(self) -> Path:
        refuse_other_data(self.run, self.fingerprint["data"], len(self.stages) + len(self.source.told if self.source else ()))
        checkpoint.refuse_other_configuration(self.run, self.fingerprint)
        if self.config.runtime.resume == "auto":
            self.told_before = stages_told(self.run)
        self.engine.barrier()  # every rank has read it before the first one writes it anew
        if self.engine.is_first:
            is_trained = {stage.name for stage in self.stages} <= self.told_before.keys()
            self.summary = open_folder(self.config, self.engine, self.run, self.data, self.source, is_trained)
        iterations = {name: each.iterations for name, each in optimisations(self.config).items()}
        names = self.config.runtime.track if self.engine.is_first else ()
        self.trackers = Trackers(names, self.run, comparable(self.config), iterations)
        try:
            with memory_explained(lambda: training_remedies(self.config, self.engine)):
                self._run_stages()
        finally:
            self.trackers.close()
        self._tell_trust()
        self._tell_skipped()
        return self.run

    def _run_stages(self) -> None:
        config, engine = self.config, self.engine
        run_stages(
            self.stages,
            self._loader,
            LoopOptions(
                seed=config.seed,
                log_every=config.runtime.log_every,
                checkpoint_every=config.runtime.checkpoint_every,
                evaluate_every=config.runtime.evaluate_every,
                keep_last=config.runtime.keep_last,
                resume=config.runtime.resume == "auto",
                fingerprint=self.fingerprint,
                class_shares=class_shares(self.data.source),
            ),
            Hooks(
                on_evaluate=self._evaluate,
                on_stage_end=self._finish_stage,
                on_record=self.trackers.record,
                describe_batch=self._describe,
            ),
            engine=engine,
            run=self.run,
            previous=self.previous,
            target_loader=Batches(self.pairs, engine),
            scored=self.told_before.keys(),
        )

    def _take_started_from(self) -> Stage:
        """Take the stages up to the one that is started from out of those to train, and return that one; ConfigError where none is left."""
        all_stages = self.stages
        self.stages = stages_to_train(self.config, all_stages)
        return all_stages[len(all_stages) - len(self.stages) - 1]

    def _loader(self, stage: str, start: int, end: int) -> Iterable[DomainBatch]:
        # Stages draw one after the other from the same endless sequence, so that a later one does not repeat an earlier one's batches.
        before = 0
        for name, optimisation in optimisations(self.config).items():
            if name == stage:
                break
            before += optimisation.iterations
        batches = pair_loader(self.pairs, before + start, before + end, self.config.runtime.workers)
        return self._noting_skipped(batches, before + start) if self.pairs.skip_errors else batches

    def _noting_skipped(self, batches: Iterable[DomainBatch], start: int) -> Iterator[DomainBatch]:
        """The batches, remembering the pictures in whose place others came."""
        for iteration, batch in enumerate(batches, start):
            planned = self.pairs.indices(iteration)
            for role, dataset, wanted, given in (
                ("source", self.data.source, planned[0], batch.source_index),
                ("target", self.data.target, planned[1], batch.target_index),
            ):
                self.skipped[role] |= {dataset.names[index] for index, taken in zip(wanted, given.tolist(), strict=True) if index != taken}
            yield batch

    def _tell_trust(self) -> None:
        """At the end, on the first rank: how good the run is on its target, as far as that is known without labels."""
        num = self.config.evaluation.estimate_pictures
        if self.summary is None or num == 0 or self.data.source_val is None or "trust" in self.summary.content:
            return
        try:
            with memory_explained(scoring_remedies):
                told = judge_data(self.run, self.config, self.data, num=num, device=self.engine.device.type)
        except (DataError, NumericError, CheckpointError) as error:  # the run itself is finished and whole
            say(f"warning: its scores were not estimated without labels: {error}")
        else:
            self.summary.tell_trust(told)

    def _tell_skipped(self) -> None:
        """At the end: how many pictures could not be read, by domain, and the first of them."""
        for role, names in self.skipped.items():
            if names:
                say(
                    f"warning: {len(names)} {role} pictures could not be read and were left out, such as {min(names)}; see iccld data check"
                )
        if any(self.skipped.values()) and self.summary is not None:
            self.summary.tell_skipped({role: sorted(names) for role, names in self.skipped.items() if names})

    def _describe(self, batch: DomainBatch) -> str:
        source = [str(self.data.source.image_paths[i]) for i in batch.source_index.tolist()]
        target = [str(self.data.target.image_paths[i]) for i in batch.target_index.tolist()]
        return f"source {', '.join(source)}; target {', '.join(target)}"

    def _evaluate(self, stage: str, method: Method, iteration: int) -> list[dict[str, Any]]:
        """On the first rank: score the stage so far, and show what it predicts by now."""
        entries = self.scorer.evaluate(stage, method, iteration)
        if self.on_stage is not None and iteration < optimisations(self.config)[stage].iterations:
            self.on_stage(self.run, stage, self.scorer.predictor(method), self.scorer.shown, self.data.label_space)
        return entries

    def _finish_stage(self, stage: str, method: Method, result: StageResult) -> None:
        """On the first rank: score the stage, show it, tell it."""
        assert self.summary is not None
        if result.is_restored and stage in self.told_before:
            self.summary.tell(stage, self.told_before[stage])  # scored and shown when it was trained
            return
        told = self.scorer.finish(stage, method, result)
        if self.on_stage is not None:
            self.on_stage(self.run, stage, self.scorer.predictor(method), self.scorer.shown, self.data.label_space)
        self.summary.tell(stage, told)


class Batches:
    """The pairs' batches without end, from the first, on the engine's device; iterated when a round begins, for as many as it wants."""

    def __init__(self, pairs: PairDataset, engine: Engine) -> None:
        self.pairs, self.engine = pairs, engine

    def __iter__(self) -> Any:
        return (self.engine.to_device(self.pairs[iteration]) for iteration in numbers())


def fingerprint(config: Config, space: LabelSpace, source: TrainedSource | None = None) -> dict[str, Any]:
    """What a checkpoint must agree with to be gone on from: everything that changes what is computed."""
    kept = comparable(config)
    for name in ("recipe", "name", "runtime", "evaluation", "val", "source_checkpoint"):
        kept.pop(name)
    if source is not None:  # the weights that were started from, wherever they lie
        kept["source_checkpoint"] = dict(source.sha256)
    kept["devices"] = config.runtime.devices
    kept["classes"] = list(space.names)
    return json.loads(json.dumps(kept))  # type: ignore[no-any-return]
