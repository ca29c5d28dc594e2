"""Speed of the generated city on one core: scenes a second, rendered and written (layout gta5), beside what files alone allow.

    python benchmarks/city.py [--before DIR] [--worlds sim camera] [--sizes 192x384 256x512] [--num 40] [--rounds 3] [--sheet JPG]

Everything is told by the processor's time of one process with one thread, so that other processes on the machine count little.

- `rendered`: `render_scene`, after a few scenes that fill the caches of textures and trees;
- `written`: the same scenes, rendered and saved as `generate` saves them;
- `files`: saving scenes that are rendered already: the bound of drawing that costs nothing;
- with `--before`, another tree of this project (say `git worktree add DIR ef936d1`): both draw the same scenes in turns, a few at a time,
  each in a process of its own; the ratio is the median over the turns, and the checksums of all scenes must agree.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path
from statistics import median

import cv2
import numpy as np

SEEDS = (400, 403, 407, 410, 413, 419, 423, 409)
"""Scenes of `sim` on the contact sheet."""
WARM_UP = 40
AT_ONCE = 4
"""Scenes a turn."""


def write_sheet(path: Path, size: tuple[int, int] = (144, 192)) -> None:
    """Scenes of `sim` beside their labels, two pairs a row, and a row of the other worlds."""
    from iccld.city import WORLDS, render_scene
    from iccld.labels import CITYSCAPES19

    palette = np.zeros((256, 3), np.uint8)
    palette[:19] = CITYSCAPES19.palette
    tiles = []
    for seed in SEEDS:
        scene = render_scene("sim", seed, (2 * size[0], 2 * size[1]))
        tiles += [scene.image, palette[scene.label]]
    tiles += [render_scene(world, 1, (2 * size[0], 2 * size[1])).image for world in WORLDS[1:]]
    small = [cv2.resize(tile, size[::-1], interpolation=cv2.INTER_AREA) for tile in tiles]
    sheet = np.concatenate([np.concatenate(small[i : i + 4], axis=1) for i in range(0, len(small), 4)])
    cv2.imwrite(str(path), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 80])


# --- the process of one tree: a JSON line in, a JSON line out --------------------------------------------------------------------


def draw_on_request() -> None:
    """For each line (world, size, first seed, number): seconds of rendering, seconds of saving, and the scenes' checksum."""
    from iccld.city import render_scene
    from iccld.city.writers import _folders, _write_gta5

    cv2.setNumThreads(1)
    for line in sys.stdin:
        world, size, first, num = json.loads(line)
        start = time.process_time()
        scenes = [render_scene(world, seed, tuple(size)) for seed in range(first, first + num)]
        rendered = time.process_time() - start
        with tempfile.TemporaryDirectory() as folder:
            for name in _folders("gta5", "train"):
                Path(folder, name).mkdir(parents=True)
            start = time.process_time()
            for index, scene in enumerate(scenes):
                _write_gta5(scene, Path(folder), world, "train", index)
            saved = time.process_time() - start
        checksum = 0
        for scene in scenes:
            for array in scene:
                checksum = zlib.crc32(array.tobytes(), checksum)
        print(json.dumps([rendered, saved, checksum]), flush=True)


class Tree:
    """A tree of this project with a process that draws on request."""

    def __init__(self, root: Path) -> None:
        path = os.pathsep.join([str(root / "src"), os.environ.get("PYTHONPATH", "")])
        environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
        words = [sys.executable, __file__, "--one"]
        self.process = subprocess.Popen(words, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def draw(self, world: str, size: tuple[int, int], first: int, num: int) -> list[float]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps([world, size, first, num]), file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("a process that draws scenes has ended; its error stands above")
        answer: list[float] = json.loads(line)
        return answer

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def compare(trees: list[Tree], world: str, size: tuple[int, int], num: int, rounds: int) -> None:
    """Time the same scenes in every tree, in turns, and print a line a tree."""
    firsts = range(0, num, AT_ONCE)
    seconds = np.full((len(trees), len(firsts), 2), np.inf)  # the least of the rounds
    for _ in range(rounds):
        for turn, first in enumerate(firsts):
            checksums = set()
            for place, tree in enumerate(trees):
                *spent, checksum = tree.draw(world, size, first, min(AT_ONCE, num - first))
                seconds[place, turn] = np.minimum(seconds[place, turn], spent)
                checksums.add(checksum)
            if len(checksums) > 1:
                raise SystemExit(f"{world} {size[0]}x{size[1]}: scenes from seed {first} on differ between the trees")
    for place, name in enumerate(("after", "before")[: len(trees)]):
        rendered, saved = (num / seconds[place].sum(axis=0)).tolist()
        written = 1 / (1 / rendered + 1 / saved)
        print(
            f"{world} {size[0]}x{size[1]}, {name}: {rendered:.1f} scenes/s rendered, {written:.1f} written, files alone {saved:.0f}",
            flush=True,
        )
    if len(trees) > 1:
        gains = [median((seconds[1, :, :k].sum(axis=1) / seconds[0, :, :k].sum(axis=1)).tolist()) for k in (1, 2)]
        print(f"{world} {size[0]}x{size[1]}: times as many, rendered {gains[0]:.3f}, written {gains[1]:.3f}", flush=True)


def main() -> None:
    """Print one line a world, a size and a tree."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, help="another tree of this project")
    parser.add_argument("--worlds", nargs="+", default=["sim", "camera", "night", "rain", "fog"])
    parser.add_argument("--sizes", nargs="+", default=["256x512"], metavar="HxW")
    parser.add_argument("--num", type=int, default=40, help="scenes to time in each world")
    parser.add_argument("--rounds", type=int, default=1, help="how often each scene is drawn; its least time counts")
    parser.add_argument("--sheet", type=Path, metavar="JPG", help="write a contact sheet instead of timing anything")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        draw_on_request()
        return
    if arguments.sheet is not None:
        write_sheet(arguments.sheet)
        return
    roots = [Path(__file__).parents[1], *([arguments.before] if arguments.before is not None else [])]
    trees = [Tree(root) for root in roots]
    for world in arguments.worlds:
        for words in arguments.sizes:
            height, width = map(int, words.split("x"))
            for tree in trees:  # the caches hardly depend on the size
                tree.draw(world, (height, width), 1000, WARM_UP if words == arguments.sizes[0] else 8)
            compare(trees, world, (height, width), arguments.num, arguments.rounds)
    for tree in trees:
        tree.close()


if __name__ == "__main__":
    main()
