"""The model card, README.md: what huggingface_hub's ModelCard reads at its head, and below it what the run itself tells."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from iccld.config import Config, DomainConfig
from iccld.config.network import EFFICIENTNETS
from iccld.files import read_json, write_atomically
from iccld.models.efficientnet import LICENCE as EFFICIENTNET_LICENCE
from iccld.predictor import Predictor
from iccld.runs.load import Standing
from iccld.share.described import size_rule
from iccld.share.names import public_name

TERMS = {
    "gta5": "GTA5 (Richter et al. 2016): for research and education",
    "synthia": "SYNTHIA (Ros et al. 2016): CC BY-NC-SA 3.0",
    "synthia_seqs": "SYNTHIA (Ros et al. 2016): CC BY-NC-SA 3.0",
    "cityscapes": "Cityscapes (Cordts et al. 2016): not for commercial use",
    "kitti": "KITTI (Geiger et al. 2012): CC BY-NC-SA 3.0",
    "acdc": "ACDC (Sakaridis et al. 2021): not for commercial use",
    "mapillary": "Mapillary Vistas (Neuhold et al. 2017): CC BY-NC-SA 4.0 in its research edition",
}
"""Layout -> what its publishers allow, if the pictures are theirs: a layout does not say whose pictures lie in it."""

DRAWN = "drawn by iccld, without terms"
WORST = 5
"""Classes that are named as failing."""
AT_ZERO = 1.0
"""Percent of IoU below which a class counts as not learned."""


def write_card(file: Path, run: Path, config: Config, predictor: Predictor, standing: Standing, licence: str | None) -> None:
    """Write the card of a run's predictor.  licence: as in `licence_of`."""
    summary, environment = read_json(run / "summary.json"), read_json(run / "environment.json")
    stage = (summary.get("stages") or {}).get(standing.stage) or {}
    parts = [
        _opening(config, predictor, standing),
        _use(),
        _pictures(predictor),
        _data(config),
        _scores(summary, stage, config, standing),
        _failing(stage),
        _making(environment, config),
    ]
    head = _head(config, stage, licence, run.resolve().name)
    write_atomically(file, f"---\n{head}\n---\n\n" + "\n\n".join(parts) + "\n")


def licence_of(config: Config) -> str | None:
    """apache-2.0 where nothing but scenes drawn by iccld and Apache-licensed weights went in; None where others have a say."""
    drawn = all(domain.generate.num > 0 for domain in (config.source, config.target))
    free = not config.network.autoencoder and config.network.encoder in ("", *EFFICIENTNETS)
    return "apache-2.0" if drawn and free else None


def _head(config: Config, stage: Mapping[str, Any], licence: str | None, name: str) -> str:
    """The YAML of the card, made by huggingface_hub's own classes."""
    from huggingface_hub import EvalResult, ModelCardData

    chosen = licence or licence_of(config)
    results = None
    if stage.get("miou") is not None:
        dataset = _data_name(config.val)
        results = [
            EvalResult(
                task_type="image-segmentation",
                dataset_type=_slug(dataset),
                dataset_name=dataset,
                dataset_split=config.val.split,
                metric_type="mean_iou",
                metric_name="mIoU, percent",
                metric_value=round(float(stage["miou"]), 2),
            )
        ]
    data = ModelCardData(
        license=chosen or "other",
        license_name=None if chosen else "terms-of-data-and-weights",
        license_link=None if chosen else "README.md",
        library_name="iccld",
        pipeline_tag="image-segmentation",
        tags=["semantic-segmentation", "domain-adaptation", config.method],
        base_model=config.network.encoder if "/" in config.network.encoder and not Path(config.network.encoder).exists() else None,
        model_name=name,
        eval_results=results,
    )
    return data.to_yaml()


def _opening(config: Config, predictor: Predictor, standing: Standing) -> str:
    space = predictor.label_space
    size = f"{sum(parameter.numel() for parameter in predictor.parameters()) / 1e6:.1f} million parameters"
    what = "A ceiling, which learnt from the target's own labels: method" if config.target.truth else "Method"
    warning = "" if standing.is_finished else f" Its training is not finished: iteration {standing.iteration} of {standing.iterations}."
    return (
        f"# Semantic segmentation, adapted from labelled {_short(config.source)} to {_short(config.target)}\n\n"
        f"{what} `{config.method}` of iccld, stage `{standing.stage}`, `{standing.weights}` weights, {size}.{warning}\n"
        f"It names {space.num_classes} classes: {', '.join(space.names)}."
    )


def _use() -> str:
    return (
        "## Use\n\n```python\nimport iccld\n\nmodel = iccld.load('FOLDER')  # or 'owner/model@revision' of the hub\n"
        "result = model.segment('street.jpg')  # result.labels, result.confidence, result.names\n```\n\n"
        "```sh\niccld predict FOLDER PICTURES --out DIR\niccld evaluate FOLDER --data PATH --split val\n"
        "iccld export FOLDER --format onnx --out model.onnx\n```"
    )


def _pictures(predictor: Predictor) -> str:
    mean, std = (", ".join(f"{value:g}" for value in values) for values in (predictor.mean, predictor.std))
    views = f" Views: scales {', '.join(f'{scale:g}' for scale in predictor.scales)}{', each mirrored too' if predictor.flip else ''}."
    return (
        "## Pictures\n\n"
        f"RGB in 0..1, minus mean ({mean}), over standard deviation ({std}). Then: {size_rule(predictor)['words']}. "
        f"Window: {'the whole picture' if predictor.window is None else 'x'.join(map(str, predictor.window))}.{views} "
        f"Computed in {predictor.precision}."
    )


def _data(config: Config) -> str:
    rows = [
        ("source, with labels", config.source),
        ("target, with labels: a ceiling, no adaptation" if config.target.truth else "target, without labels", config.target),
        ("validation, with labels", config.val),
    ]
    lines = [f"| {role} | {_data_name(domain)} | {_terms(domain)} |" for role, domain in rows if domain.is_given]
    table = "\n".join(["| role | data | terms |", "|---|---|---|", *lines])
    return f"## Data and weights\n\n{table}\n\n{_encoder(config)}"


def _encoder(config: Config) -> str:
    encoder = config.network.encoder or config.network.autoencoder
    if not encoder:
        return "The networks started from random weights."
    terms = f"licence {EFFICIENTNET_LICENCE}, trained on ImageNet" if encoder in EFFICIENTNETS else _local_licence(encoder)
    return f"The encoder started from `{public_name(encoder)}`: {terms}."


def _local_licence(name: str) -> str:
    """The licence of pre-trained weights as their folder, or the hub's cache, tells it; no network is asked."""
    from huggingface_hub import snapshot_download

    from iccld.models.hub import UNKNOWN_LICENCE, licence

    folder = Path(name).expanduser()
    try:
        model, _, revision = name.partition("@")
        found = folder if folder.is_dir() else Path(snapshot_download(model, revision=revision or None, local_files_only=True))
        told = licence(found)
    except Exception:  # the cache lacks it: the hub's client has several words for that
        told = UNKNOWN_LICENCE
    return f"{told}; ask whoever published it" if told == UNKNOWN_LICENCE else told


def _scores(summary: Mapping[str, Any], stage: Mapping[str, Any], config: Config, standing: Standing) -> str:
    protocol = summary.get("protocol") or {}
    if stage.get("miou") is None:
        held = stage.get("source_validation")
        known = f" On {held['num_images']} held-out source pictures it reaches {held['miou']:.2f} mIoU." if held else ""
        return f"## Scores\n\nThe target has no labels, so no score of the target is known.{known} Seed {config.seed}."
    rows = [
        f"| {name} | {told['weights']} | {told['miou']:.2f} | {told['iterations']} |"
        for name, told in (summary.get("stages") or {}).items()
        if told.get("miou") is not None
    ]
    height, width = protocol.get("ground_truth_size") or (0, 0)
    asked = "" if standing.weights == stage.get("weights") else f" These are the scores of the `{stage.get('weights')}` weights."
    per_class = " · ".join(f"{name} {value:.1f}" for name, value in (stage.get("iou") or {}).items() if value is not None)
    return (
        "## Scores\n\n| stage | weights | mIoU % | iterations |\n|---|---|---|---|\n" + "\n".join(rows) + "\n\n"
        f"{protocol.get('num_images')} pictures of split {protocol.get('split')}, ground truth of {height}x{width}, window "
        f"{_window(protocol.get('window'))}; logits resized to the ground truth's size, then the largest class; mean over the classes that "
        f"occur in truth or predictions; last iteration, not the best. Seed {config.seed}: one run, so nothing is known here of the spread "
        f"between seeds.{asked}\n\nIoU % by class: {per_class}."
    )


def _failing(stage: Mapping[str, Any]) -> str:
    known = {name: value for name, value in (stage.get("iou") or {}).items() if value is not None}
    lines = []
    if known:
        worst = sorted(known, key=lambda name: known[name])[:WORST]
        lines.append("The worst classes are " + ", ".join(f"{name} ({known[name]:.1f})" for name in worst) + ".")
        if zero := [name for name in known if known[name] < AT_ZERO]:
            lines.append(f"Not learned at all (IoU below {AT_ZERO:g} %): {', '.join(zero)}.")
        if absent := [name for name in stage["iou"] if name not in known]:
            lines.append(f"Not scored, since they occur nowhere in the validation pictures: {', '.join(absent)}.")
    else:
        lines.append("Which classes fail is not known: there were no labels to score against.")
    lines.append(
        "Other cameras, places, weather or seasons than those of the target were not tried. Not for use where safety depends on it."
    )
    return "## What fails\n\n" + " ".join(lines)


def _making(environment: Mapping[str, Any], config: Config) -> str:
    commit = environment.get("commit")
    changed = " with changed files" if environment.get("dirty") else ""
    made = f"iccld {environment.get('iccld', 'of an unknown version')}, " + (f"commit `{commit}`{changed}" if commit else "no commit known")
    command = environment.get("command")
    shown = _public_command(command) if command else f"iccld adapt --recipe {config.recipe} --seed {config.seed}"
    versions = ", ".join(
        f"{name} {value}" for name, value in {"Python": environment.get("python"), "PyTorch": environment.get("torch")}.items() if value
    )
    return (
        f"## How it was made\n\n```sh\n{shown}\n```\n\nRecipe `{config.recipe}`, seed {config.seed}; {made}; "
        f"{versions or 'versions not kept'}; "
        f"device {environment.get('device', 'unknown')}, {environment.get('precision', 'unknown precision')}. "
        "Folders are given by their last part. `config.json` holds the settings of method and networks."
    )


def _public_command(command: str) -> str:
    """A command without this machine's folders: of a path, the last part is left."""
    words = []
    for word in shlex.split(command):
        key, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
        words.append(f"{key}{equals}{'.../' + Path(value).name if value.startswith(('/', '~', '..')) and len(value) > 2 else value}")
    return shlex.join(words)


def _terms(domain: DomainConfig) -> str:
    if domain.generate.num > 0:
        return DRAWN
    told = [TERMS.get(each.format) for each in domain.parts]
    return "; ".join(dict.fromkeys(f"if it is {one}" if one else "of whoever made them; not known to iccld" for one in told))


def _data_name(domain: DomainConfig) -> str:
    """What lies there, without where it lies."""
    if domain.generate.num > 0:
        return f"{domain.generate.num} scenes of world {domain.generate.world}, {domain.generate.size}, drawn by iccld"
    names = ", ".join(Path(path).expanduser().resolve().name for path in domain.paths)
    return f"{_cell(names)} ({domain.format})"


def _short(domain: DomainConfig) -> str:
    return f"scenes of world {domain.generate.world}" if domain.generate.num > 0 else _data_name(domain)


def _window(told: Any) -> str:
    if isinstance(told, Mapping):
        return f"{'x'.join(map(str, told.get('size') or ()))} stride {told.get('stride') or 'half'}"
    return str(told)


def _cell(text: str) -> str:
    """Text that neither ends a cell of a table nor begins anything else of Markdown."""
    return re.sub(r"[|`<>\[\]\r\n]", "_", text)


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
