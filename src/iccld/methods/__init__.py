"""Adaptation methods: one file each, and one line each in `METHODS`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from iccld.methods import iccld, source_only
from iccld.methods.ingredients import Ingredients, Optimisation
from iccld.methods.method import Stage


@dataclass(frozen=True)
class Registered:
    """A method's frozen settings and the function that gives its ordered stages."""

    settings: type[Any]
    stages: Callable[[Ingredients, Any, Mapping[str, Optimisation]], list[Stage]]


METHODS: dict[str, Registered] = {
    "iccld": Registered(iccld.Settings, iccld.stages),
    "source_only": Registered(source_only.Settings, source_only.stages),
}
