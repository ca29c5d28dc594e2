"""A run directory as the commands see it, before PyTorch is imported."""

from __future__ import annotations

import hashlib
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from iccld.errors import CheckpointError, nearest
from iccld.progress import say

if TYPE_CHECKING:
    from iccld.predictor import Predictor
    from iccld.runs import Standing


def refuse_other_than_run(run: Path, stage: str | None = None) -> None:
    """CheckpointError when the folder is no run, or has saved nothing yet, or nothing of the stage."""
    if not run.is_dir():
        raise CheckpointError(f"{run} is no folder; name a run such as runs/demo")
    if not (run / "config.yaml").is_file():
        raise CheckpointError(f"{run} is no run: it has no config.yaml; name the folder that iccld adapt wrote")
    # A manifest is written last: without one no checkpoint is complete.
    if not any((run / "checkpoints").glob("*/*/manifest.json")):
        raise CheckpointError(f"{run} has no complete checkpoint; train it with iccld adapt --config {run / 'config.yaml'} --resume auto")
    saved = sorted({path.parts[-3] for path in (run / "checkpoints").glob("*/*/manifest.json")})
    if stage is not None and stage not in saved:
        raise CheckpointError(f"{run} has no checkpoint of stage {stage!r}{nearest(stage, saved)}; it has {', '.join(saved)}")


def weights_identity(run: Path) -> str:
    """A short digest of every complete checkpoint's manifest: it changes when the run is trained further or again."""
    digest = hashlib.sha256()
    for manifest in sorted((run / "checkpoints").glob("*/*/manifest.json")):
        digest.update(manifest.relative_to(run).as_posix().encode() + manifest.read_bytes())
    return digest.hexdigest()[:16]


def open_predictor(arguments: Namespace) -> tuple[Predictor, Standing]:
    """The predictor as the run was scored, unless a flag of `parser._add_model` asks for something else, and how far the run has come.

    A run that is not finished is said to be so.
    """
    from iccld.doctor import require_matching_torchvision

    require_matching_torchvision()
    from iccld.assembly.scoring import Asked
    from iccld.runs import load_with_standing

    asked = Asked(
        precision=arguments.precision,
        size=arguments.size,
        window=arguments.window,
        stride=arguments.stride,
        scales=arguments.scales,
        flip=arguments.flip,
    )
    predictor, standing = load_with_standing(
        arguments.run, arguments.stage, arguments.weights, arguments.sampler_steps, asked=asked, iteration=arguments.iteration
    )
    if not standing.is_finished:
        where = f"these are the weights of stage {standing.stage} after iteration {standing.iteration} of {standing.iterations}"
        say(f"warning: {arguments.run} is not finished: {where}")
    return predictor, standing
