"""`iccld ablate`: the paper's Table 1, with the control that step 2 has to beat."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from iccld.cli.experiments import (
    READING,
    RUNS,
    Planned,
    State,
    at_a_time,
    finish,
    hold,
    needs_of,
    open_recipe,
    say_plan,
    source_plan,
    train,
    units_of,
    with_seed,
)
from iccld.config import Config
from iccld.errors import ConfigError

if TYPE_CHECKING:
    from iccld.experiments.document import Document

STAGES = ("step1", "step2")
LEAD = (
    "The same recipe with and without the connection between encoder and decoder, after step 1 and after both steps. "
    "All rows of one half and seed start from one source checkpoint, and step 1 is the same run as step 1 & 2 up to there. "
    "The control is a step 1 whose whole schedule is as long as both steps together: a gain of step 2 counts only against it."
)


def ablate(arguments: Namespace, overrides: list[str]) -> int:
    """Plan, train what is left, write table1.* and figures."""
    config = open_recipe(arguments, overrides)
    from iccld.runs.variants import after_source

    steps = after_source(config)
    if tuple(steps) != STAGES:
        trained = ", ".join(steps) or "nothing"
        raise ConfigError(f"method {config.method} trains {trained} after source here; the ablation needs step1 and step2")
    jobs = at_a_time(arguments.jobs, config)
    with hold(arguments.out):
        state = State(arguments.out, "ablate", config, {})
        sources, planned = _plan(config, arguments.out, arguments.seeds, steps)
        units = units_of(planned, state, arguments.no_estimate, jobs)
        say_plan(units, jobs)
        if arguments.plan:
            return 0
        state.save()
        failures = train(units, arguments.out, jobs)
        return finish(_document(arguments, sources, failures), arguments.out, failures)


def _plan(config: Config, out: Path, seeds: Sequence[int], steps: Mapping[str, int]) -> tuple[dict[tuple[str, int], Path], list[Planned]]:
    """Source stages by (variant, seed), and all runs in the order in which they are trained: a whole seed before the next."""
    from iccld.experiments.ablate import VARIANTS, run_name
    from iccld.runs.variants import adaptation_run, with_iterations

    sources: dict[tuple[str, int], Path] = {}
    planned: list[Planned] = []
    for seed in seeds:
        for variant in VARIANTS:
            network = replace(config.network, inter_coder=variant == "with")
            own = replace(with_seed(config, seed), network=network)
            longer = with_iterations(own, {"step1": sum(steps.values())})
            called = f"{variant} connection, seed {seed}"
            source = source_plan(own, out, f"source, {called}", f"source-{variant}")
            both = adaptation_run(own, out / RUNS, run_name(variant, seed), source.run)
            control = adaptation_run(longer, out / RUNS, run_name(variant, seed, is_control=True), source.run)
            sources[variant, seed] = source.run
            planned += [
                source,
                Planned(both, f"step 1 & 2, {called}", variant, needs_of(source)),
                Planned(control, f"control, {called}", f"{variant}-control", needs_of(source)),
            ]
    return sources, planned


def _document(arguments: Namespace, sources: Mapping[tuple[str, int], Path], failures: Mapping[str, str]) -> Document:
    from iccld.experiments.ablate import ROWS, VARIANTS, places, read_rows, tables
    from iccld.experiments.document import Document
    from iccld.experiments.figures import Shown, write_grid
    from iccld.experiments.outcome import provenance
    from iccld.experiments.page import Figure

    found = places(arguments.out, sources, arguments.seeds)
    rows = read_rows(found)
    runs = list(dict.fromkeys(place.run for key, place in found.items() if key[2] in rows[key[:2]]))
    seed = arguments.seeds[0]
    columns = {f"{variant} connection: {ROWS[row]}": found[variant, row, seed] for variant in VARIANTS for row in STAGES}
    shown = [Shown(title, place.run, place.stage) for title, place in columns.items()]
    caption = f"Picture, truth, and predictions of seed {seed} after step 1 and after both steps, as in the paper's Figure 4."
    grid = write_grid(arguments.out / "figures" / "figure4.png", shown)
    return Document(
        "table1",
        "Inter-coder connection and second step",
        [LEAD],
        tables(rows, arguments.seeds, failures, arguments.block),
        {**provenance(runs), "seeds": list(arguments.seeds), "bootstrap block": arguments.block},
        READING,
        [] if grid is None else [Figure(grid, "Figure 4: with and without connection, one step and both", caption)],
    )
