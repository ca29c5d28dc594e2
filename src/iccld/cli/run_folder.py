"""A run directory as the commands see it, before PyTorch is imported."""

from __future__ import annotations

import hashlib
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iccld.config import read_config
from iccld.errors import CheckpointError, ConfigError, nearest
from iccld.export.names import check_file, is_exported
from iccld.files import read_json
from iccld.progress import say
from iccld.runs.adapter_folder import find_adapter
from iccld.share.names import CONFIG, OWN, is_shared

if TYPE_CHECKING:
    from iccld.predictor import Predictor
    from iccld.runs import Standing


def refuse_other_than_run(run: Path, stage: str | None = None, adapter: str | None = None) -> None:
    """CheckpointError when the folder is no run (nor a shared model), or has nothing saved, nothing of the stage, or no such adapter."""
    if is_exported(run):
        check_file(run)
        if stage is not None or adapter is not None:
            raise ConfigError(f"{run} is an exported model of one stage; leave out --stage and --adapter")
        return
    if not run.is_dir():
        raise CheckpointError(f"{run} is no folder; name a run such as runs/demo")
    if is_shared(run):
        if adapter is not None:
            raise ConfigError(f"--adapter goes with a run; {run} is a shared model, which has none")
        return
    if not (run / "config.yaml").is_file():
        raise CheckpointError(f"{run} is no run: it has no config.yaml; name the folder that iccld adapt wrote")
    # A manifest is written last: without one no checkpoint is complete.
    if not any((run / "checkpoints").glob("*/*/manifest.json")):
        raise CheckpointError(f"{run} has no complete checkpoint; train it with iccld adapt --config {run / 'config.yaml'} --resume auto")
    saved = sorted({path.parts[-3] for path in (run / "checkpoints").glob("*/*/manifest.json")})
    if stage is not None and stage not in saved:
        raise CheckpointError(f"{run} has no checkpoint of stage {stage!r}{nearest(stage, saved)}; it has {', '.join(saved)}")
    if adapter is not None:
        find_adapter(run, adapter)


def local_folder(run: Path) -> Path:
    """The folder of a run or shared model; `owner/model[@revision]` of the hub is fetched, where it is no path here."""
    from iccld.share.hub import fetch, is_hub_name

    return fetch(str(run)) if not run.exists() and is_hub_name(str(run)) else run


def origin_of(run: Path) -> dict[str, Any]:
    """What a score says of the run, or shared model, it is of: {"method", "recipe", "seed", "commit"}."""
    if is_exported(run):
        return {"method": None, "recipe": None, "seed": None, "commit": None}
    if is_shared(run):
        told = read_json(run / CONFIG)[OWN]
        of_run = told.get("run") or {}
        return {"method": of_run.get("method"), "recipe": told.get("recipe"), "seed": of_run.get("seed"), "commit": told.get("commit")}
    config = read_config(run / "config.yaml")
    commit = read_json(run / "environment.json").get("commit")
    return {"method": config.method, "recipe": config.recipe, "seed": config.seed, "commit": commit}


def sampler_steps_of(run: Path, stage: str) -> int | None:
    """The steps that a diffusion stage of a run, or a shared model, samples in; None for any other."""
    if is_shared(run):
        told: int | None = read_json(run / CONFIG)[OWN].get("sampler_steps")
        return told
    scored: dict[str, Any] = (read_json(run / "summary.json").get("stages") or {}).get(stage) or {}
    return scored.get("sampler_steps")


def weights_identity(run: Path, adapter: str | None = None) -> str:
    """A short digest of every complete checkpoint's manifest, and of the adapter: it changes when either is trained further or again."""
    if is_exported(run):
        files = [file for file in (run, run.with_suffix(".bin")) if file.is_file()]
        return hashlib.sha256(b"".join(hashlib.sha256(file.read_bytes()).digest() for file in files)).hexdigest()[:16]
    if is_shared(run):
        return hashlib.sha256((run / CONFIG).read_bytes()).hexdigest()[:16]  # which holds the digest of the weights
    digest = hashlib.sha256()
    for manifest in sorted((run / "checkpoints").glob("*/*/manifest.json")):
        digest.update(manifest.relative_to(run).as_posix().encode() + manifest.read_bytes())
    if adapter is not None:
        digest.update(str(find_adapter(run, adapter).about["sha256"]).encode())
    return digest.hexdigest()[:16]


def open_predictor(arguments: Namespace) -> tuple[Predictor, Standing]:
    """The predictor as the run was scored, unless a flag of `parser._add_model` asks for something else, and how far the run has come.

    A run that is not finished is said to be so.  A shared folder and an exported file are opened too; `--runtime`, where the command has
    it, says what computes.
    """
    runtime = getattr(arguments, "runtime", None)
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
    if is_exported(arguments.run):
        from iccld.export import load_exported

        for name in ("weights", "sampler_steps", "iteration"):
            if getattr(arguments, name) is not None:
                raise ConfigError(f"{arguments.run} is an exported model; --{name} goes with the run")
        return load_exported(arguments.run, runtime, asked)
    if is_shared(arguments.run):
        from iccld.share.folder import load_shared, refuse_other_choice

        refuse_other_choice(arguments.run, arguments.stage, arguments.weights)
        if arguments.iteration is not None:
            raise ConfigError(f"--iteration goes with a run; {arguments.run} is a shared model, which holds one checkpoint")
        if arguments.sampler_steps is not None:
            raise ConfigError(f"--sampler_steps goes with a run; {arguments.run} is a shared model, whose steps are fixed")
        predictor, standing = load_shared(arguments.run, asked=asked)
    else:
        predictor, standing = load_with_standing(
            arguments.run,
            arguments.stage,
            arguments.weights,
            arguments.sampler_steps,
            asked=asked,
            adapter=arguments.adapter,
            iteration=arguments.iteration,
        )
    if not standing.is_finished:
        where = f"these are the weights of stage {standing.stage} after iteration {standing.iteration} of {standing.iterations}"
        say(f"warning: {arguments.run} is not finished: {where}")
    if runtime is not None and runtime != "torch":
        from iccld.export import on_runtime

        predictor = on_runtime(predictor, standing, runtime)
    return predictor, standing
