"""What a prediction of finished runs costs a processor, beside each other, whatever else the machine does.

    python benchmarks/prediction_time.py RUN... [--size 192x384] [--rounds 5]

Milliseconds of processor time from a random picture of that size to its classes, one thread, fp32 or the run's own format: the median of
`rounds`, run by run in turn, after one round that does not count.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import median

import torch

from iccld.config import parse_size
from iccld.measure.cost import prediction_seconds
from iccld.runs import load_predictor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--size", default="192x384")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(1)
    size = parse_size(given.size)
    picture = torch.randint(0, 256, (1, 3, *size), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    predictors = {run: load_predictor(run, device="cpu").eval() for run in given.runs}
    taken: dict[Path, list[float]] = {run: [] for run in predictors}
    for _ in range(given.rounds + 1):
        for run, predictor in predictors.items():
            taken[run].append(1000 * prediction_seconds(predictor, picture)[1])
    print("| run | processor ms a picture |\n|---|---:|")
    for run, each in taken.items():
        print(f"| {run.name} | {median(each[1:]):.0f} |")


if __name__ == "__main__":
    main()
