"""`iccld ablate`: the paper's Table 1, with the controls that the connection and step 2 have to beat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from iccld.config import Config
from iccld.config.network import CONNECTED
from iccld.errors import ConfigError, nearest
from iccld.experiments.document import Document
from iccld.experiments.experiment import READING, Finished, Options, carry_out, require_experiment
from iccld.experiments.figures import Shown, write_grid
from iccld.experiments.outcome import provenance
from iccld.experiments.page import Figure
from iccld.experiments.plan import RUNS, Planned, at_a_time, needs_of, source_plan, with_seed
from iccld.experiments.state import State
from iccld.experiments.table1 import NETWORKS, ROWS, places, read_rows, run_name, tables
from iccld.experiments.variants import adaptation_run, after_source, matched_network, with_iterations
from iccld.training.lock import lock_run

STAGES = ("step1", "step2")
LEAD = (
    "The same recipe with and without the connection between encoder and decoder, after step 1 and after both steps. "
    "All rows of one network and seed start from one source checkpoint, and step 1 is the same run as step 1 & 2 up to there. "
    "The control is a step 1 whose whole schedule is as long as both steps together: a gain of step 2 counts only against it."
)
MATCHED_LEAD = (
    "Without the connection the decoder has fewer parameters. A third network has no connection either, and a decoder so wide that it has "
    "as many parameters as the one with it: what width alone gains is no gain of the connection."
)


def ablate(config: Config, options: Options, networks: Sequence[str] = tuple(NETWORKS)) -> Finished | None:
    """Plan, train what is left, write table1.* and figures into `options.out`; None where only the plan was asked for.

    networks: of `NETWORKS`, those to train.  ConfigError, before anything is computed, for a recipe or network that cannot be ablated;
    a run that fails is told in its row and in `Finished.failures`.
    """
    require_experiment(config)
    steps = after_source(config)
    if tuple(steps) != STAGES:
        trained = ", ".join(steps) or "nothing"
        missing = [stage for stage in STAGES if stage not in steps] if config.method == "iccld" else []
        remedy = f": add --stages.{missing[0]}.iterations N" if missing else ""
        raise ConfigError(f"method {config.method} trains {trained} after source here; the ablation needs step1 and step2{remedy}")
    chosen = variants(config, networks)
    jobs = at_a_time(options.jobs, config)
    with lock_run(options.out):
        state = State(options.out, "ablate", config, {})
        sources, planned = _plan(chosen, options.out, options.seeds, steps)
        return carry_out(planned, state, options, jobs, lambda failures: _document(options, list(chosen), sources, failures))


def variants(config: Config, networks: Sequence[str]) -> dict[str, Config]:
    """Name of the network -> the recipe with it, in the order of the table."""
    for name in networks:
        if name not in NETWORKS:
            raise ConfigError(f"--networks: unknown network {name!r}{nearest(name, NETWORKS)}; there are {', '.join(NETWORKS)}")
    if len(set(networks)) != len(networks):
        raise ConfigError(f"--networks {','.join(networks)} names a network twice")
    if config.network.preset not in CONNECTED:
        raise ConfigError(f"network.preset {config.network.preset} has no connection to leave out; use {' or '.join(CONNECTED)}")
    made = {
        "without": lambda: replace(config.network, inter_coder=False),
        "matched": lambda: matched_network(config),
        "with": lambda: replace(config.network, inter_coder=True),
    }
    return {name: replace(config, network=made[name]()) for name in NETWORKS if name in networks}


def _plan(
    variants: Mapping[str, Config], out: Path, seeds: Sequence[int], steps: Mapping[str, int]
) -> tuple[dict[tuple[str, int], Path], list[Planned]]:
    """Source stages by (variant, seed), and all runs in the order in which they are trained: a whole seed before the next."""
    sources: dict[tuple[str, int], Path] = {}
    planned: list[Planned] = []
    for seed in seeds:
        for variant, config in variants.items():
            own = with_seed(config, seed)
            longer = with_iterations(own, {"step1": sum(steps.values())})
            called = f"{NETWORKS[variant].short}, seed {seed}"
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


def _document(options: Options, variants: Sequence[str], sources: Mapping[tuple[str, int], Path], failures: Mapping[str, str]) -> Document:
    found = places(options.out, sources, variants, options.seeds)
    rows = read_rows(found)
    runs = list(dict.fromkeys(place.run for key, place in found.items() if key[2] in rows[key[:2]]))
    seed = options.seeds[0]
    columns = {f"{NETWORKS[variant].short}: {ROWS[row]}": found[variant, row, seed] for variant in variants for row in STAGES}
    shown = [Shown(title, place.run, place.stage) for title, place in columns.items()]
    caption = f"Picture, truth, and predictions of seed {seed} after step 1 and after both steps, as in the paper's Figure 4."
    grid = write_grid(options.out / "figures" / "figure4.png", shown)
    return Document(
        "table1",
        "Inter-coder connection and second step",
        [LEAD, MATCHED_LEAD] if "matched" in variants else [LEAD],
        tables(rows, options.seeds, failures, options.block),
        {**provenance(runs), "seeds": list(options.seeds), "bootstrap block": options.block},
        READING,
        [] if grid is None else [Figure(grid, "Figure 4: with and without connection, one step and both", caption)],
    )
