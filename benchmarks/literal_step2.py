"""What step 2 does when the paper is read to the letter: trained from a finished demo's step 1, beside its control.

    iccld demo && python benchmarks/literal_step2.py runs/demo --iterations 300

From the averaged weights of the run's step 1, three continuations of as many iterations each on the same batches: `letter` (method
iccld_paper, defaults), `control` (step 1 again), and with --ours `iccld`'s step 2.  Prints one JSON object a line: mIoU in percent on the
run's validation split with the averaged weights, by number of DDIM steps where there is a sampler, the identity gap of target pictures,
and the denoiser's error (Eq. 6) over the last tenth of the iterations.  Nothing is written into the run.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import torch

from iccld.assembly.chosen import method_settings, registered_method
from iccld.assembly.objects import class_weights, make_parts, open_data, optimisations, pair_dataset
from iccld.batch import DomainBatch
from iccld.config import load_config
from iccld.data.check import class_statistics
from iccld.data.pairs import pair_loader
from iccld.evaluation import evaluate
from iccld.measure.alignment import identity_gap
from iccld.methods.common.protocol import DiffusionMethod, Method, Stage
from iccld.methods.common.supervised import Supervised
from iccld.training import checkpoint, snapshot
from iccld.training.engine import Engine
from iccld.training.options import LoopOptions
from iccld.training.stages import run_stages


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--iterations", type=int, default=300)
    parser.add_argument("--learning_rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, nargs="*", default=[1, 50])
    parser.add_argument("--only", nargs="*", default=["letter", "control"], choices=["letter", "control", "ours"])
    given = parser.parse_args()
    torch.set_num_threads(1)
    for name in given.only:
        print(json.dumps({"name": name} | continuation(name, given)), flush=True)


def continuation(name: str, given: argparse.Namespace) -> dict[str, Any]:
    """Train one of the three, score it."""
    stage_name = "step1" if name == "control" else "step2"
    options = {"method": "iccld_paper" if name == "letter" else "iccld", "seed": given.seed}
    schedule = {"iterations": given.iterations, "learning_rate": given.learning_rate}
    options |= {f"stages.{stage_name}.{key}": value for key, value in schedule.items()}
    config = load_config("demo", [word for key, value in options.items() for word in (f"--{key}", str(value))])
    engine = Engine(accelerator="cpu", precision="fp32", num_threads=1, max_norm=config.runtime.clip_norm)
    data = open_data(config)
    pairs = pair_dataset(config, data)
    balance = config.sampling.class_balance
    parts = make_parts(config, data.label_space, class_weights(class_statistics(data.source), balance) if balance else None)
    stages = registered_method(config.method).stages(parts, method_settings(config), optimisations(config))
    stage = next(stage for stage in stages if stage.name == stage_name)
    step1 = Supervised(parts, optimisations(config)["source"])  # holds step 1's networks; a step 1 has no others
    snapshot.restore_networks(step1, checkpoint.load(checkpoint.find(given.run, "step1")))
    val = data.val
    assert val is not None

    def miou(method: Method, steps: int | None = None) -> float:
        predictor = method.predictor("ema", steps) if isinstance(method, DiffusionMethod) else method.predictor("ema")
        return round(evaluate(predictor, val, data.label_space, title=f"Scoring {name}").miou, 2)

    told: dict[str, Any] = {"iterations": given.iterations, "learning_rate": given.learning_rate, "seed": given.seed}
    told["before"] = miou(step1)
    with tempfile.TemporaryDirectory() as folder:
        method, errors = train(stage, step1, pairs, engine, Path(folder), given.seed)
    if not isinstance(method, DiffusionMethod):
        return told | {"after": miou(method)}
    told |= {"denoise": errors, "after": {str(steps): miou(method, steps) for steps in given.steps}}
    return told | {"identity_gap": {str(steps): round(identity_gap(method.predictor("ema", steps), pairs), 4) for steps in given.steps}}


def train(stage: Stage, previous: Method, pairs: Any, engine: Engine, folder: Path, seed: int) -> tuple[Method, float | None]:
    """The finished method, and the mean error of Eq. 6 over the last tenth."""

    before = load_config("demo").stages
    first = before["source"].iterations + before["step1"].iterations  # where they ended in the sequence of batches

    def loader(name: str, start: int, end: int) -> Any:
        return pair_loader(pairs, first + start, first + end, 0)

    class Scale:
        def __iter__(self) -> Any:
            return iter([DomainBatch(*pairs[number]) for number in range(8)])

    result = run_stages(
        [stage],
        loader,
        LoopOptions(seed=seed, log_every=10, checkpoint_every=10**9),
        engine=engine,
        run=folder,
        previous=previous,
        target_loader=Scale(),
    )
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    errors = [line["losses"]["denoise"] for line in lines if "denoise" in line.get("losses", {})]
    last = errors[-max(len(errors) // 10, 1) :]
    return result.method, round(sum(last) / len(last), 5) if last else None


if __name__ == "__main__":
    main()
