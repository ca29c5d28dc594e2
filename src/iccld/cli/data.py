"""`iccld data generate | check`: scenes to draw, datasets to look at.  Nothing here needs PyTorch."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from iccld.cli.output import print_error
from iccld.errors import DataError, UnfitClassesError
from iccld.files import write_json
from iccld.labels import CITYSCAPES19, LabelClass, LabelSpace, distinct_color, get_label_space
from iccld.progress import say

if TYPE_CHECKING:
    from iccld.data.check import CheckReport


def generate(arguments: Namespace, _: list[str]) -> int:
    """Draw scenes; the same command again finds them finished."""
    from iccld.city import generate as draw

    folder = draw(
        arguments.world,
        arguments.layout,
        arguments.num,
        arguments.size,
        arguments.seed,
        arguments.out,
        workers=arguments.workers,
        split=arguments.split,
    )
    print(folder)
    return 0


def check(arguments: Namespace, _: list[str]) -> int:
    """Read every file once; exit 3 when there is any problem."""
    from iccld.data import open_dataset
    from iccld.data.check import check_dataset
    from iccld.data.layouts import recognise

    if not arguments.data.is_dir():
        raise DataError(f"{arguments.data} is no folder; --data takes the folder of a dataset")
    # Unpaired files are problems among others here, not the end.
    layout = recognise(arguments.data) if arguments.format == "auto" else None
    if layout is not None:
        say(f"{arguments.data}: laid out as {layout.title}")
    opened = partial(
        open_dataset,
        arguments.data,
        arguments.format,
        arguments.split or "train",
        classes=arguments.classes,
        strict=False,  # files without a partner are findings to tell, not an error to stop at
        is_asked=arguments.split is not None,
    )
    try:
        dataset = opened(label_space=_label_space(arguments))
    except (
        UnfitClassesError
    ) as error:  # CARLA until 0.9.13 and SYNTHIA-SEQS do not have all classes of Cityscapes: show those that they have
        if arguments.label_space:
            raise
        dataset = opened(label_space=_space_of("dataset", error.data_classes))
    report = check_dataset(dataset, arguments.workers)
    if arguments.json is not None:
        write_json(arguments.json, report.as_dict())
    _print(report)
    for problem in report.problems:
        print_error(problem)
    return 0 if report.ok else DataError.exit_code


def _label_space(arguments: Namespace) -> LabelSpace:
    """The label space asked for; without one, the classes that the folder's own YAML names; cityscapes19 otherwise."""
    from iccld.data.folder import YAML_NAME, read_description

    if arguments.label_space:
        return get_label_space(arguments.label_space)
    description = arguments.classes or arguments.data / YAML_NAME
    if arguments.format in ("auto", "folder") and description.is_file():
        names = read_description(description).class_names
        if names:
            return _space_of(description.stem, names)
    return CITYSCAPES19


def _space_of(name: str, classes: Sequence[str]) -> LabelSpace:
    return LabelSpace(name, tuple(LabelClass(each, distinct_color(i)) for i, each in enumerate(classes)))


def _print(report: CheckReport) -> None:
    from rich.console import Console
    from rich.table import Table

    found = report.as_dict()
    console = Console()
    sizes = list(found["sizes"].items())
    listed = ", ".join(f"{size} ({count})" for size, count in sizes[:5]) + (f" and {len(sizes) - 5} more" if len(sizes) > 5 else "")
    layout = f"{report.format} ({report.layout})" if report.layout else report.format
    console.print(f"{report.root}: {layout}, {report.num_images} pictures, {report.num_labelled} with labels", markup=False)
    console.print(f"sizes (width x height): {listed or 'none readable'}", markup=False)
    if found["classes"]:
        table = Table(title=f"classes of {found['label_space']}")
        for column in ("class", "share %", "pictures"):
            table.add_column(column, justify="left" if column == "class" else "right")
        for name, entry in found["classes"].items():
            table.add_row(name, f"{100 * entry['share']:.2f}", str(entry["images"]))
        console.print(table)
    if found["absent_classes"]:
        console.print(f"in no picture: {', '.join(found['absent_classes'])}; right if the data has none, a wrong mapping of ids otherwise")
    for note in report.notes:
        console.print(f"note: {note}", markup=False)
    console.print(f"problems: {len(report.problems)}")
