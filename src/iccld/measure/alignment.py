"""Step 2 under the microscope: what its latents look like before and after, measured on a finished stage."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from iccld.data.pairs import PairDataset
from iccld.evaluation.alignment import mmd2, principal_plane, proxy_a_distance
from iccld.methods.common.mixing import plain_domains, whole_targets
from iccld.methods.common.parts import normalise
from iccld.models import DiffusionSegmenter
from iccld.predictor import Predictor
from iccld.progress import progress
from iccld.transforms import Draw

DOMAINS = ("source", "mixed", "target")

PICTURES = 64
"""Pictures of each domain that are compared."""

BATCHES = 40
"""Batches that may be gone through for them: a picture that was met before does not count again."""

FEWEST = 8
"""Pictures below which nothing is measured."""

GAP_ROWS = 16
"""Target pictures on which the identity gap of a finished stage is measured."""


@torch.no_grad()
def identity_gap(predictor: Predictor, pairs: PairDataset) -> float:
    """`identity_gap` on target pictures at the working size, with the predictor's own noise and number of steps."""
    network = _sampling(predictor)
    gaps: list[float] = []
    iteration = 0
    with progress("Measuring the identity gap", GAP_ROWS) as bar:
        while len(gaps) < GAP_ROWS:
            for part in whole_targets(pairs[iteration], predictor.size_multiple):
                images = normalise(part.to(_device(network)))
                gaps += network.identity_gap(images, predictor.noise_like(images)).tolist()
                bar.advance(len(images))
            iteration += 1
    return sum(gaps) / len(gaps)


@torch.no_grad()
def alignment(predictor: Predictor, pairs: PairDataset, crop: tuple[int, int], seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Distances between the domains' latents and predicted latents, and where each picture lies in the plane of both.

    A picture is the mean of its normalised latent over its cells, one figure a channel.  Returns what belongs into the summary
    and, beside it, the coordinates; with fewer than `FEWEST` different pictures their number alone.  All draws come from `seed`.
    """
    network = _sampling(predictor)
    rows: dict[str, list[Tensor]] = {"latent": [], "predicted": []}
    met: tuple[set[int], set[int]] = set(), set()
    with progress("Comparing the domains' latents", PICTURES) as bar:
        for iteration in range(BATCHES):
            batch = pairs[iteration]
            new = [_is_new(met, *indices) for indices in zip(batch.source_index.tolist(), batch.target_index.tolist(), strict=True)]
            if any(new):
                draw = Draw(torch.Generator().manual_seed(seed * BATCHES + iteration))
                images = normalise(plain_domains(batch, draw, crop).to(_device(network)))
                for kind, latent in zip(rows, network.latents(images, predictor.noise_like(images)), strict=True):
                    rows[kind].append(latent.float().mean((2, 3)).cpu().view(3, len(new), -1)[:, torch.tensor(new)])
                bar.advance(sum(new))
            if sum(part.shape[1] for part in rows["latent"]) >= PICTURES:
                break
    vectors = {kind: torch.cat(parts, 1)[:, :PICTURES] for kind, parts in rows.items()}  # (3, N, C)
    count = vectors["latent"].shape[1]
    return (_distances(vectors), _projection(vectors)) if count >= FEWEST else ({"pictures": count}, {})


def _distances(vectors: dict[str, Tensor]) -> dict[str, Any]:
    told: dict[str, Any] = {"pictures": vectors["latent"].shape[1]}
    for kind, domains in vectors.items():
        pairs = [((a, b), domains[DOMAINS.index(a)], domains[DOMAINS.index(b)]) for a, b in combinations(DOMAINS, 2)]
        told[kind] = {
            "a_distance": {f"{a}_{b}": round(proxy_a_distance(first, second), 4) for (a, b), first, second in pairs},
            "mmd": {f"{a}_{b}": round(mmd2(first, second), 5) for (a, b), first, second in pairs},
        }
    return told


def _projection(vectors: dict[str, Tensor]) -> dict[str, Any]:
    plane = principal_plane(torch.cat([domains.flatten(0, 1) for domains in vectors.values()]))
    placed = {
        kind: {name: [[round(value, 3) for value in point] for point in plane.place(domains[i]).tolist()] for i, name in enumerate(DOMAINS)}
        for kind, domains in vectors.items()
    }
    return {"explained": [round(share, 4) for share in plane.explained.tolist()], **placed}


def _is_new(met: tuple[set[int], set[int]], source: int, target: int) -> bool:
    """Whether neither picture was met before: the same one on both sides of a split would flatter the classifier."""
    if source in met[0] or target in met[1]:
        return False
    met[0].add(source)
    met[1].add(target)
    return True


def _sampling(predictor: Predictor) -> DiffusionSegmenter:
    network = predictor.network
    assert isinstance(network, DiffusionSegmenter)
    return network


def _device(network: DiffusionSegmenter) -> torch.device:
    return next(network.parameters()).device
