"""`iccld compare`: every method from one start, on the same data, for the same budget: the paper's Table 2 in one house."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from iccld import measure
from iccld.assembly.chosen import method_settings
from iccld.assembly.objects import unmet_need
from iccld.config import Config
from iccld.errors import ConfigError
from iccld.experiments.document import Document
from iccld.experiments.experiment import READING, Finished, Options, carry_out, require_experiment
from iccld.experiments.figures import Shown, write_grid
from iccld.experiments.outcome import provenance
from iccld.experiments.page import Figure
from iccld.experiments.plan import RUNS, Planned, at_a_time, needs_of, on_its_share, source_plan, with_seed
from iccld.experiments.state import State
from iccld.experiments.table2 import OURS, START, read_outcomes, run_name, tables
from iccld.experiments.variants import adaptation_run, after_source, with_method
from iccld.methods import find_method, method_names
from iccld.training.lock import lock_run

FIRST = ("source_only",)
LAST = ("iccld_paper", "iccld")
"""Where these stand among all methods; the others come between them in alphabetical order."""

TIMED_STEPS = 20
LENT = ("style",)
"""What `--lend` gives to every method."""

LEAD = (
    "Every method starts from the same source checkpoint of its seed, sees the same data, and trains for the same budget after the source "
    "stage, summed over its stages; source_only goes on with supervised training on the source for as long."
)
STYLE_LEAD = (
    "Every method sees its source pictures in the colours of its target's (augmentation.style_probability {probability:g}) in all stages "
    "after source, as iccld does by itself: what is left between methods is not the exchange of colours."
)


def compare(
    config: Config,
    options: Options,
    methods: Sequence[str] | None = None,
    budget: int | None = None,
    budget_seconds: float | None = None,
    lend: str | None = None,
) -> Finished | None:
    """Plan, train what is left, write table2.* and figures into `options.out`; None where only the plan was asked for.

    methods: names, None for all.  budget: iterations after the source stage, None for the recipe's own; budget_seconds: seconds instead,
    which 20 timed steps turn into iterations, once.  lend: "style" gives iccld's exchange of colours to all.  ConfigError, before anything
    is computed, for what cannot be compared; a run that fails is told in its row and in `Finished.failures`.
    """
    config = require_experiment(config)
    chosen = _methods(methods)
    if lend is not None:
        config = _lent(config, lend)
    iterations = budget or sum(after_source(config).values())
    if not iterations and budget_seconds is None:
        raise ConfigError(f"recipe {config.recipe} trains nothing after source; name a budget: --budget ITERATIONS")
    jobs = at_a_time(options.jobs, config)
    with lock_run(options.out):
        asked: dict[str, Any] = {"budget_seconds": budget_seconds} if budget_seconds else {"budget": iterations}
        state = State(options.out, "compare", config, asked)
        not_applicable = _not_applicable(config, chosen)
        fixed = partial(_iterations_in, on_its_share(config, jobs), iterations or 100, budget_seconds or 0.0)
        budgets = {
            method: iterations if budget_seconds is None else int(state.remembered("iterations", method, partial(fixed, method)))
            for method in chosen
            if method not in not_applicable
        }
        sources, planned = _plan(config, options.out, options.seeds, budgets)
        time = f"{budget_seconds} seconds each" if budget_seconds else f"{next(iter(budgets.values()), 0)} iterations"

        def document(failures: Mapping[str, str]) -> Document:
            return _document(options, config, chosen, sources, budgets, failures, not_applicable, time)

        return carry_out(planned, state, options, jobs, document)


def _methods(names: Sequence[str] | None) -> list[str]:
    if names is None:
        known = method_names()
        middle = sorted(name for name in known if name not in FIRST + LAST)
        return [name for name in (*FIRST, *middle, *LAST) if name in known]
    for name in names:
        find_method(name)
    if len(set(names)) != len(names):
        raise ConfigError(f"--methods {','.join(names)} names a method twice")
    return list(names)


def _lent(config: Config, lend: str) -> Config:
    """The recipe in which every method exchanges colours as often as iccld does in it, unless it says how often itself."""
    if lend not in LENT:
        raise ConfigError(f"--lend {lend!r}: there is {', '.join(LENT)}")
    if config.augmentation.style_probability is not None:
        return config
    own = method_settings(config if config.method == OURS else replace(config, method=OURS, settings={}))
    return replace(config, augmentation=replace(config.augmentation, style_probability=own.style_probability))


def _not_applicable(config: Config, methods: Sequence[str]) -> dict[str, str]:
    """Methods that need a map which the data do not have, with that need in one line."""
    needs = {method: unmet_need(replace(config, method=method, settings={})) for method in methods}
    return {method: need for method, need in needs.items() if need is not None}


def _iterations_in(config: Config, guess: int, seconds: float, method: str) -> int:
    """Iterations after the source stage that fit into the seconds, from a few timed steps.  guess: what the stages are weighed by."""
    own = with_method(config, method, guess)
    each = measure.seconds_per_step(own, TIMED_STEPS)
    stages = after_source(own)
    mean = sum(each[name] * iterations for name, iterations in stages.items()) / sum(stages.values())
    return max(1, round(seconds / mean))


def _plan(config: Config, out: Path, seeds: Sequence[int], budgets: Mapping[str, int]) -> tuple[dict[int, Path], list[Planned]]:
    """Source stage by seed, and all runs in the order in which they are trained: a whole seed before the next."""
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
    options: Options,
    config: Config,
    methods: Sequence[str],
    sources: Mapping[int, Path],
    budgets: Mapping[str, int],
    failures: Mapping[str, str],
    not_applicable: Mapping[str, str],
    time: str,
) -> Document:
    outcomes = {START: read_outcomes(sources, START), **{method: {} for method in methods}}
    for method, budget in budgets.items():
        runs = {seed: options.out / RUNS / run_name(method, seed) for seed in options.seeds}
        outcomes[method] = read_outcomes(runs, list(after_source(with_method(config, method, budget)))[-1])
    seed, style = options.seeds[0], config.augmentation.style_probability
    shown = [Shown(method, own[seed].run, own[seed].stage) for method, own in outcomes.items() if seed in own]
    caption = f"Picture, truth, and predictions of seed {seed}, as in the paper's Figure 5."
    grid = write_grid(options.out / "figures" / "figure5.png", shown)
    facts = {"seeds": list(options.seeds), "budget after source": time, "bootstrap block": options.block}
    return Document(
        "table2",
        "Methods under one ruler",
        [LEAD] if not style else [LEAD, STYLE_LEAD.format(probability=style)],
        tables(outcomes, options.seeds, failures, not_applicable, options.block),
        {**provenance([one.run for own in outcomes.values() for one in own.values()]), **facts},
        READING,
        [] if grid is None else [Figure(grid, "Figure 5: what the methods predict", caption)],
    )
