"""No adaptation: the source stage alone.  Trained on the target's own labels, the same method is the oracle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from iccld.methods.ingredients import Ingredients, Optimisation
from iccld.methods.method import Method, Stage
from iccld.methods.supervised import Supervised


@dataclass(frozen=True)
class Settings:
    """The baseline has none of its own."""


def stages(ingredients: Ingredients, settings: Settings, optimisation: Mapping[str, Optimisation]) -> list[Stage]:
    """One stage, `source`."""

    def source(_: Method | None) -> Method:
        return Supervised(ingredients, optimisation["source"])

    return [Stage("source", optimisation["source"].iterations, source)]
