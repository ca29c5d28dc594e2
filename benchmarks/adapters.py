"""What an adapter gains in how many seconds, against step 1 on the same new target from the same weights.

    python benchmarks/adapters.py --out OUT --camvid $CAMVID --source RUN,RUN,RUN --adapted RUN,RUN,RUN
    python benchmarks/adapters.py --out OUT --camvid $CAMVID --source RUN --pairs source_camvid --step1 200 --adapters default

Pairs: source only -> CamVid; adapted to CamVid -> generated night, rain, fog; source only on generated day (trained here) -> night.
--source, --adapted: finished runs of recipe city_to_camvid (method source_only; iccld), one a seed, copied into OUT and not touched.
Every item runs in a process of its own, so that its peak of memory is its own, with one thread; the same command goes on where it
stopped.  OUT/items/*.json are the measurements, OUT/adapters.md the table: mIoU in percent on the new target's validation pictures,
seconds of training (scoring and start not counted) on the wall and of the processor, seconds of the command up to scoring, GiB at the peak.
Shares of seconds are of the processor's: other work on the machine stretches them least.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

DRAWN = {"num": 120, "size": "360x480", "layout": "cityscapes", "seed": 5}
SCORED = {"num": 60, "size": "360x480", "layout": "cityscapes", "seed": 77}

VARIANTS: dict[str, list[str]] = {
    "default": [],
    "views": ["--settings.labels", "views", "--settings.label_scales", "1.0,1.25,1.5", "--settings.label_flip", "true"],
    "long": ["--settings.kept_views", "200", "--stages.step2.iterations", "800"],
    "r1a": ["--settings.fill", "denoiser", "--settings.mask_ratio", "0.4"],
}
"""Flags of `iccld adapt --from` by name of the adapter."""


class Pair(NamedTuple):
    """Which runs are started from, and the new target: CamVid, or a world."""

    start: str
    target: str


PAIRS = {
    "source_camvid": Pair("source", "camvid"),
    "camvid_night": Pair("adapted", "night"),
    "camvid_rain": Pair("adapted", "rain"),
    "camvid_fog": Pair("adapted", "fog"),
    "day_night": Pair("day", "night"),
}


class Item(NamedTuple):
    """One measurement."""

    pair: str
    run: Path
    seed: int
    kind: str
    """`step1-N` with N iterations, or an adapter's name."""

    @property
    def name(self) -> str:
        return f"{self.pair}-{self.kind}-seed{self.seed}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--camvid", type=Path, help="folder with train/ and val/")
    parser.add_argument("--source", default="", help="finished source-only runs, one a seed")
    parser.add_argument("--adapted", default="", help="finished runs adapted to CamVid, one a seed")
    parser.add_argument("--seeds", default="0,1,2", help="of the runs on generated day that are trained here")
    parser.add_argument("--pairs", default=",".join(PAIRS))
    parser.add_argument("--step1", default="2000", help="iterations of step 1, several to see what it gains in less time")
    parser.add_argument("--adapters", default=",".join(VARIANTS))
    parser.add_argument("--flags", default="", help="further settings of every adapter, such as '--stages.step2.iterations 100'")
    parser.add_argument("--one", nargs=4, metavar=("RUN", "PAIR", "N", "FILE"), help="measure step 1 in this process (used by the script)")
    given = parser.parse_args()
    if given.one:
        run, pair, iterations, file = given.one
        measure_step1(Path(run), target_words(PAIRS[pair], given.camvid), int(iterations), Path(file))
        return
    (given.out / "items").mkdir(parents=True, exist_ok=True)
    items = planned(given)
    for number, item in enumerate(items, 1):
        file = given.out / "items" / f"{item.name}.json"
        if not file.exists():
            print(f"{number}/{len(items)} {item.name}", file=sys.stderr, flush=True)
            measure(item, given, file)
        (given.out / "adapters.md").write_text(table(given.out / "items"), encoding="utf-8")
    print((given.out / "adapters.md").read_text(encoding="utf-8"))


def planned(given: argparse.Namespace) -> list[Item]:
    """Every item, seed by seed within a pair, so that what is there first is comparable."""
    items = []
    for name in given.pairs.split(","):
        if name not in PAIRS:
            raise SystemExit(f"error: no pair {name}; there are {', '.join(PAIRS)}")
        for run, seed in started(PAIRS[name].start, given):
            kinds = [f"step1-{count}" for count in given.step1.split(",") if count] + [each for each in given.adapters.split(",") if each]
            items += [Item(name, run, seed, kind) for kind in kinds]
    return items


def started(start: str, given: argparse.Namespace) -> list[tuple[Path, int]]:
    """The runs that a pair starts from, copied or trained here, with their seeds."""
    if start == "day":
        return [(day_run(int(seed), given), int(seed)) for seed in given.seeds.split(",")]
    found = []
    for path in (Path(word) for word in getattr(given, start).split(",") if word):
        seed = json.loads((path / "summary.json").read_text(encoding="utf-8"))["seed"]
        copy = given.out / "starts" / f"{start}-{seed}"
        if not copy.exists():
            partial = copy.with_name(f".{copy.name}")
            shutil.rmtree(partial, ignore_errors=True)
            shutil.copytree(path, partial)
            partial.rename(copy)
        found.append((copy, seed))
    return found


def day_run(seed: int, given: argparse.Namespace) -> Path:
    """A source-only run on the generated scenes of the world `camera`, trained here."""
    run: Path = given.out / "starts" / f"day-{seed}"
    world = {"num": 648, "world": "camera", "layout": "gta5", "size": "360x480", "seed": 11}
    words = ["--recipe", "city_to_camvid", "--method", "source_only", "--seed", str(seed), "--name", run.name, "--no_estimate"]
    words += ["--runtime.out", str(run.parent), *generated("source", world), *generated("target", world | DRAWN | {"world": "night"})]
    if not (run / "report.html").exists():
        command(["-m", "iccld", "adapt", *words, "--source.holdout", "48", "--resume", "auto"])
    return run


def generated(domain: str, scenes: dict[str, Any]) -> list[str]:
    return [word for key, value in scenes.items() for word in (f"--{domain}.generate.{key}", str(value))]


def target_words(pair: Pair, camvid: Path | None) -> list[str]:
    """The new target and its validation pictures as settings."""
    if pair.target != "camvid":
        worlds = {"target": DRAWN | {"world": pair.target}, "val": SCORED | {"world": pair.target}}
        return [word for domain, scenes in worlds.items() for word in generated(domain, scenes)]
    if camvid is None:
        raise SystemExit("error: this pair needs --camvid")
    return [
        "--target.path",
        str(camvid / "train"),
        "--target.format",
        "folder",
        "--val.path",
        str(camvid / "val"),
        "--val.format",
        "folder",
    ]


def measure(item: Item, given: argparse.Namespace, file: Path) -> None:
    """One item in a process of its own; the run that it starts from stays as it is but for the adapter beside it."""
    words = target_words(PAIRS[item.pair], given.camvid)
    began = time.monotonic()
    kind, _, count = item.kind.partition("-")
    if kind == "step1":
        camvid = [] if given.camvid is None else ["--camvid", str(given.camvid)]
        command([__file__, "--out", str(given.out), *camvid, "--one", str(item.run), item.pair, count, str(file.with_suffix(".part"))])
        told = json.loads(file.with_suffix(".part").read_text(encoding="utf-8"))
        file.with_suffix(".part").unlink()
    else:
        adapter = f"{item.pair}-{item.kind}"
        flags = [*words, *VARIANTS[item.kind], *given.flags.split(), "--runtime.threads", "1", "--resume", "auto"]
        command(["-m", "iccld", "adapt", "--from", str(item.run), "--adapter", adapter, "--stages", "step2", *flags])
        folder = item.run / "adapters" / adapter
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        about = json.loads((folder / "adapter.json").read_text(encoding="utf-8"))
        told = {"before": summary["base"]["miou"], "miou": summary["headline"]["miou"], "parameters": about["parameters"]}
        told |= {key: summary["stages"]["step2"][key] for key in ("iou", "iterations", "seconds", "processor_seconds", "peak_memory_gib")}
        told |= {"command_seconds": about["wall_seconds"], "commit": summary["commit"]}
    told |= {"pair": item.pair, "kind": item.kind, "seed": item.seed, "process_seconds": round(time.monotonic() - began, 1)}
    file.with_suffix(".part").write_text(json.dumps(told, indent=2), encoding="utf-8")
    file.with_suffix(".part").rename(file)


def command(words: list[str]) -> None:
    """Run Python with one thread; its errors are this script's."""
    done = subprocess.run([sys.executable, *words], env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL)
    if done.returncode:
        raise SystemExit(done.returncode)


def measure_step1(run: Path, words: list[str], iterations: int, file: Path) -> None:
    """Step 1 of recipe city_to_camvid on the new target, from the weights that an adapter starts from too."""
    began = time.monotonic()
    import torch

    from iccld.assembly.chosen import method_settings, registered_method
    from iccld.assembly.objects import class_weights, make_engine, make_parts, open_data, optimisations, pair_dataset
    from iccld.assembly.scoring import scoring_of
    from iccld.config import load_config
    from iccld.data.check import class_statistics
    from iccld.data.pairs import pair_loader
    from iccld.evaluation import evaluate
    from iccld.methods.common.without_encoder import Given
    from iccld.runs.adapter_config import adapter_config
    from iccld.runs.base import open_base
    from iccld.training.allocator import keep_freed_memory
    from iccld.training.options import LoopOptions
    from iccld.training.stages import run_stages

    torch.set_num_threads(1)
    keep_freed_memory()
    recipe = load_config("city_to_camvid")
    config = adapter_config(run, "step1", [*words, "--runtime.threads", "1"])
    stages = {"source": replace(recipe.stages["source"], iterations=0), "step1": replace(recipe.stages["step1"], iterations=iterations)}
    config = replace(config, stages=stages | {"step2": replace(recipe.stages["step2"], iterations=0)}, settings=dict(recipe.settings))
    engine = make_engine(config, max_norm=config.runtime.clip_norm)
    data = open_data(config)
    assert data.val is not None
    base = open_base(run)
    pairs = pair_dataset(config, data)
    parts = make_parts(config, data.label_space, class_weights(class_statistics(data.source), config.sampling.class_balance), run)
    [stage] = registered_method("iccld").stages(parts, method_settings(config), optimisations(config))
    work = file.with_suffix(".work")
    options = LoopOptions(seed=config.seed, log_every=25, checkpoint_every=500, keep_last=1, resume=True)
    trained = run_stages(
        [stage],
        lambda name, start, end: pair_loader(pairs, start, end, 0),
        options,
        engine=engine,
        run=work,
        previous=Given(base.segmenter),
    )
    result, wall = trained.stages["step1"], time.monotonic() - began
    told: dict[str, Any] = {"iterations": iterations, "seconds": round(result.seconds, 1), "command_seconds": round(wall, 1)}
    told["processor_seconds"] = None if result.processor_seconds is None else round(result.processor_seconds, 1)
    told["peak_memory_gib"] = round(result.peak_memory_gib, 3)
    scoring = scoring_of(config, engine.format)
    for name, predictor in (("before", base.predictor()), ("miou", trained.method.predictor("ema"))):
        engine.place(predictor)
        scores = evaluate(scoring.apply(predictor), data.val, data.label_space, title=f"Scoring {name}")
        told |= {name: scores.miou, "iou": scores.iou}
    file.write_text(json.dumps(told), encoding="utf-8")
    shutil.rmtree(work)


def table(folder: Path) -> str:
    """Means over the seeds that have both sides; shares are those of the longest step 1 of the same pair."""
    items = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
    lines = [
        "| pair | what | seeds | before | gain | seconds | of the processor | command | GiB | share of gain | of seconds | of memory |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for pair in PAIRS:
        of_pair = [item for item in items if item["pair"] == pair]
        step1 = [item for item in of_pair if item["kind"].startswith("step1-")]
        longest = max((item["iterations"] for item in step1), default=0)
        ruler = {item["seed"]: item for item in step1 if item["iterations"] == longest}
        for kind in sorted({item["kind"] for item in of_pair}, key=lambda kind: (not kind.startswith("step1-"), kind)):
            rows = [item for item in of_pair if item["kind"] == kind]
            gains = [item["miou"] - item["before"] for item in rows]
            spread = f" ({min(gains):+.2f} to {max(gains):+.2f})" if len(gains) > 1 else ""
            cells = [pair, kind, str(len(rows)), f"{mean(item['before'] for item in rows):.2f}", f"{mean(gains):+.2f}{spread}"]
            cells += [f"{mean(item[key] for item in rows):.{digits}f}" for key, digits in MEASURED]
            shared = [item for item in rows if item["seed"] in ruler]
            cells += shares(shared, [ruler[item["seed"]] for item in shared]) if shared else ["–"] * 3
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


MEASURED = (("seconds", 0), ("processor_seconds", 0), ("command_seconds", 0), ("peak_memory_gib", 2))


def shares(rows: list[dict[str, Any]], rulers: list[dict[str, Any]]) -> list[str]:
    """Of step 1's gain, seconds of the processor and memory, of sums over the seeds, in percent."""

    def share(value: float, whole: float) -> str:
        return f"{100 * value / whole:.0f} %" if whole > 0 else "–"

    gain = [sum(item["miou"] - item["before"] for item in each) for each in (rows, rulers)]
    others = [[sum(item[key] for item in each) for each in (rows, rulers)] for key in ("processor_seconds", "peak_memory_gib")]
    return [share(*gain), *(share(*each) for each in others)]


if __name__ == "__main__":
    main()
