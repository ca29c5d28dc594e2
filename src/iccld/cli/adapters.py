"""`iccld adapters`: a run's adapters to other targets.  Nothing here needs PyTorch."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Sequence

from iccld.errors import CheckpointError
from iccld.files import write_json
from iccld.progress import duration, say
from iccld.runs.adapter_folder import Adapter, adapter_names, find_adapter, remove_adapter, unfinished_names


def adapters(arguments: Namespace, _: list[str]) -> int:
    """A table of the run's adapters, or one removed; exit 4 when one is damaged."""
    run = arguments.run
    names = adapter_names(run)
    if arguments.remove is not None:
        remove_adapter(run, arguments.remove)
        say(f"adapter {arguments.remove} of {run} is removed")
        return 0
    found, problems = [], []
    for name in names:
        try:
            found.append(find_adapter(run, name))
        except CheckpointError as error:
            problems.append(str(error))
    listed = [each.as_dict() for each in found]
    if arguments.json is not None and str(arguments.json) == "-":
        print(json.dumps(listed, indent=2, ensure_ascii=False))
    else:
        if arguments.json is not None:
            write_json(arguments.json, listed)
        _print(found)
    for name in unfinished_names(run):
        say(f"not finished: {name}; the command that began it goes on with --resume auto, --remove {name} gives it up")
    if problems:
        raise CheckpointError(problems[0])
    return 0


def _print(found: Sequence[Adapter]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in ("adapter", "target", "trained", "KiB", "time", "mIoU"):
        table.add_column(name, justify="right" if name in ("KiB", "time", "mIoU") else "left", overflow="fold")
    for adapter in found:
        before, after = adapter.scores
        score = "–" if after is None or before is None else f"{before:.1f} → {after:.1f}"
        about = adapter.about
        date = str(about["date"])[:16].replace("T", " ")
        table.add_row(adapter.name, about["target"], date, f"{adapter.num_bytes / 2**10:.0f}", duration(about["wall_seconds"]), score)
    Console().print(table)
