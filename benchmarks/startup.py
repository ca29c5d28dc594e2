"""How long commands take to begin and to refuse, beside `import torch` alone.

    python benchmarks/startup.py [--repeat 5] [--run RUN --picture FILE]

Every line is a process of its own, timed from its start: `predict`, `evaluate` and `report` until they open their first picture, refusals
until they have ended, `import torch` until it is done (to end such an interpreter takes time too).  A first round, which is not counted,
writes the bytecode and warms the file system's cache.  Seconds are the median over the rounds, of a clock and of the processor; the lines
take turns, so that a busy machine is busy for all of them.  "Without bytecode" compiles every import again, as in containers that set
PYTHONDONTWRITEBYTECODE.  Without --run, a run with the demo's networks is made first, of one step a stage on a few scenes.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from iccld.cli import main

UNTIL_FIRST_PICTURE = """
import os, sys
folder = os.path.realpath(sys.argv.pop(1))
def stop(event, arguments):
    if event == "open" and isinstance(arguments[0], (str, os.PathLike)):
        path = os.path.realpath(os.fspath(arguments[0]))
        if path.startswith(folder) and path.endswith((".png", ".jpg")):
            os._exit(77)
sys.addaudithook(stop)
from iccld.cli import main
main(sys.argv[1:])
"""
"""Runs the command given; ends with 77 when a picture below the folder given first is opened."""

SHORT = [
    *("--source.generate.num", "4", "--target.generate.num", "2", "--val.generate.num", "2", "--source.holdout", "0"),
    *("--evaluation.compare_images", "1", *(f"--stages.{stage}.iterations=1" for stage in ("source", "step1", "step2"))),
]

Line = tuple[str, list[str], int]
"""What it is called, the program's words, the exit code it must end with."""


def make_run(folder: Path) -> tuple[Path, Path]:
    """A run with the demo's networks, and one of its pictures."""
    os.environ["ICCLD_CACHE"] = str(folder / "cache")
    if main(["adapt", "--recipe", "demo", "--no_estimate", "--quiet", "--name", "short", "--runtime.out", str(folder), *SHORT]):
        raise SystemExit("the run could not be made")
    return folder / "short", next((folder / "cache").rglob("val/**/*_leftImg8bit.png"))


def lines_of(run: Path, picture: Path, folder: Path) -> list[Line]:
    """Everything that is timed."""

    def begun(command: str, below: Path, *words: object) -> Line:
        return (f"{command} to its first picture", ["-c", UNTIL_FIRST_PICTURE, str(below), command, *map(str, words)], 77)

    def refused(title: str, code: int, *words: object) -> Line:
        return (f"refused: {title}", ["-m", "iccld", *map(str, words)], code)

    data = picture.parent
    while not (data / "leftImg8bit").is_dir() and data != data.parent:
        data = data.parent
    out = folder / "out"
    return [
        ("import torch", ["-c", "import os, torch; os._exit(0)"], 0),
        begun("predict", picture.parent, run, picture, "--out", out, "--quiet"),
        begun("evaluate", data, run, "--data", data, "--quiet"),
        begun("report", run / "pictures", run),
        ("--help", ["-m", "iccld", "--help"], 0),
        refused("a run that is not there", 4, "predict", folder / "nowhere", picture, "--out", out),
        refused("pictures that are not there", 3, "predict", run, folder / "nowhere", "--out", out),
        refused("data that are not there", 3, "adapt", "--recipe", "city_to_camvid", "--target.path", folder / "nowhere"),
        refused("a misspelt key", 2, "adapt", "--recipe", "demo", "--stages.step1.iteration", "5"),
        refused("a misspelt stage", 2, "adapt", "--recipe", "demo", "--stages.stpe1.iterations", "5"),
        refused("a misspelt setting of the method", 2, "adapt", "--recipe", "demo", "--settings.thresold", "0.9"),
        refused("an unknown method", 2, "adapt", "--recipe", "demo", "--method", "dafromer"),
        refused("an unknown method of a comparison", 2, "compare", "--recipe", "demo", "--methods", "dafromer", "--out", out),
    ]


def seconds(line: Line, environment: dict[str, str]) -> tuple[float, float]:
    """(by the clock, by the processor) of one process."""
    title, words, code = line
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run([sys.executable, *words], env=environment, capture_output=True, text=True, check=False)
    clock, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != code:
        raise SystemExit(f"{title}: ended with {done.returncode}, not {code}: {done.stderr[-500:]}")
    return clock, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def table(lines: Sequence[Line], repeat: int, folder: Path) -> None:
    """Time every line and print the table."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    kept["PYTHONPYCACHEPREFIX"] = str(folder / "bytecode")
    bare = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPYCACHEPREFIX": str(folder / "none")}
    rounds: dict[str, list[tuple[float, float]]] = {line[0]: [] for line in lines}
    for number in range(repeat + 1):
        for line in lines:
            taken = seconds(line, kept)
            rounds[line[0]] += [taken] if number else []
    without = {line[0]: seconds(line, bare) for line in lines}
    torch_clock, torch_cpu = (median(one[kind] for one in rounds["import torch"]) for kind in (0, 1))
    print(f"\n{'':42}{'with bytecode':>26}{'beyond import torch':>22}{'without bytecode':>20}")
    print(f"{'seconds':42}{'clock':>13}{'processor':>13}{'clock':>11}{'processor':>11}{'clock':>10}{'processor':>10}")
    for title, _, _ in lines:
        clock, cpu = (median(one[kind] for one in rounds[title]) for kind in (0, 1))
        beyond = f"{clock - torch_clock:11.2f}{cpu - torch_cpu:11.2f}" if "first picture" in title else " " * 22
        print(f"{title:42}{clock:13.2f}{cpu:13.2f}{beyond}{without[title][0]:10.2f}{without[title][1]:10.2f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--picture", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        run, picture = make_run(Path(made)) if arguments.run is None else (arguments.run, arguments.picture)
        table(lines_of(run, picture, Path(made)), arguments.repeat, Path(made))
