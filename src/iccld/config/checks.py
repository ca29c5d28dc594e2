"""Checks that settings share.  Each raises ConfigError with the field's name, its value and what to write instead."""

from __future__ import annotations

import math
import re

from iccld.errors import ConfigError


def parse_size(text: str) -> tuple[int, int]:
    """`"192x256"` -> (192, 256), height first, in pixels; ConfigError for anything else."""
    match = re.fullmatch(r"\s*(\d+)\s*[x×]\s*(\d+)\s*", text)
    if match is None or int(match[1]) < 1 or int(match[2]) < 1:
        raise ConfigError(f"size {text!r} is not HEIGHTxWIDTH in pixels; write for example 192x256")
    return int(match[1]), int(match[2])


def require(holds: bool, problem: str) -> None:
    """Raise the problem unless it holds."""
    if not holds:
        raise ConfigError(problem)


def require_at_least(settings: object, minimum: float, *names: str) -> None:
    """The named fields are finite numbers of at least `minimum`."""
    for name in names:
        value = getattr(settings, name)
        require(value >= minimum and math.isfinite(value), f"{name} is {value}; use a number of at least {minimum:g}")


def require_share(settings: object, *names: str) -> None:
    """The named fields lie in 0..1."""
    for name in names:
        value = getattr(settings, name)
        require(0.0 <= value <= 1.0, f"{name} is {value}; use a number from 0 to 1")


def require_one_of(settings: object, name: str, choices: tuple[str, ...]) -> None:
    """The named field is one of the choices."""
    value = getattr(settings, name)
    require(value in choices, f"{name} is {value!r}; use one of {', '.join(choices)}")


def require_size(settings: object, *names: str) -> None:
    """The named fields are sizes for `parse_size`."""
    for name in names:
        try:
            parse_size(getattr(settings, name))
        except ConfigError as error:
            raise ConfigError(f"{name}: {error}") from None
