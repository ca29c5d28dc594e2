"""`iccld compare`: every method from one start, on the same data, for the same budget: the paper's Table 2 in one house."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iccld.cli.experiments import (
    READING,
    RUNS,
    Planned,
    State,
    at_a_time,
    finish,
    hold,
    needs_of,
    on_its_share,
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

FIRST = ("source_only",)
LAST = ("iccld_paper", "iccld")
"""Where `all` puts these among the other methods, which come in alphabetical order."""

TIMED_STEPS = 20
LEAD = (
    "Every method starts from the same source checkpoint of its seed, sees the same data, and trains for the same budget after the source "
    "stage, summed over its stages; source_only goes on with supervised training on the source for as long."
)


def compare(arguments: Namespace, overrides: list[str]) -> int:
    """Plan, train what is left, write table2.* and figures."""
    config = open_recipe(arguments, overrides)
    methods = _methods(arguments.methods)
    from iccld.runs.variants import after_source

    budget = arguments.budget or sum(after_source(config).values())
    if not budget and arguments.budget_seconds is None:
        raise ConfigError(f"recipe {config.recipe} trains nothing after source; name a budget: --budget ITERATIONS")
    jobs = at_a_time(arguments.jobs, config)
    with hold(arguments.out):
        asked: dict[str, Any] = {"budget_seconds": arguments.budget_seconds} if arguments.budget_seconds else {"budget": budget}
        state = State(arguments.out, "compare", config, asked)
        not_applicable = _not_applicable(config, methods)
        budgets = {
            method: _budget(on_its_share(config, jobs), method, arguments, budget, state)
            for method in methods
            if method not in not_applicable
        }
        sources, planned = _plan(config, arguments.out, arguments.seeds, budgets)
        units = units_of(planned, state, arguments.no_estimate, jobs)
        say_plan(units, jobs)
        if arguments.plan:
            return 0
        state.save()
        failures = train(units, arguments.out, jobs)
        document = _document(arguments, config, methods, sources, budgets, failures, not_applicable)
        return finish(document, arguments.out, failures)


def _methods(text: str) -> list[str]:
    from iccld.methods import find_method, method_names

    known = method_names()
    if text == "all":
        middle = sorted(name for name in known if name not in FIRST + LAST)
        return [name for name in (*FIRST, *middle, *LAST) if name in known]
    names = text.split(",")
    for name in names:
        find_method(name)
    if len(set(names)) != len(names):
        raise ConfigError(f"--methods {text} names a method twice")
    return names


def _not_applicable(config: Config, methods: Sequence[str]) -> dict[str, str]:
    """Methods that need a map which the data do not have, with that need in one line."""
    from iccld.assembly.objects import unmet_need

    needs = {method: unmet_need(replace(config, method=method, settings={})) for method in methods}
    return {method: need for method, need in needs.items() if need is not None}


def _budget(config: Config, method: str, arguments: Namespace, budget: int, state: State) -> int:
    """Iterations after the source stage: the same for all, or as many as fit into the seconds, timed once and for all."""
    if arguments.budget_seconds is None:
        return budget

    def fixed() -> int:
        from iccld import measure
        from iccld.runs.variants import after_source, with_method

        own = with_method(config, method, budget or 100)
        seconds = measure.seconds_per_step(own, TIMED_STEPS)
        stages = after_source(own)
        mean = sum(seconds[name] * iterations for name, iterations in stages.items()) / sum(stages.values())
        return max(1, round(float(arguments.budget_seconds) / mean))

    return int(state.remembered("iterations", method, fixed))


def _plan(config: Config, out: Path, seeds: Sequence[int], budgets: Mapping[str, int]) -> tuple[dict[int, Path], list[Planned]]:
    """Source stage by seed, and all runs in the order in which they are trained: a whole seed before the next."""
    from iccld.experiments.compare import run_name
    from iccld.runs.variants import adaptation_run, with_method

    sources: dict[int, Path] = {}
    planned: list[Planned] = []
    for seed in seeds:
        own = with_seed(config, seed)
        source = source_plan(own, out, f"source, seed {seed}", "source")
        sources[seed] = source.run
        planned.append(source)
        for method, budget in budgets.items():
            run = adaptation_run(with_method(own, method, budget), out / RUNS, run_name(method, seed), source.run)
            planned.append(Planned(run, f"{method}, seed {seed}", method, needs_of(source)))
    return sources, planned


def _document(
    arguments: Namespace,
    config: Config,
    methods: Sequence[str],
    sources: Mapping[int, Path],
    budgets: Mapping[str, int],
    failures: Mapping[str, str],
    not_applicable: Mapping[str, str],
) -> Document:
    from iccld.experiments.compare import START, read_outcomes, run_name, tables
    from iccld.experiments.document import Document
    from iccld.experiments.figures import Shown, write_grid
    from iccld.experiments.outcome import provenance
    from iccld.experiments.page import Figure
    from iccld.runs.variants import after_source, with_method

    outcomes = {START: read_outcomes(sources, START), **{method: {} for method in methods}}
    for method, budget in budgets.items():
        runs = {seed: arguments.out / RUNS / run_name(method, seed) for seed in arguments.seeds}
        outcomes[method] = read_outcomes(runs, list(after_source(with_method(config, method, budget)))[-1])
    seed = arguments.seeds[0]
    shown = [Shown(method, own[seed].run, own[seed].stage) for method, own in outcomes.items() if seed in own]
    caption = f"Picture, truth, and predictions of seed {seed}, as in the paper's Figure 5."
    grid = write_grid(arguments.out / "figures" / "figure5.png", shown)
    time = f"{arguments.budget_seconds} seconds each" if arguments.budget_seconds else f"{next(iter(budgets.values()), 0)} iterations"
    facts = {"seeds": list(arguments.seeds), "budget after source": time, "bootstrap block": arguments.block}
    return Document(
        "table2",
        "Methods under one ruler",
        [LEAD],
        tables(outcomes, arguments.seeds, failures, not_applicable, arguments.block),
        {**provenance([one.run for own in outcomes.values() for one in own.values()]), **facts},
        READING,
        [] if grid is None else [Figure(grid, "Figure 5: what the methods predict", caption)],
    )
