"""A predictor <-> a folder of model.safetensors, config.json, preprocessor_config.json and README.md."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from iccld import __version__
from iccld.assembly.networks import ARCHITECTURE as ENCODER
from iccld.assembly.networks import build_networks
from iccld.assembly.scoring import Asked, ask
from iccld.config import Config, config_from, dump_config, read_config
from iccld.config.network import EFFICIENTNETS
from iccld.errors import CheckpointError, ConfigError
from iccld.files import read_json, sync, write_atomically, write_json
from iccld.labels import LabelSpace
from iccld.methods import METHODS, method_names
from iccld.predictor import Predictor
from iccld.runs.base import predictor_of, stages_of
from iccld.runs.load import Standing, settled
from iccld.share.card import write_card
from iccld.share.described import apply_described, described, described_classes, id2label, read_classes, size_rule
from iccld.share.names import (
    ARCHITECTURE,
    CARD,
    CONFIG,
    FILES,
    FORMAT,
    LARGEST_CONFIG,
    OWN,
    PREPROCESSING,
    WEIGHTS,
    is_shared,
    public_name,
)
from iccld.training.checkpoint import storable

KEPT = ("method", "seed", "network", "settings", "stages", "augmentation", "size")
"""Sections of a run's configuration that its networks are made from.  Folders of data and of this machine are not among them."""


def share_model(run: Path, predictor: Predictor, standing: Standing, folder: Path, licence: str | None = None) -> Path:
    """Write a run's predictor, as it is set, into `folder` for others to load; returns the folder.

    licence: its name in the card (an SPDX id, or any word); None takes what data and encoder leave, see `card.licence_of`.
    It is written beside its place and then put into it.  ConfigError for a method of another package, which nobody else could load, and
    for a folder that holds anything else.  CheckpointError when it cannot be written.
    """
    folder = Path(folder)
    refuse_folder(folder)
    if standing.adapter is not None:
        raise ConfigError(f"adapter {standing.adapter!r} of {run} is not shared: the card would tell of the run's target; share the run")
    config = read_config(run / "config.yaml")
    if config.method not in method_names():
        raise ConfigError(
            f"{run}: its method {config.method} has no name that others could load; "
            "make it an entry point in iccld.methods (docs/add-a-method.md)"
        )
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as made:
            there = Path(made)
            save_file(storable(predictor.network.state_dict()), there / WEIGHTS, metadata={"format": "pt"})
            (there / WEIGHTS).chmod(0o644)  # safetensors writes for the owner alone
            sync(there / WEIGHTS)
            write_json(there / PREPROCESSING, _preprocessing(predictor))
            if (run / ENCODER / "config.json").is_file():
                write_atomically(there / ARCHITECTURE, (run / ENCODER / "config.json").read_bytes())
            write_card(there / CARD, run, config, predictor, standing, licence)
            commit = read_json(run / "environment.json").get("commit")
            told = _config(config, predictor, standing) | {"commit": commit, "sha256": _digest(there / WEIGHTS)}
            names = id2label(predictor.label_space)
            head = {"model_type": OWN, "architectures": [type(predictor.network).__name__]}
            labels = {"id2label": {str(k): name for k, name in names.items()}, "label2id": {name: k for k, name in names.items()}}
            write_json(there / CONFIG, {**head, **labels, OWN: told})
            put_in_place(there, folder)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{folder}: cannot be written ({error}); choose another folder or make room") from error
    return folder


def refuse_folder(folder: Path) -> None:
    """ConfigError when a folder holds anything but an earlier shared model: it would be mixed with what is there."""
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file; name a folder for the shared model")
    if folder.is_dir() and any(folder.iterdir()) and not is_shared(folder):
        raise ConfigError(f"{folder} holds other files; name a new folder for the shared model")


def put_in_place(made: Path, folder: Path) -> None:
    """Move a folder's files into another one, config.json last: until then, a reader finds the old digest beside the new weights."""
    for name in FILES:
        if (made / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            os.replace(made / name, folder / name)
        else:
            (folder / name).unlink(missing_ok=True)
    sync(folder)


def copy_shared(source: Path, folder: Path) -> Path:
    """A shared model once more, byte by byte; returns the new folder.  CheckpointError when the source is damaged."""
    read_shared_config(source)
    refuse_folder(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as made:
            for name in FILES:
                if (source / name).is_file():
                    (Path(made) / name).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(source / name, Path(made) / name)
            put_in_place(Path(made), folder)
    except OSError as error:
        raise CheckpointError(f"{folder}: cannot be written ({error}); choose another folder or make room") from error
    return folder


def load_shared(folder: Path, device: str = "auto", asked: Asked | None = None) -> tuple[Predictor, Standing]:
    """The predictor that `share_model` wrote, bit for bit, in evaluation mode, and where its run stood.

    asked: what it should do instead of what its run was scored with.  Nothing but safetensors and JSON is read.  CheckpointError names the
    file that is missing, damaged or made by another release.
    """
    told = read_shared_config(folder)
    where = str(folder / CONFIG)
    space = read_classes(told.get("label_space"), where)
    if told["id2label"] != id2label(space):
        raise CheckpointError(f"{where}: id2label and the label space name other classes; fetch it again")
    config = _read_run_config(told, where, folder)
    weights = _checked_weights(folder, told)
    predictor = _network(config, space, folder, told, where, weights)
    standing_told = told["standing"]
    try:
        _load_weights(predictor.network, weights)
        wide = apply_described(told["predictor"], predictor, where)
        standing = Standing(**{**standing_told, "wide": wide})
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{where}: is damaged ({type(error).__name__}: {error}); fetch it again") from None
    ask(predictor, asked, device)
    return settled(predictor, asked or Asked(), device), standing


def refuse_other_choice(folder: Path, stage: str | None, weights: str | None) -> None:
    """ConfigError when a stage or weights are asked for that are not those that were shared."""
    told = read_shared_config(folder)["standing"]
    for name, asked in (("stage", stage), ("weights", weights)):
        if asked is not None and asked != told.get(name):
            raise ConfigError(f"{folder} is a shared model of {name} {told.get(name)} alone; leave out {name}, or load the run")


def read_shared_config(folder: Path) -> dict[str, Any]:
    """What config.json tells of the model, with `id2label` by number again; CheckpointError for anything but this release's format."""
    file = folder / CONFIG
    try:
        if file.stat().st_size > LARGEST_CONFIG:
            raise CheckpointError(f"{file}: has {file.stat().st_size} bytes, and a model's config has less than {LARGEST_CONFIG}")
        content = json.loads(file.read_text(encoding="utf-8"))
        told: dict[str, Any] = dict(content[OWN])
        told["id2label"] = {int(key): str(name) for key, name in content["id2label"].items()}
        told["format"], told["predictor"], told["standing"], told["run"] = (told[key] for key in ("format", "predictor", "standing", "run"))
    except FileNotFoundError:
        raise CheckpointError(f"{folder}: has no {CONFIG}; name a folder that iccld share wrote") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{file}: is no config that iccld share wrote ({type(error).__name__}: {error}); fetch it again") from None
    if told["format"] != FORMAT:
        raise CheckpointError(f"{file}: has format {told['format']!r}, this release reads {FORMAT}; use iccld {told.get('version')}")
    return told


def _config(config: Config, predictor: Predictor, standing: Standing) -> dict[str, Any]:
    """What stands in config.json beside transformers' keys."""
    run = {key: value for key, value in yaml.safe_load(dump_config(config)).items() if key in KEPT}
    for key in ("encoder", "autoencoder"):  # a folder of this machine is nobody's business, and is not needed for reading
        run["network"][key] = public_name(run["network"][key])
    sampler = getattr(predictor.network, "sampler", None)
    return {
        "format": FORMAT,
        "version": __version__,
        "recipe": config.recipe,
        "standing": standing.as_fields(),
        "sampler_steps": getattr(sampler, "num_steps", None),
        "label_space": described_classes(predictor.label_space),
        "predictor": described(predictor, standing.wide),
        "run": run,
    }


def _preprocessing(predictor: Predictor) -> dict[str, Any]:
    """In transformers' words where it has them; the size rule, which it has not, in words and numbers."""
    return {
        "do_convert_rgb": True,
        "do_resize": True,
        "size_rule": size_rule(predictor),
        "resample": 2,  # PIL's bilinear
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(predictor.mean),
        "image_std": list(predictor.std),
    }


def _read_run_config(told: Mapping[str, Any], where: str, folder: Path) -> Config:
    run = told["run"]
    if not isinstance(run, dict) or set(run) != set(KEPT):
        raise CheckpointError(f"{where}: does not say how its networks are made; fetch it again")
    if run["method"] not in method_names():
        known = ", ".join(METHODS)
        raise CheckpointError(f"{where}: is of method {run['method']!r}; this installation has {known}; install the package that adds it")
    try:
        config = config_from({"recipe": "shared", "name": "shared", **run}, where)
    except ConfigError as error:
        raise CheckpointError(str(error)) from None
    if config.network.encoder and config.network.encoder not in EFFICIENTNETS:
        _refuse_code(folder)
    return config


def _refuse_code(folder: Path) -> None:
    """CheckpointError unless the encoder's configuration is there and names no code of its own."""
    file = folder / ARCHITECTURE
    try:
        if file.stat().st_size > LARGEST_CONFIG:
            raise ValueError("it is too long")
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{file}: is missing or damaged ({error}); fetch it again") from None
    if not isinstance(content, dict) or "auto_map" in content:
        raise CheckpointError(f"{file}: asks for code of its own, which is never run; use a model of transformers' own architectures")


def _checked_weights(folder: Path, told: Mapping[str, Any]) -> Path:
    """The file of weights, if it is there and is the one that config.json means."""
    file = folder / WEIGHTS
    if not file.is_file():
        pickles = [path.name for path in sorted(folder.glob("*")) if path.suffix in (".bin", ".pt", ".pth", ".pkl", ".ckpt")]
        found = f"; {pickles[0]} is a pickle, which can run code and is never read" if pickles else ""
        raise CheckpointError(f"{folder}: has no {WEIGHTS}{found}; fetch the model again")
    if _digest(file) != told.get("sha256"):
        raise CheckpointError(f"{file}: is damaged (its SHA-256 is not the one in {CONFIG}); fetch the model again")
    return file


def _network(config: Config, space: LabelSpace, folder: Path, told: Mapping[str, Any], where: str, weights: Path) -> Predictor:
    """The stage's predictor with random weights, of no more parameters than the file of weights holds."""
    try:
        _refuse_larger(config, space, folder, weights)
        stage, kind, steps = told["standing"]["stage"], told["standing"]["weights"], told["sampler_steps"]
        made = stages_of(config, space, folder)
        return predictor_of(made[stage].make_method(None), str(kind), steps)
    except CheckpointError:
        raise
    except (ConfigError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{where}: no network can be made of it ({type(error).__name__}: {error}); fetch it again") from None


def _refuse_larger(config: Config, space: LabelSpace, folder: Path, weights: Path) -> None:
    """CheckpointError when the configuration asks for a larger segmenter than the file holds: counted without taking the memory."""
    import torch

    try:
        with torch.device("meta"):
            segmenter = build_networks(config.network, space.num_classes, folder).make_segmenter()
        needed = sum(parameter.numel() for parameter in segmenter.parameters())
    except NotImplementedError:  # a backbone that asks for values while it is made; its own configuration bounds it
        return
    with _opened(weights) as stored:
        names = stored.keys()
        there = sum(math.prod(stored.get_slice(name).get_shape()) for name in names)
    if needed > there:
        raise CheckpointError(f"{weights}: holds {there} numbers, but {CONFIG} describes a network of {needed}; fetch the model again")


def _load_weights(network: nn.Module, file: Path) -> None:
    """Each number of the file into the network, none left over; CheckpointError names what differs."""
    try:
        network.load_state_dict(load_file(file), strict=True)
    except RuntimeError as error:
        problem = " ".join(str(error).split())[:300]
        raise CheckpointError(f"{file}: does not fit the network that {CONFIG} describes ({problem}); fetch the model again") from None


def _opened(file: Path) -> Any:
    try:
        return safe_open(file, framework="pt")
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file}: is no safetensors file ({error}); fetch the model again") from None


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
