"""Score the stages of a run while they train and when they end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from iccld.assembly.objects import Data, optimisations
from iccld.assembly.scoring import scoring_of, scoring_predictor
from iccld.config import Config, parse_size
from iccld.data import FileDataset
from iccld.data.joined import JoinedDataset
from iccld.data.pairs import PairDataset
from iccld.evaluation import Confusion, Record, evaluate, own_means
from iccld.evaluation.evaluate import spread
from iccld.files import write_json
from iccld.measure.alignment import alignment, identity_gap
from iccld.measure.cost import num_parameters, prediction_time
from iccld.measure.remedies import memory_explained, scoring_remedies
from iccld.methods.common.protocol import DiffusionMethod, Method
from iccld.predictor import Predictor
from iccld.progress import say
from iccld.runs.data import fault
from iccld.training.engine import Engine
from iccld.training.loop import StageResult

PROJECTION = "projection.json"
"""Where each picture lies in the plane of the latents, by stage, beside summary.json."""

WARN_GAP = 0.01
"""An identity gap below this share means that step 2 returns what it is given."""


class StageScorer:
    """One run's ruler: the same predictor's settings, pictures and classes for every stage and method."""

    def __init__(self, config: Config, engine: Engine, run: Path, data: Data, pairs: PairDataset) -> None:
        self.config, self.engine, self.run, self.data, self.pairs = config, engine, run, data, pairs
        self.scoring = scoring_of(config, engine.format).told()

    @property
    def shown(self) -> FileDataset:
        """The pictures that a stage is shown and timed on: the validation split, or the target where there is none."""
        target = self.data.target
        if self.data.val is not None or not self.pairs.skip_errors:
            return target if self.data.val is None else self.data.val
        indices = spread(len(target), 2 * self.config.evaluation.num_pictures + 1)
        return target.subset([index for index in indices if fault(target, index) is None] or indices)

    def predictor(self, method: Method, weights: str | None = None, sampler_steps: int | None = None) -> Predictor:
        """The predictor that is scored, with the weights that the method declares unless others are named."""
        return scoring_predictor(self.config, method, weights or method.headline_weights, self.engine, sampler_steps)

    def evaluate(self, stage: str, method: Method, iteration: int) -> list[dict[str, Any]]:
        """Headline weights on the validation split; at the stage's end also the others, and the source's held-out part.

        One entry each for metrics.jsonl.  The confusion of every single picture is kept when the stage has ended.
        """
        headline = method.headline_weights
        is_end = iteration == optimisations(self.config)[stage].iterations
        asked: list[tuple[str, str, FileDataset | None]] = [(headline, "val", self.data.val)]
        if is_end:
            asked.append((_other(headline), "val", self.data.val))
        asked.append((headline, "source_val", self.data.source_val))
        entries = []
        for weights, split, dataset in asked:
            if dataset is None or (weights == "ema" and not method.ema_networks()):
                continue
            title = f"Scoring {stage} ({weights}, {split.replace('_', ' ')})"
            record = Record()
            with memory_explained(scoring_remedies):
                scores = evaluate(self.predictor(method, weights), dataset, self.data.label_space, title=title, observe=record.add)
            if is_end and (weights, split) == (headline, "val"):
                record.save(self.run / "confusions" / f"{stage}.npz")
            by_domain = {"domains": self._by_domain(record, dataset)} if isinstance(dataset, JoinedDataset) else {}
            told = {"weights": weights, "split": split, "miou": scores.miou, "iou": scores.iou, "scoring": self.scoring}
            entries.append(told | by_domain)
        return entries

    def _by_domain(self, record: Record, dataset: JoinedDataset) -> dict[str, Any]:
        """Folder -> {"miou", "num_images"} of each of several data sets."""
        found = {}
        for number, part in enumerate(dataset.parts):
            whole = Confusion(self.data.label_space.num_classes)
            for name, single in zip(record.names, record.confusions, strict=True):
                if name.startswith(f"{number}/"):
                    whole.merge(single)
            miou = whole.scores(self.data.label_space).miou if whole.matrix.any() else None
            found[str(part.root)] = {"miou": miou, "num_images": whole.num_images}
        return found

    def finish(self, stage: str, method: Method, result: StageResult) -> dict[str, Any]:
        """What summary.json says of a stage that has ended: the scores of its last evaluation, and what it costs."""
        by = {(entry["weights"], entry["split"]): entry for entry in result.last}
        headline = method.headline_weights
        val, trained, source_val = by.get((headline, "val")), by.get(("model", "val")), by.get((headline, "source_val"))
        told: dict[str, Any] = {
            "miou": val and val["miou"],
            "iou": val and val["iou"],
            "means": own_means(val["iou"], self.data.label_space) if val else {},
            "weights": headline,
            "scoring": (val or source_val or {}).get("scoring", self.scoring),
            "miou_model": trained and trained["miou"],
            "best": result.best if val else None,
            "iterations": result.iterations,
            "seconds": round(result.seconds, 3),
            "processor_seconds": result.processor_seconds and round(result.processor_seconds, 3),
            "peak_memory_gib": round(result.peak_memory_gib, 3),
        }
        if val and "domains" in val:
            told["domains"] = val["domains"]
        if source_val:
            told["source_validation"] = {"miou": source_val["miou"], "num_images": len(self.data.source_val or ())}
        if isinstance(method, DiffusionMethod) and method.samples:
            told |= self._finish_diffusion(stage, method)
        predictor = self.predictor(method)
        told["parameters"] = num_parameters(predictor)
        taken = prediction_time(predictor, self.shown)
        told["milliseconds_per_image"] = round(taken.milliseconds, 1)
        told["processor_milliseconds_per_image"] = None if taken.processor_milliseconds is None else round(taken.processor_milliseconds, 1)
        return told

    def _finish_diffusion(self, stage: str, method: DiffusionMethod) -> dict[str, Any]:
        """What only step 2 has: the identity gap, the domains' alignment, and mIoU by the number of DDIM steps on the same pictures."""
        predictor = self.predictor(method)
        gap = identity_gap(predictor, self.pairs)
        if gap < WARN_GAP:
            say(f"warning: identity_gap is {gap:.2%}: step 2 hands back the latent it is given, so it can change no mask")
        told: dict[str, Any] = {"identity_gap": gap, "sampler_steps": method.sampler_steps}
        told["alignment"], projection = alignment(predictor, self.pairs, parse_size(self.config.size.crop), self.config.seed)
        if projection:
            write_json(self.run / PROJECTION, {stage: projection}, indent=None)
        if self.data.val is None or not method.is_stepwise:
            return told
        by_steps = {}
        count = min(len(self.data.val), self.config.evaluation.compare_images)
        for steps in self.config.evaluation.compare_steps if count else ():
            other = self.predictor(method, sampler_steps=steps)
            scores = evaluate(other, self.data.val, self.data.label_space, title=f"Scoring {steps} DDIM steps", limit=count)
            by_steps[str(steps)] = scores.miou
        return told | {"miou_by_steps": by_steps, "miou_by_steps_images": count}


def _other(weights: str) -> str:
    return "model" if weights == "ema" else "ema"
