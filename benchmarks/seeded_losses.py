"""Seeded losses of every method, to be compared before and after a change that should alter no number: print twice, and `diff`.

    python benchmarks/seeded_losses.py [--iterations 20] [--only dacs,iccld] > losses.txt

Every method trains all of its stages with a compact network from scratch, in fp32 with one thread, on a few small generated scenes, through
the command `python -m iccld adapt`.  One line an iteration, with all digits and without times: what metrics.jsonl holds.  The same on one
machine with one set of packages; another processor may round otherwise.  The file runs on earlier commits too (from f3025dd on): set
PYTHONPATH to their `src`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

STAGES: dict[str, tuple[str, ...]] = {
    "iccld": ("step1", "step2"),
    "iccld_paper": ("step1", "step2"),
    "proda": ("warmup", "stage1", "stage2", "stage3"),
}
"""Stages after `source`; other methods have `adapt` alone."""

LOW: dict[str, Any] = {"threshold": 0.2}
"""Networks that have learnt for 20 iterations are not confident: with the methods' own thresholds no pseudo-label would count."""

OTHER_READINGS = {"task_weight": 1.0, "train_decoder": True, "diffuse": "label", "condition": "view", "discriminate": "features"}

RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    "adaptsegnet": ("adaptsegnet", {"levels": 2}),
    "bapa": ("bapa", LOW),
    "cbst": ("cbst", {}),
    "cluda": ("cluda", LOW),
    "corda": ("corda", LOW),
    "dacs": ("dacs", LOW),
    "daformer": ("daformer", LOW),
    "hrda": ("hrda", LOW),
    "iccld": ("iccld", LOW),
    "iccld_paper": ("iccld_paper", LOW),
    "iccld_paper, other readings": ("iccld_paper", LOW | OTHER_READINGS),
    "mic": ("mic", LOW),
    "mic, two resolutions": ("mic", LOW | {"resolutions": 2}),
    "proda": ("proda", LOW),
    "source_only": ("source_only", {}),
}
"""Title: method and its settings."""


def recipe(method: str, settings: dict[str, Any], iterations: int) -> dict[str, Any]:
    """A run in a minute: 8 scenes a domain of 64 x 128 pixels; augmentation and class weights are on."""
    scenes = {"num": 8, "size": "64x128"}
    stages = ("source", *STAGES.get(method, ("adapt",)))
    return {
        "method": method,
        "settings": settings,
        "batch_size": 2,
        "source": {"format": "gta5", "generate": {"world": "sim", "layout": "gta5", "seed": 1, **scenes}},
        "target": {"format": "cityscapes", "split": "train", "generate": {"world": "camera", "layout": "cityscapes", "seed": 2, **scenes}},
        "size": {"source": "64x128", "target": "64x128", "crop": "64x64"},
        "network": {"widths": [8, 16, 16, 24, 32], "decoder_width": 16, "denoiser_widths": [16, 32]},
        "stages": {stage: {"iterations": iterations, "learning_rate": 1e-3} for stage in stages},
        "augmentation": {"half_resolution": 0.5, "scale_min": 1.0},
        "sampling": {"class_balance": 0.5},
        "runtime": {"log_every": 1, "checkpoint_every": iterations, "precision": "fp32", "device": "cpu", "threads": 1},
    }


def train(title: str, iterations: int, folder: Path) -> list[str]:
    """Train one of `RUNS`; the lines of its metrics without the time."""
    method, settings = RUNS[title]
    file = folder / "losses.yaml"  # JSON is YAML
    file.write_text(json.dumps(recipe(method, settings, iterations)), encoding="utf-8")
    name = title.replace(", ", "_").replace(" ", "_")
    command = [sys.executable, "-m", "iccld", "adapt", "--recipe", str(file), "--name", name, "--runtime.out", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    if done.returncode:
        raise SystemExit(f"{title}: {' '.join(command)} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    records = [json.loads(line) for line in (folder / name / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [json.dumps({key: value for key, value in record.items() if key != "time"}) for record in records]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--iterations", type=int, default=20)
    parser.add_argument("--only", default=",".join(sorted({method for method, _ in RUNS.values()})), help="methods, separated by commas")
    arguments = parser.parse_args()
    wanted = arguments.only.split(",")
    with tempfile.TemporaryDirectory() as folder:
        for title, (method, _) in RUNS.items():
            if method in wanted:
                print(f"# {title}")
                print("\n".join(train(title, arguments.iterations, Path(folder))), flush=True)


if __name__ == "__main__":
    main()
