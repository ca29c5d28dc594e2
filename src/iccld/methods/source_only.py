"""No adaptation: the source stage alone.  Trained on the target's own labels, the same method is the oracle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from iccld.config.optimisation import Optimisation
from iccld.methods.common.parts import Parts
from iccld.methods.common.previous_stage import averaged_segmenter
from iccld.methods.common.protocol import Method, Stage
from iccld.methods.common.supervised import Supervised


@dataclass(frozen=True)
class Settings:
    """The baseline has none of its own."""


def stages(parts: Parts, settings: Settings, optimisation: Mapping[str, Optimisation]) -> list[Stage]:
    """`source`, and where it is given iterations `adapt`: as many more on the source as other methods adapt for."""

    def source(_: Method | None) -> Method:
        return Supervised(parts, optimisation["source"])

    def adapt(previous: Method | None) -> Method:
        return Supervised(parts, optimisation["adapt"], averaged_segmenter(previous, parts))

    made = [Stage("source", optimisation["source"].iterations, source), Stage("adapt", optimisation["adapt"].iterations, adapt)]
    return [stage for stage in made if stage.iterations > 0 or stage.name == "source"]
