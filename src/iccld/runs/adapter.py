"""Train an adapter: step 2 of `iccld` on a new target, from the weights of a run that stays as it is."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

import iccld
from iccld.assembly.objects import Data, class_weights, make_engine, make_parts, open_data, pair_dataset
from iccld.assembly.scoring import scoring_of
from iccld.batch import DomainBatch
from iccld.config import Config, dump_config
from iccld.data.check import class_shares, class_statistics
from iccld.data.pairs import pair_loader
from iccld.errors import CheckpointError, ConfigError
from iccld.evaluation import evaluate, own_means
from iccld.files import sha256_of, sync, write_atomically, write_json
from iccld.measure.cost import num_parameters
from iccld.measure.remedies import memory_explained, training_remedies
from iccld.methods.common.without_encoder import WithoutEncoder, head_state
from iccld.predictor import Predictor
from iccld.progress import say
from iccld.runs.adapted import adapter_stage
from iccld.runs.adapter_config import METHOD, STAGE
from iccld.runs.adapter_folder import ABOUT, FORMAT, SUMMARY, WEIGHTS, find_adapter, place_of, put_in_place, workplace_of
from iccld.runs.base import CONFIG, digest_of, open_base
from iccld.runs.data import RANGES, data_digest, read_ranges, refuse_other_data, refuse_unlearnable, with_equal_sizes
from iccld.runs.provenance import environment
from iccld.runs.run import Batches, fingerprint
from iccld.runs.summary import protocol_of
from iccld.training import checkpoint
from iccld.training.allocator import keep_freed_memory
from iccld.training.engine import Engine
from iccld.training.lock import LOCK_NAME, lock_run
from iccld.training.loop import StageResult
from iccld.training.options import Hooks, LoopOptions
from iccld.training.stages import run_stages

FINISHED = "finished"
"""Folder of the workplace in which the adapter is put together."""


def train_adapter(run: Path, config: Config, stage: str | None = None, overwrite: bool = False) -> Path:
    """Train the adapter `config.name` of a run (`adapter_config`) and put it beside the run; returns its folder.

    stage: of the run, whose weights it starts from and belongs to; by default the last one that has a plain encoder and decoder.
    An interrupted training goes on with `runtime.resume` "auto", and starts anew with `overwrite`, which also replaces a finished
    adapter once the new one is whole.  CheckpointError, ConfigError, DataError in one line.
    """
    resume = config.runtime.resume == "auto"
    place, work = place_of(run, config.name), workplace_of(run, config.name)
    if place.exists() and not overwrite and not resume:
        raise ConfigError(f"adapter {config.name!r} of {run} exists; replace it with --overwrite, or choose another --adapter")
    if (work / CONFIG).exists() and not overwrite and not resume:
        raise ConfigError(f"adapter {config.name!r} of {run} was begun; go on with --resume auto, or start anew with --overwrite")
    keep_freed_memory()
    engine = make_engine(config, max_norm=config.runtime.clip_norm, max_skips=max(config.runtime.max_skips, 1))
    is_there = (work / CONFIG).exists()
    with lock_run(work):
        if overwrite and not resume:
            _clear(work)
        try:
            return _Training(engine, config, run, stage, work).train(place)
        except BaseException:
            if not is_there and not (work / CONFIG).exists():  # refused: nothing is left of it
                _leave(work)
            raise


def _clear(work: Path) -> None:
    """Empty the workplace, but for its lock."""
    for entry in work.iterdir():
        if entry.name != LOCK_NAME:
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def _leave(work: Path) -> None:
    shutil.rmtree(work, ignore_errors=True)
    with suppress(OSError):  # other adapters stay
        work.parent.rmdir()


@dataclass(frozen=True)
class _Score:
    """On the new target's validation pictures."""

    miou: float
    iou: Mapping[str, float | None]


class _Training:
    """One adapter's training."""

    def __init__(self, engine: Engine, config: Config, run: Path, stage: str | None, work: Path) -> None:
        self.began = time.monotonic()
        self.engine, self.config, self.run, self.work = engine, config, run, work
        self.base = open_base(run, stage)
        self.encoder_digest = digest_of(self.base.segmenter.encoder)
        begun = read_ranges(work) if config.runtime.resume == "auto" else None
        data = with_equal_sizes(open_data(config, begun), config.runtime.data_errors == "skip")
        if (of_run := read_ranges(run)) is not None:  # the source is read as the run read it
            data = replace(data, source=replace(data.source, wide=of_run["source"]))
        refuse_unlearnable(data)
        self.data: Data = data
        # Views that are kept are read once: pictures held in memory beside them would not be asked for again.
        is_kept = bool(config.settings.get("kept_views"))
        self.pairs = pair_dataset(config, data, cache_bytes=0) if is_kept else pair_dataset(config, data)
        weight = class_weights(class_statistics(data.source), config.sampling.class_balance) if config.sampling.class_balance else None
        self.parts = make_parts(config, data.label_space, None if weight is None else weight.to(engine.device), run)
        self.fingerprint = fingerprint(config, data.label_space) | {"data": data_digest(data), "base": self.base.reference}

    def train(self, place: Path) -> Path:
        """Train what is not trained, put the adapter together and in its place."""
        if place.exists() and self.config.runtime.resume == "auto" and not (self.work / CONFIG).exists():
            return self._finished_before(place)
        refuse_other_data(self.work, self.fingerprint["data"], 1)
        checkpoint.refuse_other_configuration(self.work, self.fingerprint)
        write_json(self.work / RANGES, {"source": self.data.source.wide, "target": self.data.target.wide}, indent=None)
        write_atomically(self.work / CONFIG, dump_config(self.config))
        stage = adapter_stage(self.config, self.parts, self.base)
        with memory_explained(lambda: training_remedies(self.config, self.engine)):
            trained = run_stages(
                [stage],
                self._loader,
                self._options(),
                Hooks(),
                engine=self.engine,
                run=self.work,
                target_loader=Batches(self.pairs, self.engine),
            )
        method = trained.method
        assert isinstance(method, WithoutEncoder)
        self._require_untouched(method)
        folder = self.work / FINISHED
        self._write(folder, method, trained.stages[STAGE])
        put_in_place(folder, place)
        shutil.rmtree(self.work, ignore_errors=True)
        return place

    def _finished_before(self, place: Path) -> Path:
        """A resume finds nothing to do; CheckpointError where it asks for another adapter than this."""
        about = find_adapter(self.run, place.name).about
        checkpoint.compare(place, about["fingerprint"], self.fingerprint)
        say(f"adapter {place.name} is finished")
        _leave(self.work)
        return place

    def _loader(self, stage: str, start: int, end: int) -> Iterable[DomainBatch]:
        return pair_loader(self.pairs, start, end, self.config.runtime.workers)

    def _options(self) -> LoopOptions:
        runtime = self.config.runtime
        return LoopOptions(
            seed=self.config.seed,
            log_every=runtime.log_every,
            checkpoint_every=runtime.checkpoint_every,
            keep_last=1,
            resume=True,  # of a workplace that is empty there is nothing to go on from
            fingerprint=self.fingerprint,
            class_shares=class_shares(self.data.source),
        )

    def _require_untouched(self, method: WithoutEncoder) -> None:
        """The run's encoder is what the adapter sits on: it must be what it was, bit for bit."""
        if digest_of(method.encoder) != self.encoder_digest:
            raise CheckpointError(f"{self.run}: training the adapter changed the encoder, so it would fit no run; leave the encoder frozen")

    def _write(self, folder: Path, method: WithoutEncoder, result: StageResult) -> None:
        """The adapter's folder, whole, in the workplace; says what it gained."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        scoring = scoring_of(self.config, self.engine.format)
        predictor = scoring.apply(method.predictor(method.headline_weights))
        state = {key: tensor.detach().cpu().contiguous().clone() for key, tensor in head_state(predictor.network).items()}
        save_file(state, folder / WEIGHTS)
        (folder / WEIGHTS).chmod(0o644)  # safetensors' 0600 would hide it from colleagues
        sync(folder / WEIGHTS)
        for name in (CONFIG, RANGES, "metrics.jsonl"):
            if (self.work / name).is_file():
                write_atomically(folder / name, (self.work / name).read_bytes())
        wall = time.monotonic() - self.began + (result.seconds if result.is_restored else 0)
        before, after = self._score(scoring.apply(self.base.predictor()), "run"), self._score(predictor, "adapter")
        made = environment(self.engine.device.type, *self.engine.format)
        told = {
            "weights": method.headline_weights,
            "scoring": scoring.told(),
            "iterations": result.iterations,
            "seconds": round(result.seconds, 3),
            "processor_seconds": None if result.processor_seconds is None else round(result.processor_seconds, 3),
            "peak_memory_gib": round(result.peak_memory_gib, 3),
            "parameters": num_parameters(predictor),
        }
        write_json(folder / SUMMARY, self._summary(told, made, before, after))
        size = sum(tensor.numel() for tensor in state.values())
        own = {"sha256": sha256_of(folder / WEIGHTS), "parameters": size, "wall_seconds": round(wall, 1), "environment": made}
        write_json(folder / ABOUT, self._about(own | {key: told[key] for key in ("iterations", "seconds")}))
        gained = (
            "" if before is None or after is None else f": {after.miou:.2f} mIoU on the validation pictures, {before.miou:.2f} without it"
        )
        say(f"adapter {self.config.name}{gained} ({size:,} numbers, {result.seconds:.0f} s of training)")

    def _about(self, own: Mapping[str, Any]) -> dict[str, Any]:
        """What adapter.json says."""
        return {
            "format": FORMAT,
            "name": self.config.name,
            "base": self.base.reference,
            "target": target_text(self.config),
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "iccld": iccld.__version__,
            **own,
            "fingerprint": self.fingerprint,
        }

    def _summary(self, told: Mapping[str, Any], made: Mapping[str, Any], before: _Score | None, after: _Score | None) -> dict[str, Any]:
        """What summary.json says: as a run's of its one stage, and the run's own scores on the same pictures as `base`."""
        scores: dict[str, Any] = {"miou": None, "iou": None, "means": {}}
        if after is not None:
            scores = {"miou": after.miou, "iou": after.iou, "means": own_means(after.iou, self.data.label_space)}
        return {
            "method": METHOD,
            "recipe": self.config.recipe,
            "seed": self.config.seed,
            "commit": made["commit"],
            "dirty": made["dirty"],
            "label_space": self.data.label_space.name,
            "protocol": protocol_of(self.config, self.data),
            "adapter": self.config.name,
            "base": {**self.base.reference, "miou": before and before.miou, "iou": before and before.iou},
            "headline": {"stage": STAGE, "weights": told["weights"], "miou": scores["miou"]},
            "stages": {STAGE: {**scores, **told}},
        }

    def _score(self, predictor: Predictor, who: str) -> _Score | None:
        """mIoU in percent and IoU by class on the validation pictures, None without any."""
        if self.data.val is None:
            return None
        self.engine.place(predictor)
        scores = evaluate(predictor, self.data.val, self.data.label_space, title=f"Scoring the {who}")
        return _Score(scores.miou, scores.iou)


def target_text(config: Config) -> str:
    """The new target in a word: its folder, or the world and number of drawn scenes."""
    drawn = config.target.generate
    return config.target.path or f"{drawn.num} scenes of {drawn.world}"
