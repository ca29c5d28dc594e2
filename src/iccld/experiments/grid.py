"""`iccld ablate --grid step2`: what may follow step 1, its controls and its ceilings, all from the same step 1 and on the same batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from iccld.assembly.chosen import method_settings
from iccld.assembly.domains import open_domain
from iccld.assembly.objects import with_layout
from iccld.assembly.scoring import own_precision, scoring_of, scoring_of_stage
from iccld.config import Config, read_config
from iccld.errors import ConfigError, IccldError, nearest
from iccld.evaluation import Record
from iccld.experiments.ablate import variants
from iccld.experiments.document import Document
from iccld.experiments.experiment import READING, Finished, Options, carry_out, require_experiment
from iccld.experiments.figures import Shown
from iccld.experiments.formulations import START, Formulation
from iccld.experiments.grid_table import NAME, STAGE, Cell, Grid, read_cells, tables
from iccld.experiments.mended import write_mended
from iccld.experiments.outcome import Outcomes, provenance
from iccld.experiments.page import Figure
from iccld.experiments.plan import RUNS, Planned, at_a_time, needs_of, source_plan, with_seed
from iccld.experiments.state import State
from iccld.experiments.table1 import NETWORKS
from iccld.experiments.variants import adaptation_run, with_iterations
from iccld.labels import get_label_space
from iccld.progress import say
from iccld.runs.source import find_source
from iccld.training.engine import usual_format
from iccld.training.lock import lock_run

METHOD, STEP1 = "iccld", "step1"
ITERATIONS = 400

LEAD = (
    "What may follow step 1. Every row starts from the averaged weights of the same step 1 of its seed and sees the same batches in the "
    "same order, the same crops of them, for the same number of iterations, under step 1's schedule begun anew. What is left between two "
    "rows is what their settings say."
)
CEILINGS = (
    "Ceilings learn from the true labels of the target's training pictures, which no method may see: they say how much there is to gain, "
    "and can never be a method."
)

NOTES = (
    "Scores are of the last iteration's averaged weights. Training seconds are on the wall, processor seconds what the run's process kept "
    "cores busy, which other work on the machine changes little. Neither holds scoring.",
    "Labels of several views are made once for each start and kept in OUT/labels; the row that meets a picture first holds the seconds of "
    "its label.",
    "The discriminator's loss is that of the last lines of the log; 1.10 nats is what guessing among three domains costs.",
    "The pictures are spread evenly over those that the runs kept; they were not chosen by what changed on them.",
)


@dataclass(frozen=True, kw_only=True)
class Asked:
    """rows: name -> formulation.  networks: of `NETWORKS`.  iterations: of every row.  starts: finished runs whose step 1 is taken."""

    rows: Mapping[str, Formulation]
    networks: Sequence[str] = ("with",)
    iterations: int = ITERATIONS
    starts: Sequence[Path] = ()


def grid(config: Config, options: Options, asked: Asked) -> Finished | None:
    """Plan, train what is left, write step2.* and a figure into `options.out`; None where only the plan was asked for.

    ConfigError or CheckpointError, before anything is computed, for what cannot be a grid; a run that fails is told in its row and in
    `Finished.failures`.
    """
    require_experiment(config)
    _require_steps(config)
    chosen = variants(config, asked.networks)
    missing = _missing_ceilings(config, asked.rows)
    trained = {name: row for name, row in asked.rows.items() if name != START and name not in missing}
    for name, row in trained.items():  # a mistake in a row is told before anything is trained
        _require_row(config, name, row)
    starts = _given_starts(asked.starts, chosen, options.seeds)
    jobs = at_a_time(options.jobs, config)
    with lock_run(options.out):
        state = State(options.out, NAME, config, {"iterations": asked.iterations})
        starts = _remembered_starts(state, starts, options.out)
        _remember_rows(state, trained)
        cells, planned = _plan(chosen, trained, starts, options, asked.iterations)
        for name, reason in missing.items():
            say(f"  {asked.rows[name].title}: not trained, {reason}")
        grid = Grid(asked.rows, list(chosen), options.seeds, asked.iterations, missing)
        return carry_out(planned, state, options, jobs, lambda failures: _document(options, grid, cells, failures))


def _require_steps(config: Config) -> None:
    if config.method != METHOD:
        raise ConfigError(f"method is {config.method}; the grid's rows are settings of {METHOD}: leave --method out")
    if not config.stages[STEP1].iterations:
        raise ConfigError(f"recipe {config.recipe} has no step 1, from which every row starts: add --stages.step1.iterations N")


def _require_row(config: Config, name: str, row: Formulation) -> None:
    """ConfigError where the method takes no such settings, or a stage no such schedule."""
    usual = config.stages[STEP1]
    for key, value in row.stage.items():
        if not hasattr(usual, key) or key == "iterations":
            raise ConfigError(f"row {name}: unknown key stage.{key}{nearest(key, asdict(usual))}; --iterations sets those of all rows")
        if isinstance(value, str) != isinstance(getattr(usual, key), str) or not isinstance(value, str | int | float):
            raise ConfigError(f"row {name}: stage.{key} is {value!r}; give a value such as {getattr(usual, key)!r}")
    try:
        method_settings(_row_config(config, row, ITERATIONS))
    except ConfigError as error:
        raise ConfigError(f"row {name}: {error}") from error


def _missing_ceilings(config: Config, rows: Mapping[str, Formulation]) -> dict[str, str]:
    """The rows that need the target's labels where there are none, with that reason."""
    ceilings = [name for name, row in rows.items() if row.kind == "ceiling"]
    if not ceilings or config.target.path is None:  # generated scenes have labels
        return {}
    try:
        target = open_domain(config.target, get_label_space(config.label_space), True, "train")
    except IccldError as error:
        return dict.fromkeys(ceilings, f"the target's labels are neither generated nor given ({error})")
    reason = "the target's pictures have no labels beside them, and none are generated"
    return {} if target is not None and target.has_labels else dict.fromkeys(ceilings, reason)


def _given_starts(runs: Sequence[Path], chosen: Mapping[str, Config], seeds: Sequence[int]) -> dict[str, str]:
    """`with-0` -> the run whose step 1 that seed of that network starts from; ConfigError or CheckpointError where it cannot."""
    found: dict[str, str] = {}
    for run in runs:
        if not (run / "config.yaml").is_file():
            raise ConfigError(f"--from {run}: is no run; name the folder that iccld adapt wrote")
        own = read_config(run / "config.yaml")
        network = next((name for name, config in chosen.items() if config.network.is_alike(own.network)), None)
        if own.method != METHOD or network is None:
            raise ConfigError(f"--from {run}: is a run of method {own.method} or of another network than {', '.join(chosen)} here")
        find_source(run, get_label_space(chosen[network].label_space).names, STEP1)
        _require_same_ruler(run, own, chosen[network])
        key = f"{network}-{own.seed}"
        if own.seed not in seeds or key in found:
            raise ConfigError(f"--from {run}: is of seed {own.seed}; give one run for each of the seeds {', '.join(map(str, seeds))}")
        found[key] = str(run.resolve())
    return found


def _require_same_ruler(run: Path, own: Config, config: Config) -> None:
    """ConfigError where a start was scored otherwise, or on other pictures, than the rows will be: told before they are trained."""
    named = config.runtime.precision
    precision = named if named in ("fp32", "bf16") else own_precision(config.runtime.device)  # the rows time nothing
    expected = scoring_of(config, with_layout(usual_format(precision), config.runtime.layout))
    scored = scoring_of_stage(run, own, STEP1, config.runtime.device)
    if scored != expected:
        raise ConfigError(f"--from {run}: was scored with {scored.told()}, the rows would be with {expected.told()}; score both alike")
    if config.val.path is None or config.runtime.data_errors == "skip":
        return
    val = open_domain(config.val, get_label_space(config.label_space), True, "val")
    names = Record.load(run / "confusions" / f"{STEP1}.npz").names
    if val is not None and list(val.names) != list(names):
        raise ConfigError(
            f"--from {run}: was scored on {len(names)} other pictures than the {len(val)} of val here; take its validation split"
        )


def _remembered_starts(state: State, given: Mapping[str, str], out: Path) -> dict[str, str]:
    """The starts of earlier calls and these; ConfigError where the folder holds rows of another one."""
    known: dict[str, str] = state.values.setdefault("starts", {})
    for key, run in given.items():
        before = known.get(key, str(_own_start(out, key)) if _own_start(out, key).exists() else run)
        if before != run:
            raise ConfigError(f"--from {run}: {out} was begun from {before}; choose another --out")
    known.update(given)
    return known


def _remember_rows(state: State, rows: Mapping[str, Formulation]) -> None:
    """ConfigError where the folder holds a row of the same name and other settings."""
    known = state.values.setdefault("rows", {})
    for name, row in rows.items():
        told = row.told()
        if known.setdefault(name, told) != told:
            raise ConfigError(
                f"{state.path.parent} holds row {name} with other settings; give the row another name, or choose another --out"
            )


def _own_start(out: Path, key: str) -> Path:
    return out / RUNS / f"step1-{key}"


def _row_config(config: Config, row: Formulation, iterations: int) -> Config:
    """The recipe with a row's settings, its step 2 under step 1's schedule."""
    longer = with_iterations(config, {STEP1: config.stages[STEP1].iterations, STAGE: iterations})
    stage = replace(config.stages[STEP1], **{**row.stage, "iterations": iterations})
    return replace(
        longer,
        stages={**longer.stages, STAGE: stage},
        settings={**config.settings, **row.settings},
        target=replace(config.target, truth=row.kind == "ceiling"),
        evaluation=replace(config.evaluation, compare_images=0),
        runtime=replace(config.runtime, evaluate_every=0, keep_last=1),
    )


def _plan(
    chosen: Mapping[str, Config], rows: Mapping[str, Formulation], starts: Mapping[str, str], options: Options, iterations: int
) -> tuple[dict[tuple[str, str, int], Cell], list[Planned]]:
    """(network, row, seed) -> where it lies, and all runs in the order in which they are trained: a whole seed before the next."""
    cells: dict[tuple[str, str, int], Cell] = {}
    planned: list[Planned] = []
    for seed in options.seeds:
        for network, config in chosen.items():
            own, key, called = with_seed(config, seed), f"{network}-{seed}", f"{NETWORKS[network].short}, seed {seed}"
            needs = None
            if key in starts:
                start = Path(starts[key])
            else:
                source = source_plan(own, options.out, f"source, {called}", f"source-{network}")
                once = adaptation_run(
                    with_iterations(own, {STEP1: own.stages[STEP1].iterations}), options.out / RUNS, f"step1-{key}", source.run
                )
                step1 = Planned(once, f"step 1, {called}", f"{network}-step1", needs_of(source))
                planned += [source, step1]
                start, needs = step1.run, once.name
            cells[network, START, seed] = Cell(start, STEP1)
            for name, row in rows.items():
                made = adaptation_run(_row_config(own, row, iterations), options.out / RUNS, f"{name}-{key}", start, STEP1)
                cells[network, name, seed] = Cell(options.out / RUNS / made.name, STAGE)
                planned.append(Planned(made, f"{row.title}, {called}", f"{network}-{name}", needs))
    return cells, planned


def _document(options: Options, grid: Grid, cells: Mapping[tuple[str, str, int], Cell], failures: Mapping[str, str]) -> Document:
    outcomes = read_cells(cells)
    runs = list(dict.fromkeys(one.run for own in outcomes.values() for one in own.values()))
    has_ceiling = any(row.kind == "ceiling" for row in grid.rows.values())
    figures = []
    for network in grid.networks:
        shown = {name: own for (of, name), own in outcomes.items() if of == network}
        figures += _mended(options, grid, network, shown)
    return Document(
        STAGE,
        "Step 2: formulations, controls and ceilings",
        [LEAD, CEILINGS] if has_ceiling else [LEAD],
        tables(grid, outcomes, failures, options.block),
        {**provenance(runs), "seeds": list(grid.seeds), "iterations of every row": grid.iterations, "bootstrap block": options.block},
        [*READING[:2], *NOTES],
        figures,
    )


def _mended(options: Options, grid: Grid, network: str, outcomes: Mapping[str, Outcomes]) -> list[Figure]:
    """The picture of what each row mended and spoiled, of the first seed; none where no pictures were kept."""
    seed = grid.seeds[0]
    if seed not in outcomes.get(START, {}):
        return []
    shown = {name: Shown(grid.rows[name].title, own[seed].run, own[seed].stage) for name, own in outcomes.items() if seed in own}
    name = NETWORKS[network].short
    path = options.out / "figures" / f"mended-{network}.png"
    if write_mended(path, shown.pop(START), list(shown.values())) is None:
        return []
    caption = (
        f"Seed {seed}, {name}. Green: wrong after step 1, right after this row. Red: right after step 1, wrong after this row. "
        "Shares are of the labelled pixels shown."
    )
    return [Figure(path, f"Mended and spoiled, {name}", caption)]
