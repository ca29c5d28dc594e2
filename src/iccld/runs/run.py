"""Train a run from its configuration and score every stage of it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from itertools import count as numbers
from pathlib import Path
from typing import Any

from iccld.assembly.chosen import method_settings, registered_method
from iccld.assembly.networks import keep_architecture
from iccld.assembly.objects import (
    class_weights,
    make_engine,
    make_parts,
    open_data,
    optimisations,
    pair_dataset,
)
from iccld.assembly.scoring import scoring_of, scoring_predictor
from iccld.batch import DomainBatch
from iccld.config import Config, comparable, dump_config, parse_size
from iccld.data import FileDataset
from iccld.data.check import class_statistics
from iccld.data.pairs import PairDataset, pair_loader
from iccld.data.patience import shared_memory_shortage
from iccld.errors import ConfigError
from iccld.evaluation import Record, convention_of, evaluate, own_means
from iccld.labels import LABEL_SPACES, LabelSpace
from iccld.measure.alignment import alignment, identity_gap
from iccld.measure.cost import milliseconds_per_image, num_parameters
from iccld.measure.remedies import memory_explained, scoring_remedies, training_remedies
from iccld.methods.common.protocol import SOURCE, DiffusionMethod, Method, Stage
from iccld.predictor import Predictor
from iccld.progress import say, set_quiet
from iccld.runs.load import LABEL_SPACE
from iccld.runs.provenance import environment
from iccld.runs.source import TrainedSource, find_source, restored_source
from iccld.training import checkpoint
from iccld.training.allocator import keep_freed_memory
from iccld.training.engine import Engine
from iccld.training.lock import lock_run
from iccld.training.loop import StageResult
from iccld.training.stages import run_stages

StageCallback = Callable[[Path, str, Predictor, FileDataset, LabelSpace], None]
"""Called after each stage with the run, the stage's name, its headline predictor, and what to show it on."""

PROJECTION = "projection.json"
"""Where each picture lies in the plane of the latents, by stage, beside summary.json."""

WARN_GAP = 0.01
"""An identity gap below this share means that step 2 returns what it is given."""


def adapt(config: Config, on_stage: StageCallback | None = None) -> Path:
    """Train all stages of `config`, score them, write the run directory; returns it.

    Resumes when `runtime.resume` is "auto" and something is there.  Raises the package's own errors only (exit codes of FAULTS.md).
    """
    engine = make_engine(
        config,
        devices=config.runtime.devices,
        max_norm=config.runtime.clip_norm,
        max_skips=max(config.runtime.max_skips, 1),
        spawn=config.runtime.devices > 1,
    )
    return engine.launch(_adapt_rank, config, on_stage)


def _adapt_rank(engine: Engine, config: Config, on_stage: StageCallback | None) -> Path:
    keep_freed_memory()
    if not engine.is_first:
        set_quiet(True)
    run = Path(config.runtime.out) / config.name
    if engine.is_first:
        run.mkdir(parents=True, exist_ok=True)
    engine.barrier()
    with lock_run(run) if engine.is_first else nullcontext():
        return _Run(engine, config, run, on_stage).train()


class _Run:
    """One run on one rank."""

    def __init__(self, engine: Engine, config: Config, run: Path, on_stage: StageCallback | None) -> None:
        self.engine, self.config, self.run, self.on_stage = engine, config, run, on_stage
        if engine.is_first:
            self.data = open_data(config)  # draws generated scenes once, for all ranks
        engine.barrier()
        if not engine.is_first:
            self.data = open_data(config)
        self.space = self.data.label_space
        self.pairs = pair_dataset(config, self.data, engine.rank, engine.world_size)
        if shortage := shared_memory_shortage(self.pairs.batch_bytes * engine.world_size, config.runtime.workers):
            say(shortage)
        weight = class_weights(class_statistics(self.data.source), config.sampling.class_balance) if config.sampling.class_balance else None
        self.parts = make_parts(config, self.space, None if weight is None else weight.to(engine.device))
        self.stages = registered_method(config.method).stages(self.parts, method_settings(config), optimisations(config))
        self.source = None if config.source_checkpoint is None else find_source(Path(config.source_checkpoint), self.space.names)
        self.previous: Method | None = None
        if self.source is not None:
            self.previous = restored_source(self._take_source_stage(), self.source, engine)
        self.fingerprint = fingerprint(config, self.space, self.source)
        self.scoring = scoring_of(config, engine.precision).told()
        self.summary: dict[str, Any] = {}
        self.told_before: dict[str, Any] = {}

    def train(self) -> Path:
        checkpoint.refuse_other_configuration(self.run, self.fingerprint)
        if self.config.runtime.resume == "auto":
            self.told_before = _read_json(self.run / "summary.json").get("stages", {})
        self.engine.barrier()  # every rank has read it before the first one writes it anew
        if self.engine.is_first:
            self._open_summary()
        with memory_explained(lambda: training_remedies(self.config, self.engine)):
            self._run_stages()
        return self.run

    def _run_stages(self) -> None:
        config, engine = self.config, self.engine
        run_stages(
            self.stages,
            self._loader,
            engine=engine,
            run=self.run,
            seed=config.seed,
            log_every=config.runtime.log_every,
            checkpoint_every=config.runtime.checkpoint_every,
            evaluate_every=config.runtime.evaluate_every,
            on_evaluate=self._evaluate,
            on_stage_end=self._finish_stage,
            resume=config.runtime.resume == "auto",
            previous=self.previous,
            fingerprint=self.fingerprint,
            keep_last=config.runtime.keep_last,
            describe_batch=self._describe,
            target_loader=_Batches(self.pairs, engine),
            scored=self.told_before.keys(),
        )

    def _take_source_stage(self) -> Stage:
        """Take the source stage out of those to train; ConfigError where there is none, or nothing after it."""
        if self.stages[0].name != SOURCE or len(self.stages) < 2:
            names = ", ".join(stage.name for stage in self.stages)
            raise ConfigError(f"source_checkpoint replaces a stage source before others; method {self.config.method} has {names} here")
        return self.stages.pop(0)

    def _loader(self, stage: str, start: int, end: int) -> Iterable[DomainBatch]:
        # Stages draw one after the other from the same endless sequence, so that a later one does not repeat an earlier one's batches.
        before = 0
        for name, optimisation in optimisations(self.config).items():
            if name == stage:
                break
            before += optimisation.iterations
        return pair_loader(self.pairs, before + start, before + end, self.config.runtime.workers)

    def _describe(self, batch: DomainBatch) -> str:
        source = [str(self.data.source.image_paths[i]) for i in batch.source_index.tolist()]
        target = [str(self.data.target.image_paths[i]) for i in batch.target_index.tolist()]
        return f"source {', '.join(source)}; target {', '.join(target)}"

    # --- scores ------------------------------------------------------------------------------------------------------

    def _predictor(self, method: Method, weights: str) -> Predictor:
        return scoring_predictor(self.config, method, weights, self.engine)

    def _evaluate(self, stage: str, method: Method, iteration: int) -> list[dict[str, Any]]:
        """Headline weights on the validation split; at the stage's end also the others, and the source's held-out part."""
        headline = method.headline_weights
        asked: list[tuple[str, str, FileDataset | None]] = [(headline, "val", self.data.val)]
        is_end = iteration == optimisations(self.config)[stage].iterations
        if is_end:
            asked.append(("model" if headline == "ema" else "ema", "val", self.data.val))
        asked.append((headline, "source_val", self.data.source_val))
        entries = []
        for weights, split, dataset in asked:
            if dataset is None or (weights == "ema" and not method.ema_networks()):
                continue
            title = f"Scoring {stage} ({weights}, {split.replace('_', ' ')})"
            record = Record()
            with memory_explained(scoring_remedies):
                scores = evaluate(self._predictor(method, weights), dataset, self.space, title=title, observe=record.add)
            if is_end and (weights, split) == (headline, "val"):
                record.save(self.run / "confusions" / f"{stage}.npz")
            entries.append({"weights": weights, "split": split, "miou": scores.miou, "iou": scores.iou, "scoring": self.scoring})
        return entries

    def _finish_stage(self, stage: str, method: Method, result: StageResult) -> None:
        if result.is_restored and stage in self.told_before:
            self._tell(stage, self.told_before[stage])  # scored and shown when it was trained
            return
        by = {(entry["weights"], entry["split"]): entry for entry in result.last}
        headline = method.headline_weights
        val = by.get((headline, "val"))
        other = by.get(("model" if headline == "ema" else "ema", "val"))
        told: dict[str, Any] = {
            "miou": val and val["miou"],
            "iou": val and val["iou"],
            "means": own_means(val["iou"], self.space) if val else {},
            "weights": headline,
            "scoring": (val or by.get((headline, "source_val")) or {}).get("scoring", self.scoring),
            "miou_model": (val if headline == "model" else other) and (val if headline == "model" else other)["miou"],  # type: ignore[index]
            "best": result.best if val else None,
            "iterations": result.iterations,
            "seconds": round(result.seconds, 1),
            "peak_memory_gib": round(result.peak_memory_gib, 3),
        }
        source_val = by.get((headline, "source_val"))
        if source_val:
            told["source_validation"] = {"miou": source_val["miou"], "num_images": len(self.data.source_val or ())}
        if isinstance(method, DiffusionMethod):
            told |= self._diffusion_scores(stage, method)
        predictor = self._predictor(method, headline)
        shown = self.data.val if self.data.val is not None else self.data.target
        told["parameters"] = num_parameters(predictor)
        told["milliseconds_per_image"] = round(milliseconds_per_image(predictor, shown), 1)
        if self.on_stage is not None:
            self.on_stage(self.run, stage, predictor, shown, self.space)
        self._tell(stage, told)

    def _tell(self, stage: str, told: dict[str, Any]) -> None:
        """The stage's part of summary.json, written last: what is there needs no scoring again."""
        self.summary["stages"][stage] = told
        self.summary["headline"] = {"stage": stage, "weights": told["weights"], "miou": told["miou"]}
        write_json(self.run / "summary.json", self.summary)
        self._say_score(stage, told)

    def _diffusion_scores(self, stage: str, method: DiffusionMethod) -> dict[str, Any]:
        """What only step 2 has: the identity gap, the domains' alignment, and mIoU by the number of DDIM steps on the same pictures."""
        headline = self._predictor(method, method.headline_weights)
        gap = identity_gap(headline, self.pairs)
        if gap < WARN_GAP:
            say(f"warning: identity_gap is {gap:.2%}: step 2 hands back the latent it is given, so it can change no mask")
        told: dict[str, Any] = {"identity_gap": gap, "sampler_steps": method.sampler_steps}
        told["alignment"], projection = alignment(headline, self.pairs, self.parts.views.crop, self.config.seed)
        if projection:
            write_json(self.run / PROJECTION, {stage: projection}, indent=None)
        if self.data.val is None:
            return told
        by_steps = {}
        count = min(len(self.data.val), self.config.evaluation.compare_images)
        for steps in self.config.evaluation.compare_steps if count else ():
            predictor = scoring_predictor(self.config, method, method.headline_weights, self.engine, steps)
            scores = evaluate(predictor, self.data.val, self.space, title=f"Scoring {steps} DDIM steps", limit=count)
            by_steps[str(steps)] = scores.miou
        return told | {"miou_by_steps": by_steps, "miou_by_steps_images": count}

    def _say_score(self, stage: str, told: Mapping[str, Any]) -> None:
        if told["miou"] is not None:
            count = self.summary["protocol"]["num_images"]
            say(f"{stage}: {told['miou']:.2f} mIoU on {count} validation pictures ({told['weights']} weights)")
        elif "source_validation" in told:
            say(f"{stage}: {told['source_validation']['miou']:.2f} mIoU on held-out source pictures; the target has no labels")

    def _open_summary(self) -> None:
        config, engine = self.config, self.engine
        (self.run / "config.yaml").write_text(dump_config(config), encoding="utf-8")
        if config.label_space not in LABEL_SPACES:
            (self.run / LABEL_SPACE).write_bytes(Path(config.label_space).read_bytes())
        keep_architecture(config.network, self.run)
        told = environment(engine.device.type, engine.precision)
        before = _read_json(self.run / "summary.json") if {stage.name for stage in self.stages} <= self.told_before.keys() else {}
        if before:
            told = _read_json(self.run / "environment.json") or told  # nothing left to train: where it was trained stays true
        write_json(self.run / "environment.json", told)
        val = self.data.val
        sizes = {(0, 0)} if val is None else {val.read_image(0).shape[:2]}
        window = config.evaluation.window
        self.summary = {
            "method": config.method,
            "recipe": config.recipe,
            "seed": config.seed,
            "commit": told["commit"],
            "dirty": told["dirty"],
            "label_space": self.space.name,
            "protocol": {
                "ground_truth_size": list(next(iter(sizes))),
                "window": window if window == "whole" else {"size": list(parse_size(window)), "stride": config.evaluation.stride},
                "split": config.val.split if val is not None else None,
                "num_images": len(val) if val is not None else 0,
                "convention": convention_of(self.space),
            },
            "headline": None,
            "stages": {},
        }
        if "protocol" in before:
            self.summary["protocol"] = before["protocol"]  # and how it was scored
        if self.source is not None:
            self.summary["source_checkpoint"] = self.source.reference
            self.summary["stages"] = {SOURCE: dict(self.source.told)} if self.source.told else {}


class _Batches:
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


def _read_json(path: Path) -> dict[str, Any]:
    """summary.json or environment.json of an earlier start of this run; empty where it did not come so far."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def write_json(path: Path, values: Mapping[str, Any] | Sequence[Any], indent: int | None = 2) -> None:
    """Write through a sibling file, so that a reader never sees half of it."""
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_text(json.dumps(values, indent=indent, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(temporary, path)
