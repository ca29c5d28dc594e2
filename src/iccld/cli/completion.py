"""`iccld completion`: a script by which bash, zsh or fish complete commands, flags, settings, names and files.  shtab writes it."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, get_args

from iccld.config import config_parser, recipe_names
from iccld.config.domains import FORMATS
from iccld.labels import LABEL_SPACES
from iccld.methods import METHODS, method_names

FOLDERS = ("RUN", "DIR", "FOLDER")
"""What `metavar` says of a path that is a folder; any other path may be a file."""


def completion(arguments: argparse.Namespace, _: list[str]) -> int:
    """Print the script for a shell."""
    import shtab

    print(shtab.complete(completed_parser(), arguments.shell))
    return 0


def completed_parser() -> argparse.ArgumentParser:
    """The command's parser, grown for completion: every setting is a flag, and every argument says what it may be.

    It parses nothing: what is a suggestion here, such as the names of `--stage`, would be a restriction there.
    """
    from iccld.cli.parser import build_parser

    parser, leaves = build_parser()
    settings = _settings()
    for leaf in leaves.values():
        if leaf.get_default("takes_overrides"):
            _add_settings(leaf, settings)
        for action in leaf._actions:
            _say_what_it_takes(action)
    return parser


def _say_what_it_takes(action: argparse.Action) -> None:
    """Give an argument its values, or let it name files."""
    import shtab

    if action.help:
        action.help = re.split(r"(?<=[a-z)])[.;] ", action.help)[0]  # one sentence beside each suggestion
    if action.choices is not None or action.nargs == 0:
        return
    name = action.option_strings[0].removeprefix("--") if action.option_strings else action.dest
    values = _values(name)
    if values:
        action.choices = values
    elif action.type is Path or name.split(".")[-1] in ("path", "classes", "out", "source_checkpoint"):
        action.complete = shtab.DIRECTORY if action.metavar in FOLDERS else shtab.FILE  # type: ignore[attr-defined]


def _values(name: str) -> tuple[str, ...]:
    """What a flag or setting of this name may be given; empty where there is no list of it."""
    return next((values for key, values in _known_values().items() if name == key or name.endswith(f".{key}")), ())


@cache
def _known_values() -> dict[str, tuple[str, ...]]:
    """Flags and ends of settings, each with what it may be given."""
    from iccld.cli.parser import LAYOUTS, WORLDS

    known: dict[str, Iterable[str]] = {
        "recipe": recipe_names(),
        "method": method_names(),
        "methods": ("all", *method_names()),
        "stage": [stage for method in METHODS.values() for stage in method.stage_names],
        "label_space": LABEL_SPACES,
        "format": FORMATS,
        "generate.world": WORLDS,
        "generate.layout": LAYOUTS,
        "runtime.device": ("auto", "cpu", "cuda"),
        "runtime.precision": ("auto", "native", "fp32", "bf16"),
        "runtime.resume": ("none", "auto"),
        "runtime.track": ("tensorboard", "wandb"),
        "track": ("tensorboard", "wandb"),
    }
    return {name: tuple(dict.fromkeys(values)) for name, values in known.items()}


def _settings() -> dict[str, tuple[str, tuple[str, ...]]]:
    """Every setting -> what it means, and its values where they are few; those of all methods included."""
    found: dict[str, tuple[str, tuple[str, ...]]] = {}
    for action in config_parser()._actions:
        if action.default != argparse.SUPPRESS and action.dest not in ("recipe", "settings"):  # not a section from a file
            found[action.dest] = (action.help or "", _listed(getattr(action, "_typehint", None)))
    return found | _own_settings()


def _own_settings() -> dict[str, tuple[str, tuple[str, ...]]]:
    """`settings.*` of the methods of this package, from their files."""
    from iccld.methods.common.declared import declared_settings

    methods: dict[str, list[str]] = {}
    values: dict[str, tuple[str, ...]] = {}
    for method, registered in METHODS.items():
        for name, kind in (declared_settings(registered.module) or {}).items():
            methods.setdefault(name, []).append(method)
            values[name] = tuple(dict.fromkeys((*values.get(name, ()), *_listed(kind))))
    return {f"settings.{name}": (f"of {', '.join(owners)}", values[name]) for name, owners in methods.items()}


def _listed(kind: Any) -> tuple[str, ...]:
    """The values of a type that has few of them."""
    if kind is bool:
        return ("true", "false")
    return tuple(value for value in get_args(kind) if isinstance(value, str))


def _add_settings(leaf: argparse.ArgumentParser, settings: Mapping[str, tuple[str, tuple[str, ...]]]) -> None:
    """The settings as flags, but for those that the command has one for."""
    taken = {flag for action in leaf._actions for flag in action.option_strings}
    for key, (meaning, values) in settings.items():
        if f"--{key}" not in taken:
            leaf.add_argument(f"--{key}", choices=values or None, help=" ".join(meaning.split()).replace("%", "%%"))
