"""`iccld evaluate`: a run, or anybody's masks, against labelled pictures."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iccld.cli.run_folder import local_folder, open_predictor, origin_of, refuse_other_than_run, sampler_steps_of
from iccld.config import DomainConfig, read_config
from iccld.errors import ConfigError, DataError, nearest
from iccld.files import write_json
from iccld.labels import LabelSpace, alike, get_label_space
from iccld.progress import say

if TYPE_CHECKING:
    from iccld.data import FileDataset
    from iccld.evaluation import Confusion
    from iccld.predictor import Predictor


def evaluate(arguments: Namespace, _: list[str]) -> int:
    """Print a table of class IoUs, and write the scores with their protocol to `--json`."""
    if (arguments.run is None) == (arguments.predictions is None):
        raise ConfigError("name either a run (iccld evaluate RUN) or a folder of masks (--predictions DIR), not both or neither")
    result = _score_run(arguments) if arguments.predictions is None else _score_masks(arguments)
    if arguments.json is not None:
        write_json(arguments.json, result)
    print_scores(result)
    return 0


def _score_run(arguments: Namespace) -> dict[str, Any]:
    run: Path = local_folder(arguments.run)
    arguments.run = run
    refuse_other_than_run(run, arguments.stage, arguments.adapter)
    origin = origin_of(run)
    validation = _own_validation(arguments) if arguments.data is None else None
    _refuse_missing(arguments.data)
    if arguments.label_space is not None:
        get_label_space(arguments.label_space)
    predictor, standing = open_predictor(arguments)
    confusion, label_space, ignored = _confusion_in(arguments, predictor, standing.wide, validation)
    told = _result(arguments, confusion, label_space, _window_text(predictor), ignored)
    told["protocol"]["precision"] = predictor.precision
    told["protocol"] |= {"scales": list(predictor.scales), "flip": predictor.flip}
    told["protocol"]["working_size"] = list(predictor.working_size) if predictor.working_size else None
    if told["protocol"]["sampler_steps"] is None:
        told["protocol"]["sampler_steps"] = sampler_steps_of(run, standing.stage)
    return {
        "run": str(run),
        **origin,
        **standing.as_dict(),
        **told,
    }


def _own_validation(arguments: Namespace) -> DomainConfig:
    """The validation pictures that the run was trained beside, for an `evaluate` without `--data`; the arguments tell them then."""
    if arguments.adapter is not None:
        raise ConfigError(f"--adapter {arguments.adapter} is of another target than the run; name labelled pictures of it with --data PATH")
    named = [flag for flag, value in (("--split", arguments.split), ("--format", arguments.format)) if value not in (None, "auto")]
    file, _ = _split_classes(arguments)
    if named or file is not None:
        raise ConfigError(f"{(named or ['a YAML of --classes'])[0]} says how --data is read; name the folder with --data PATH too")
    path = arguments.run / "config.yaml"
    domain = read_config(path).val if path.is_file() else None
    if domain is None or not (domain.paths or domain.generate.num):
        raise ConfigError(f"{arguments.run} names no labelled pictures of its own; name some with --data PATH")
    if len(domain.paths) > 1:
        raise ConfigError(f"{arguments.run} has {len(domain.paths)} folders of validation pictures; name one with --data PATH")
    from iccld.assembly.domains import domain_path

    arguments.data, arguments.split = domain_path(domain), domain.split
    arguments.format = domain.format if domain.paths else domain.generate.layout
    say(f"scored on the run's own validation pictures: {arguments.data}")
    return domain


def _confusion_in(
    arguments: Namespace, predictor: Predictor, wide: tuple[int, int], validation: DomainConfig | None
) -> tuple[Confusion, LabelSpace, list[str]]:
    """The split's confusion in the run's label space, or in `--label_space`: there the run's classes are absorbed by name.

    The one confusion matrix is folded, which is exact; predictions of a class that nobody absorbs count as errors.  The third are the
    run's classes that are ignored in the truth because of that.
    """
    from iccld.evaluation import Confusion
    from iccld.evaluation import evaluate as score

    own = predictor.label_space
    asked = own if arguments.label_space is None else get_label_space(arguments.label_space)
    _, ignored = asked.absorption(own.names)
    dataset = replace(_open(arguments, own, validation), wide=wide)
    whole = Confusion(own.num_classes)
    score(predictor, dataset, own, observe=lambda name, single, labels: whole.merge(single))
    return (whole, own, []) if asked == own else (fold(whole, own, asked), asked, ignored)


def fold(confusion: Confusion, finer: LabelSpace, coarser: LabelSpace) -> Confusion:
    """The confusion of a finer label space, absorbed by name into a coarser one: (K, K + 1) -> (k, k + 1)."""
    from iccld.evaluation import Confusion

    table, _ = coarser.absorption(finer.names)
    folded = Confusion(coarser.num_classes)
    for row in range(finer.num_classes):
        if table[row] < coarser.num_classes:
            for column in range(finer.num_classes + 1):
                to = int(table[column]) if column < finer.num_classes else coarser.num_classes
                folded.matrix[table[row], min(to, coarser.num_classes)] += confusion.matrix[row, column]
    folded.num_images = confusion.num_images
    return folded


def _score_masks(arguments: Namespace) -> dict[str, Any]:
    belonging = ("stage", "adapter", "iteration", "weights", "sampler_steps", "precision", "size", "window", "stride", "scales", "flip")
    refused = [name for name in belonging if getattr(arguments, name) is not None]
    if refused:
        raise ConfigError(f"--{refused[0]} belongs to a run, and --predictions are already predicted; leave it out")
    if arguments.data is None:
        raise ConfigError("--predictions are scored on labelled pictures; name their folder with --data PATH")
    if not arguments.predictions.is_dir():
        raise DataError(f"{arguments.predictions} is no folder; --predictions takes a folder of masks")
    _refuse_missing(arguments.data)
    from iccld.data import MaskReader
    from iccld.evaluation import Confusion, evaluate_predictions

    label_space = get_label_space(arguments.label_space or "cityscapes19")
    reader = MaskReader(label_space, arguments.ids)
    dataset = _open(arguments, label_space)
    whole = Confusion(label_space.num_classes)
    evaluate_predictions(arguments.predictions, dataset, label_space, reader, observe=lambda name, single, labels: whole.merge(single))
    head = {"predictions": str(arguments.predictions), "ids": reader.ids, "seed": None, "commit": None}
    return {**head, **_result(arguments, whole, label_space, f"given masks ({reader.ids} ids)", [])}


def _split_classes(arguments: Namespace) -> tuple[Path | None, list[str]]:
    """`--classes`, which may be given twice: a dataset YAML, and the names of the classes to score."""
    files = [text for text in arguments.classes or () if text.endswith((".yaml", ".yml")) or Path(text).is_file()]
    names = [name.strip() for text in arguments.classes or () if text not in files for name in text.split(",")]
    if len(files) > 1:
        raise ConfigError(f"--classes names two files, {files[0]} and {files[1]}; one YAML describes the masks of --data")
    return (Path(files[0]) if files else None), names


def _named_classes(names: list[str], label_space: LabelSpace) -> list[str]:
    """The label space's own spelling of the classes asked for; ConfigError with the nearest for one that it has not."""
    spelt = {alike(name): name for name in label_space.names}
    for name in names:
        if alike(name) not in spelt:
            raise ConfigError(
                f"--classes: no class {name!r} in {label_space.name}{nearest(name, spelt)}; it has {', '.join(spelt.values())}"
            )
    return [spelt[alike(name)] for name in names]


def _open(arguments: Namespace, label_space: LabelSpace, validation: DomainConfig | None = None) -> FileDataset:
    """`--data`, or the run's own validation pictures as its training opened them."""
    from iccld.assembly.domains import open_domain
    from iccld.data import open_dataset

    split = arguments.split or "val"
    file, names = _split_classes(arguments)
    _named_classes(names, label_space)  # refused before anything is predicted
    dataset = None if validation is None else open_domain(validation, label_space, True, "val")
    if dataset is None:
        dataset = open_dataset(arguments.data, arguments.format, split, label_space, file, is_asked=arguments.split is not None)
    for note in dataset.notes:
        say(note)
    return dataset


def _refuse_missing(data: Path) -> None:
    if not data.is_dir():
        raise DataError(f"{data} is no folder; --data takes the folder of a dataset")


def _window_text(predictor: Predictor) -> str:
    if predictor.window is None:
        return "whole"
    return f"{predictor.window[0]}x{predictor.window[1]} stride {predictor.stride or 'half'}"


def _result(arguments: Namespace, confusion: Confusion, label_space: LabelSpace, window: str, ignored: list[str]) -> dict[str, Any]:
    from iccld.evaluation import all_means, convention_of

    scores = confusion.scores(label_space)
    means = all_means(confusion, label_space)
    _, names = _split_classes(arguments)
    if names:
        # Of the whole prediction: what is wrongly called one of these classes counts against it, wherever it lies.
        scores, means = scores.subset(_named_classes(names, label_space)), {}
    if ignored:
        what = f"{', '.join(ignored)} of the run are in no class of {label_space.name}, so their pixels are not scored"
        say(f"warning: {what}: what is wrongly predicted there costs nothing; --classes scores some classes with all others in the truth")
    protocol = {
        "data": str(arguments.data),
        "format": arguments.format,
        "split": arguments.split or "val",
        "num_images": scores.num_images,
        "window": window,
        "sampler_steps": arguments.sampler_steps,
        "scored_at": "ground truth size",
        "mean": f"of {len(names)} named classes" if names else "classes in truth or predictions",
        "ignored_classes": ignored,
        "convention": None if names else convention_of(label_space),
    }
    return {"label_space": label_space.name, "protocol": protocol, **scores.as_dict(), "means": means}


def print_scores(result: dict[str, Any]) -> None:
    """The scores as a table on stdout; classes that occur nowhere show a dash."""
    from rich.console import Console
    from rich.table import Table

    protocol = result["protocol"]
    table = Table(title=f"{result['label_space']}, {protocol['num_images']} pictures, {protocol['window']}")
    table.add_column("class")
    table.add_column("IoU %", justify="right")
    for name, value in result["iou"].items():
        table.add_row(name, "–" if value is None else f"{value:.1f}")
    if not result["means"]:
        table.add_section()
        table.add_row("mIoU", f"{result['miou']:.1f}", style="bold")
    for convention, means in result["means"].items():
        table.add_section()
        for count, value in means.items():
            style = "bold" if int(count) == len(result["iou"]) else ""
            table.add_row(f"mIoU{count} ({convention})", "–" if value is None else f"{value:.1f}", style=style)
    Console().print(table)
    if result["means"]:
        print(f"convention {protocol['convention']} is this head's own: (a) 19-way head, (b) terrain, truck and train ignored in the truth")
