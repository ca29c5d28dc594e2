"""Adaptation methods: one file each, and one line each in `METHODS`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from iccld.methods import adaptsegnet, bapa, cbst, cluda, corda, dacs, daformer, hrda, iccld, iccld_paper, mic, proda, source_only
from iccld.methods.common.parts import Optimisation, Parts
from iccld.methods.common.protocol import Stage


@dataclass(frozen=True)
class Registered:
    """A method: its frozen settings, the function that gives its ordered stages, and what those stages are called."""

    settings: type[Any]
    """Frozen dataclass of the method's own settings."""
    stages: Callable[[Parts, Any, Mapping[str, Optimisation]], list[Stage]]
    """Factories, settings and the optimisation of each stage by name -> the stages."""
    shares: Mapping[str, float] = field(default_factory=lambda: {"adapt": 1.0})
    """The stages after `source` in order, each with its share of the iterations where a recipe gives it none of its own.

    A share of 0 is a stage that only iterations of its own call for.
    """
    needs: frozenset[str] = frozenset()
    """Optional maps of DomainBatch that the method cannot do without, for example {"depth"}; a run without them is refused."""

    @property
    def stage_names(self) -> tuple[str, ...]:
        """`source` and the method's own stages, in order."""
        return ("source", *self.shares)


METHODS: dict[str, Registered] = {
    "adaptsegnet": Registered(adaptsegnet.Settings, adaptsegnet.stages),
    "bapa": Registered(bapa.Settings, bapa.stages),
    "cbst": Registered(cbst.Settings, cbst.stages),
    "cluda": Registered(cluda.Settings, cluda.stages),
    "corda": Registered(corda.Settings, corda.stages, needs=frozenset({"depth"})),
    "dacs": Registered(dacs.Settings, dacs.stages),
    "daformer": Registered(daformer.Settings, daformer.stages),
    "hrda": Registered(hrda.Settings, hrda.stages),
    "iccld": Registered(iccld.Settings, iccld.stages, {"step1": 0.8, "step2": 0.2}),
    "iccld_paper": Registered(iccld_paper.Settings, iccld_paper.stages, {"step1": 0.5, "step2": 0.5}),
    "mic": Registered(mic.Settings, mic.stages),
    "proda": Registered(proda.Settings, proda.stages, {"warmup": 0.15, "stage1": 0.35, "stage2": 0.25, "stage3": 0.25}),
    "source_only": Registered(source_only.Settings, source_only.stages, {"adapt": 0.0}),
}
