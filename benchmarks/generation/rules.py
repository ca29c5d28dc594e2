"""What the two stop rules measure: how far generated codes lie from real ones, and what a decoder learns from either."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generation.generator import fitted, windows
from generation.lines import tell
from generation.stack import Code, Material, Scenes, unstacked
from iccld.evaluation import Confusion
from iccld.evaluation.alignment import mmd2, proxy_a_distance
from iccld.labels import LabelSpace
from iccld.losses import cross_entropy
from iccld.training.engine import Engine

TILE = 12
"""Side of the tiles in which latents are compared beside whole pictures, cells."""
A_DISTANCE, POINTS = 0.5, 2.0
"""The two stop rules."""


# --- rule 1 -----------------------------------------------------------------------------------------------------------------


def tiles(codes: Tensor, side: int = TILE) -> Tensor:
    """Whole tiles of codes as rows, those of a picture one after the other: (N, C, h, w) -> (M, C, cells)."""
    side = min(side, *codes.shape[2:])
    cut = codes.float().unfold(2, side, side).unfold(3, side, side)  # (N, C, a, b, s, s)
    return cut.permute(0, 2, 3, 1, 4, 5).flatten(4).flatten(0, 2)


def distances(first: Tensor, second: Tensor, code: Code) -> dict[str, float]:
    """How well codes are told apart, by the same number of rows of each: `pictures` is what summary.json calls a_distance."""

    def means(codes: Tensor) -> Tensor:
        return codes[:, : code.latent].float().mean((2, 3))

    def spread(cut: Tensor) -> Tensor:
        return torch.cat([cut.mean(2), cut.std(2)], 1)

    a, b = means(first), means(second)
    told = {"a_distance_pictures": proxy_a_distance(a, b), "mmd_pictures": mmd2(a, b)}
    a, b = tiles(first), tiles(second)
    told["a_distance_tiles"] = proxy_a_distance(a[:, : code.latent].mean(2), b[:, : code.latent].mean(2))
    told["a_distance_tiles_all"] = proxy_a_distance(a.mean(2), b.mean(2))
    told["a_distance_tiles_latent_spread"] = proxy_a_distance(spread(a[:, : code.latent]), spread(b[:, : code.latent]))
    told["a_distance_tiles_all_spread"] = proxy_a_distance(spread(a), spread(b))
    return told


# --- rule 2 -----------------------------------------------------------------------------------------------------------------


@torch.no_grad()
def miou(decoder: nn.Module, scenes: Scenes, channels: Sequence[int], space: LabelSpace) -> float:
    """mIoU, %, of a decoder on real stacks, at the labels' size."""
    confusion = Confusion(space.num_classes)
    for stack, label in zip(scenes.stack, scenes.label, strict=True):
        features = unstacked(stack[None].float(), channels)
        logits = F.interpolate(
            decoder(features.latent, features.pyramid).float(), size=tuple(label.shape), mode="bilinear", align_corners=False
        )
        confusion.update(label.numpy(), logits.argmax(1)[0].to(torch.uint8).numpy())
    return confusion.scores(space).miou


def decoder_of(
    stack_at: Callable[[Tensor], Tensor], num: int, label: Tensor, material: Material, given: argparse.Namespace, seed: int
) -> nn.Module:
    """A decoder from scratch.  stack_at: rows of a (possibly generated) set -> (B, D, h, w)."""
    torch.manual_seed(seed)
    decoder = material.parts.make_segmenter().decoder.train()
    generator = torch.Generator().manual_seed(seed)
    engine = Engine(accelerator="cpu", precision="auto", num_threads=1)

    def loss_of(iteration: int) -> Tensor:
        rows = torch.randint(num, (given.decoder_batch,), generator=generator)
        stack, seen = windows(stack_at(rows), label[rows], torch.arange(len(rows)), given.window, generator)
        with engine.autocast():
            features = unstacked(stack, material.channels)
            return cross_entropy(decoder(features.latent, features.pyramid), seen.long(), class_weight=material.parts.class_weight)

    return fitted(decoder, loss_of, given.decoder_iterations, given.decoder_learning_rate)[0]


def learnt(
    name: str, stack_at: Callable[[Tensor], Tensor], label: Tensor, material: Material, given: argparse.Namespace
) -> dict[str, list[float]]:
    """mIoU on held-out source and on val pictures of decoders from scratch, one a seed.  Those of real stacks are kept."""
    file = None
    if given.keep is not None and name.startswith("real"):
        plan = (given.num, given.seed, given.decoder_iterations, given.decoder_batch, given.decoder_learning_rate, given.window)
        parts = "-".join(map(str, (given.run.resolve().parent.name, given.run.name, name.replace(" ", "_"), *plan, given.decoder_seeds)))
        file = given.keep / f"{parts}.json"
        if file.is_file():
            kept: dict[str, list[float]] = json.loads(file.read_text())
            tell("decoder", learnt_from=name, **kept, kept=True)
            return kept
    scores: dict[str, list[float]] = {"source_val": [], "val": []}
    start = time.process_time()
    for seed in range(given.decoder_seeds):
        decoder = decoder_of(stack_at, len(label), label, material, given, given.seed + seed)
        for role in scores:
            scores[role].append(miou(decoder, getattr(material, role), material.channels, material.parts.label_space))
    tell("decoder", learnt_from=name, **scores, seconds=time.process_time() - start)
    if file is not None:
        file.write_text(json.dumps(scores))
    return scores
