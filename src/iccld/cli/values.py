"""What flags are given, as values; argparse.ArgumentTypeError, in one line, for what cannot be read."""

from __future__ import annotations

import argparse

from iccld.config import parse_size
from iccld.errors import ConfigError
from iccld.geometry import check_scales


def size(text: str) -> tuple[int, int]:
    """`256x512`, height by width in pixels."""
    try:
        return parse_size(text)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def window(text: str) -> str:
    """A size, or `whole` as it stands."""
    return text if text == "whole" else "x".join(str(side) for side in size(text))


def words(text: str) -> tuple[str, ...]:
    """`a,b`; blanks and empty places are dropped."""
    return tuple(word.strip() for word in text.split(",") if word.strip())


def scales(text: str) -> tuple[float, ...]:
    """`0.75,1`: scales of a picture for the network."""
    try:
        found = tuple(float(word) for word in text.split(","))
        check_scales(found)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of scales; write for example 0.75,1") from None
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return found


def natural(text: str) -> int:
    """A whole number of at least 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least 0")
    return int(text)


def naturals(text: str) -> tuple[int, ...]:
    """`0,1,2`: whole numbers of at least 0, none of them twice."""
    numbers = tuple(natural(word) for word in text.split(","))
    if len(set(numbers)) != len(numbers):
        raise argparse.ArgumentTypeError(f"{text!r} names a number twice")
    return numbers


def count(text: str) -> int:
    """A whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least 1")
    return int(text)
