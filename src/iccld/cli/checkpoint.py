"""`iccld checkpoint list | verify | prune`: what a run has saved, whether it is whole, and room on the disk."""

from __future__ import annotations

from argparse import Namespace
from datetime import datetime
from typing import TYPE_CHECKING

from iccld.errors import CheckpointError
from iccld.progress import say

if TYPE_CHECKING:
    from iccld.training.inventory import Entry, Inventory


def list_checkpoints(arguments: Namespace, _: list[str]) -> int:
    """A table of the run's checkpoints, by names and sizes; exit 4 when one is broken."""
    return _show(arguments, read_all=False)


def verify(arguments: Namespace, _: list[str]) -> int:
    """The same table after reading every byte against its SHA-256; exit 4 when one is broken."""
    return _show(arguments, read_all=True)


def prune(arguments: Namespace, _: list[str]) -> int:
    """Remove all but each stage's newest and best whole checkpoints."""
    from iccld.training.inventory import prune_run

    for path in prune_run(arguments.run, arguments.keep_last):
        print(path)
    say(f"each stage keeps its newest {arguments.keep_last} and its best")
    return 0


def _show(arguments: Namespace, read_all: bool) -> int:
    from iccld.training.inventory import take_inventory

    found = take_inventory(arguments.run, read_all)
    _print(found, read_all)
    return CheckpointError.exit_code if found.broken else 0


def _print(found: Inventory, read_all: bool) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table(box=None, pad_edge=False)
    for name in ("stage", "iteration", "MiB", "saved"):
        table.add_column(name, justify="right" if name in ("iteration", "MiB") else "left")
    table.add_column("state", overflow="fold")
    for entry in found.entries:
        saved = datetime.fromtimestamp(entry.saved_at).strftime("%Y-%m-%d %H:%M")
        table.add_row(entry.stage, str(entry.iteration), f"{entry.num_bytes / 2**20:.1f}", saved, _state(entry, read_all))
    console.print(table)
    for path in found.leftovers:
        say(f"left behind: {path} (iccld checkpoint prune removes it)")


def _state(entry: Entry, read_all: bool) -> str:
    if entry.problem is not None:
        return f"broken: {entry.problem}"
    return ("whole" if read_all else "complete") + (", best" if entry.is_best else "")
