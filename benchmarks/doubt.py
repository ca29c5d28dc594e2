"""Does drawing a mask or noise a few times tell where a prediction is wrong, better than its own confidence or several views do?

    python benchmarks/doubt.py RUN... [--stage step2] [--num 60]

RUN: runs of `iccld` whose step 2 has a denoiser, with labelled `val` pictures; several runs are seeds of one recipe.  Nothing is written
into them.  On every val picture, with averaged weights:

    plain        one call of encoder and decoder
    masks K      the encoder once; K draws of step 2's mask, hidden cells filled by the denoiser, the mean of the K probabilities
    noise K      the same with one mask and K draws of the noise
    views K      encoder and decoder on K views: 1; 1 mirrored; 0.75; 1.25

Doubt of a pixel: one minus the probability of the class that is named (`class`), the mean's entropy, and the mutual information of class
and draw (entropy of the mean less the mean entropy; BALD).  Two kinds of error are to be found: those of the mean's own answer, and those
of the plain answer, which are the same pixels for every row.  AUROC and AUPR (average precision) of finding them, ECE over 15 bins of
confidence, mIoU of the mean, processor milliseconds a picture with one thread.  Differences from `plain`: 95 % interval over draws of
pictures.  Every second pixel of every second row counts for all but mIoU.  `ECE, tempered`: the logarithm of the mean times the factor that
suits it best on held-out source pictures (temperature scaling, Guo et al. 2017), one factor for each row, at no cost.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from iccld.assembly.objects import Data, open_data
from iccld.data import FileDataset
from iccld.evaluation import Confusion
from iccld.evaluation.evaluate import spread
from iccld.evaluation.unlabelled.calibration import fit_temperature
from iccld.evaluation.views import show_at, without_padding
from iccld.geometry import padded, scaled
from iccld.labels import IGNORE
from iccld.methods.common.iccld_step2 import Step2
from iccld.methods.common.latent_mask import draw_visible, hidden_levels
from iccld.methods.common.parts import normalise
from iccld.models import Denoiser, Features, Segmenter
from iccld.runs.base import open_run
from iccld.runs.data import read_ranges
from iccld.training import checkpoint, snapshot
from iccld.training.engine import Engine
from iccld.transforms import Draw

VIEWS = ((1.0, False), (1.0, True), (0.75, False), (1.25, False))
"""(scale, whether mirrored), in the order in which they are taken."""
BINS = 1000
"""Of doubt, with as many pixels in each, in which areas are summed."""
ECE_BINS = 15
Floats = npt.NDArray[np.float64]


# --- what is compared -------------------------------------------------------------------------------------------------------


class Way(NamedTuple):
    """title; K; the probabilities of each of the K answers to a picture: (1, 3, H, W) normalised, draw -> (K, classes, h, w)."""

    title: str
    num: int
    answers: Callable[[Tensor, Draw], Tensor]


class Network:
    """A finished step 2's averaged encoder, decoder and denoiser."""

    def __init__(self, step2: Step2) -> None:
        if step2.denoiser is None or step2.ema_denoiser is None:
            raise SystemExit("this step 2 has no denoiser (settings.fill mean): masks and noise have nothing to draw; give another run")
        average = step2.ema.module
        assert isinstance(average, Segmenter)
        self.segmenter = average
        self.step2 = step2
        denoiser = step2.ema_denoiser.module
        assert isinstance(denoiser, Denoiser)
        self.denoiser = step2.denoiser = denoiser  # `_denoise` asks it: the averaged weights answer, as everywhere here
        self.parts = step2.parts

    def plain(self, shown: Tensor, draw: Draw) -> Tensor:
        return self._softmax(self.segmenter(shown))

    def drawn(self, shown: Tensor, draw: Draw, count: int, masks: bool) -> Tensor:
        """The answers under `count` masks, or under one mask and as many draws of noise."""
        settings = self.step2.settings
        latent, pyramid = self.segmenter.encoder(shown)
        many = Features(latent.expand(count, -1, -1, -1), tuple(level.expand(count, -1, -1, -1) for level in pyramid))
        visible = draw_visible(many.latent if masks else latent, settings.mask_ratio, settings.mask_block, draw)
        visible = visible.expand(count, -1, -1, -1).contiguous()
        read = (
            many.pyramid if settings.mask_levels == "latent" else hidden_levels(tuple(each.contiguous() for each in many.pyramid), visible)
        )
        denoised = self.step2._denoise(many.latent, visible, draw)
        return self._softmax(self.segmenter.decoder(self.step2._filled(many.latent, visible, denoised.clean), read))

    def views(self, shown: Tensor, draw: Draw, count: int) -> Tensor:
        whole = (int(shown.shape[2]), int(shown.shape[3]))
        found: list[Tensor] = []
        for scale, mirrored in VIEWS[:count]:
            content = scaled(whole, scale)
            size = padded(content, self.parts.size_multiple)
            view = show_at(shown, content, size)
            logits = self.segmenter(view.flip(3) if mirrored else view).float()
            logits = without_padding(logits.flip(3) if mirrored else logits, (content[0], content[1]), size)
            cells = tuple(found[0].shape[2:]) if found else tuple(logits.shape[2:])
            if tuple(logits.shape[2:]) != cells:
                logits = F.interpolate(logits, size=cells, mode="bilinear", align_corners=False)
            found.append(self._softmax(logits))
        return torch.cat(found)

    def ways(self, counts: Sequence[int]) -> list[Way]:
        """Every row of the table."""
        rows = [Way("plain", 1, self.plain)]
        for title, masks in (("masks", True), ("noise", False)):
            for count in counts:
                rows.append(Way(title, count, partial(self.drawn, count=count, masks=masks)))
        return rows + [Way("views", count, partial(self.views, count=count)) for count in counts]

    @staticmethod
    def _softmax(logits: Tensor) -> Tensor:
        return logits.float().softmax(1)


# --- doubt and errors -------------------------------------------------------------------------------------------------------


def entropy(probability: Tensor) -> Tensor:
    """(..., K, H, W) -> (..., H, W), nats."""
    return -(probability * probability.clamp(min=1e-12).log()).sum(-3)


class Seen(NamedTuple):
    """A picture's counted pixels under one way.  wrong: (n,) bool, own and plain answer's.  doubt: by name, (n,) float32."""

    confidence: Tensor
    tempered: Tensor
    wrong: Tensor
    wrong_plain: Tensor
    doubt: dict[str, Tensor]
    prediction: Tensor


def seen(answers: Tensor, plain: Tensor, label: Tensor, factor: float = 1.0) -> Seen:
    """(K, C, h, w) probabilities, the plain answer's (1, C, h, w), (H, W) uint8 -> what is counted at the label's size.

    factor: of `tempered`.
    """
    size = (int(label.shape[0]), int(label.shape[1]))

    def at_size(maps: Tensor) -> Tensor:
        return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)[0]

    mean = at_size(answers.mean(0, keepdim=True))  # (C, H, W)
    information = at_size((entropy(answers.mean(0)) - entropy(answers).mean(0))[None, None])[0]
    confidence, chosen = mean.max(0)
    first = at_size(plain).argmax(0)
    doubt = {
        "class": 1 - confidence,
        "class_of_plain": 1 - mean.gather(0, first[None])[0],
        "entropy": entropy(mean) / math.log(len(mean)),
        "information": information,
    }
    counts = torch.zeros(size, dtype=torch.bool)
    counts[::2, ::2] = True
    counts &= label != IGNORE
    truth = label.long()
    picked = {name: values[counts].float() for name, values in doubt.items()}
    tempered = (factor * mean[:, counts].clamp(min=1e-12).log()).softmax(0).amax(0)
    return Seen(confidence[counts], tempered, (chosen != truth)[counts], (first != truth)[counts], picked, chosen.to(torch.uint8))


def areas(errors: Floats, rights: Floats) -> tuple[Floats, Floats]:
    """AUROC and average precision from counts in bins of rising doubt: (..., bins) twice -> (...,) twice.  A bin is one threshold."""
    errors, rights = errors[..., ::-1], rights[..., ::-1]  # the most doubtful first
    found, spoiled = errors.cumsum(-1), rights.cumsum(-1)
    total_wrong, total_right = found[..., -1:], spoiled[..., -1:]
    below = total_right - spoiled + 0.5 * rights
    auroc = (errors * below).sum(-1) / np.maximum(total_wrong * total_right, 1)[..., 0]
    precision = found / np.maximum(found + spoiled, 1)
    return auroc, (errors * precision).sum(-1) / np.maximum(total_wrong, 1)[..., 0]


def binned(doubts: Sequence[Tensor], wrongs: Sequence[Tensor]) -> tuple[Floats, Floats]:
    """Counts of errors and of right pixels of each picture in bins that hold about as many pixels: -> (N, bins) twice."""
    pooled = np.sort(torch.cat(list(doubts)).numpy())
    edges = np.unique(pooled[np.linspace(0, len(pooled) - 1, BINS + 1).astype(int)[1:-1]])
    counts = []
    for doubt, wrong in zip(doubts, wrongs, strict=True):
        place = np.searchsorted(edges, doubt.numpy(), side="right")
        counts.append([np.bincount(place[chosen], minlength=len(edges) + 1) for chosen in (wrong.numpy(), ~wrong.numpy())])
    both = np.array(counts, dtype=np.float64)
    return both[:, 0], both[:, 1]


def calibration(confidences: Sequence[Tensor], wrongs: Sequence[Tensor]) -> Floats:
    """What ECE sums, of each picture: pixels, right ones and confidence in each of 15 bins: -> (N, 3, 15)."""
    rows = []
    for confidence, wrong in zip(confidences, wrongs, strict=True):
        place = (confidence * ECE_BINS).long().clamp(max=ECE_BINS - 1).numpy()
        weights: list[Any] = [None, (~wrong).numpy(), confidence.double().numpy()]
        rows.append([np.bincount(place, weights=each, minlength=ECE_BINS) for each in weights])
    return np.array(rows, dtype=np.float64)


def ece(sums: Floats) -> Floats:
    """(..., 3, 15) -> (...,), percent."""
    count, right, confidence = sums[..., 0, :], sums[..., 1, :], sums[..., 2, :]
    gap: Floats = 100 * np.abs(right - confidence).sum(-1) / np.maximum(count.sum(-1), 1)
    return gap


def figures_of(rows: Sequence[Seen], draws: Floats) -> dict[str, Floats]:
    """Each figure on the whole split, then for each draw of pictures: draws (D, N) -> name -> (1 + D,), percent."""
    weights = np.concatenate([np.ones((1, len(rows))), draws])
    told = {}
    for name, confidences in (("ece", [row.confidence for row in rows]), ("ece_tempered", [row.tempered for row in rows])):
        sums = calibration(confidences, [row.wrong for row in rows])
        told[name] = ece(np.einsum("dn,nab->dab", weights, sums))
    for name in rows[0].doubt:
        kinds = [("own", [row.wrong for row in rows])] if name != "class_of_plain" else []
        kinds += [("plain", [row.wrong_plain for row in rows])] if name != "class" else []
        for kind, wrongs in kinds:
            errors, rights = binned([row.doubt[name] for row in rows], wrongs)
            auroc, precision = areas(weights @ errors, weights @ rights)
            told |= {f"auroc_{kind}_{name}": 100 * auroc, f"aupr_{kind}_{name}": 100 * precision}
    return told


# --- a run ------------------------------------------------------------------------------------------------------------------


def step2_of(run: Path, stage: str) -> Step2:
    method = open_run(run).stages[stage].make_method(None)
    if not isinstance(method, Step2):
        raise SystemExit(f"{run}: stage {stage} is a {type(method).__name__}, not step 2 of iccld; give --stage, or another run")
    snapshot.restore_networks(method, checkpoint.load(checkpoint.find(run, stage)))
    return method


def shown_of(dataset: FileDataset, index: int, network: Network) -> tuple[Tensor, Tensor]:
    """A picture at the working size, and its label at its own: -> (1, 3, H, W) normalised, (H', W') uint8."""
    image = dataset.read_image(index)
    content = network.parts.predictor(network.segmenter).content_size(*image.shape[:2])
    if content != padded(content, network.parts.size_multiple):
        raise SystemExit(f"{dataset.image_paths[index]}: its working size {content} is no multiple of {network.parts.size_multiple}")
    given = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None].float() / 255
    return normalise(show_at(given, content, content)), torch.from_numpy(dataset.read_label(index))


@torch.inference_mode()
def temperatures(network: Network, ways: Sequence[Way], data: Data, engine: Engine, seed: int) -> list[float]:
    """For each way the factor on its logarithm that suits held-out source pictures; 1 where there are none."""
    if data.source_val is None:
        return [1.0] * len(ways)
    said: list[list[Tensor]] = [[] for _ in ways]
    truths = []
    for index in range(len(data.source_val)):
        shown, label = shown_of(data.source_val, index, network)
        for number, way in enumerate(ways):
            with engine.autocast():
                mean = way.answers(shown, drawn_for(seed, index)).mean(0)[:, ::4, ::4]  # (C, h, w)
            small = F.interpolate(label[None, None], size=tuple(mean.shape[1:]), mode="nearest-exact")[0, 0]
            said[number].append(mean[:, small != IGNORE].T.clamp(min=1e-12).log())
        truths.append(small[small != IGNORE].long())
    return [fit_temperature(torch.cat(each), torch.cat(truths)) for each in said]


def drawn_for(seed: int, index: int) -> Draw:
    """The draws of a picture, the same for every way."""
    return Draw(torch.Generator().manual_seed(seed * 1_000_003 + index))


@torch.inference_mode()
def study(run: Path, given: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each way: its figures, and the difference from plain with its interval."""
    config = open_run(run).config
    data = open_data(config, read_ranges(run), tells=False)
    if data.val is None or not data.val.has_labels:
        raise SystemExit(f"{run}: has no labelled val pictures to find errors on; train with val.path")
    engine = Engine(accelerator="cpu", precision="auto", num_threads=1)
    network = Network(step2_of(run, given.stage))
    for module in (network.segmenter, network.denoiser):
        engine.place(module.eval())
    if given.mask_ratio is not None:
        network.step2.settings = replace(network.step2.settings, mask_ratio=given.mask_ratio)
    ways = network.ways(given.draws)
    factors = temperatures(network, ways, data, engine, given.seed)
    rows: list[list[Seen]] = [[] for _ in ways]
    seconds: list[list[float]] = [[] for _ in ways]
    confusions = [Confusion(data.label_space.num_classes) for _ in ways]
    for index in spread(len(data.val), given.num):
        shown, label = shown_of(data.val, index, network)
        plain = None
        for number, way in enumerate(ways):
            draw = drawn_for(given.seed, index)
            start = time.process_time()
            with engine.autocast():
                answers = way.answers(shown, draw)
            seconds[number].append(time.process_time() - start)
            plain = answers if plain is None else plain
            found = seen(answers, plain, label, factors[number])
            confusions[number].update(label.numpy(), found.prediction.numpy())
            rows[number].append(found._replace(prediction=torch.empty(0)))
    generator = np.random.default_rng(0)
    count = len(rows[0])
    draws = generator.multinomial(count, [1 / count] * count, size=given.resamples).astype(np.float64)
    base = figures_of(rows[0], draws)
    told = []
    for way, each, spent, confusion, factor in zip(ways, rows, seconds, confusions, factors, strict=True):
        figures = figures_of(each, draws)
        row: dict[str, Any] = {"run": run.name, "way": way.title, "k": way.num, "ms": round(1000 * float(np.median(spent)), 1)}
        row |= {"miou": round(confusion.scores(data.label_space).miou, 2), "factor": round(factor, 3)}
        for name, values in figures.items():
            other = base[held_against(name)]
            low, high = np.quantile(values[1:] - other[1:], (0.025, 0.975))
            row[name] = round(float(values[0]), 3)
            row[f"{name}_over_plain"] = [round(float(each), 3) for each in (values[0] - other[0], low, high)]
        told.append(row)
    return told


def held_against(name: str) -> str:
    """Plain's figure beside another's: ECE, or one minus its largest probability, finding the same kind of error."""
    if name.startswith("ece"):
        return name
    measure, whose = name.split("_")[:2]
    return f"{measure}_own_class" if whose == "own" else f"{measure}_plain_class_of_plain"


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Means over runs; in brackets the difference from plain, run by run where there are several, else with its interval."""
    runs = list(dict.fromkeys(row["run"] for row in rows))
    names = (
        "ece",
        "ece_tempered",
        "auroc_own_class",
        "aupr_own_class",
        "auroc_plain_class_of_plain",
        "aupr_plain_class_of_plain",
        "auroc_plain_entropy",
        "auroc_plain_information",
    )
    titles = (
        "ECE",
        "ECE, tempered",
        "AUROC, own",
        "AUPR, own",
        "AUROC, plain's errors",
        "AUPR, plain's errors",
        "by entropy",
        "by information",
    )
    lines = ["| answer | K | ms | mIoU | " + " | ".join(titles) + " |", "|---|---:|---:|---:|" + "---:|" * len(names)]
    for way, k in dict.fromkeys((row["way"], row["k"]) for row in rows):
        same = [row for row in rows if (row["way"], row["k"]) == (way, k)]
        cells = []
        for name in names:
            value = np.mean([row[name] for row in same])
            differences = [row[f"{name}_over_plain"] for row in same]
            if len(runs) == 1:
                gain, low, high = differences[0]
                cells.append(f"{value:.2f} ({gain:+.2f} [{low:.2f}, {high:.2f}])")
            else:
                gains = [each[0] for each in differences]
                cells.append(f"{value:.2f} ({np.mean(gains):+.2f}; {', '.join(f'{gain:+.2f}' for gain in gains)})")
        ms, miou = (np.mean([row[key] for row in same]) for key in ("ms", "miou"))
        lines.append(f"| {way} | {k} | {ms:.0f} | {miou:.2f} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--stage", default="step2")
    parser.add_argument("--num", type=int, default=60, help="val pictures at most, evenly spread")
    parser.add_argument("--draws", type=int, nargs="+", default=[2, 4], help="K of masks, noise and views")
    parser.add_argument("--mask_ratio", type=float, default=None, help="share of blocks that a mask hides, instead of the run's own")
    parser.add_argument("--resamples", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    if max(given.draws) > len(VIEWS):
        raise SystemExit(f"--draws {max(given.draws)}: there are {len(VIEWS)} views; use at most as many")
    torch.set_num_threads(1)
    rows = []
    for run in given.runs:
        for row in study(run, given):
            print(json.dumps(row), flush=True)
            rows.append(row)
    print(f"\n{table(rows)}")


if __name__ == "__main__":
    main()
