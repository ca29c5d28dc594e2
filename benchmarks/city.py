"""Speed of the generated city on one core: scenes a second, rendered and written (layout gta5), for both worlds."""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import cv2

from iccld.city import WORLDS, generate, render_scene
from iccld.progress import set_quiet


def main() -> None:
    """Print one line a world."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num", type=int, default=40, help="scenes to time in each world")
    parser.add_argument("--size", type=int, nargs=2, default=(256, 512), metavar=("H", "W"))
    arguments = parser.parse_args()
    size = (arguments.size[0], arguments.size[1])
    cv2.setNumThreads(1)
    set_quiet(True)
    for world in WORLDS:
        for seed in range(8):  # fills the caches of textures and trees
            render_scene(world, 1000 + seed, size)
        start = time.process_time()
        for seed in range(arguments.num):
            render_scene(world, seed, size)
        rendered = time.process_time() - start
        with tempfile.TemporaryDirectory() as folder:
            start = time.process_time()
            generate(world, "gta5", arguments.num, size, 0, Path(folder) / "data", workers=1)
            written = time.process_time() - start
        print(
            f"{world} {size[0]}x{size[1]}: {arguments.num / rendered:.1f} scenes/s rendered, {arguments.num / written:.1f} scenes/s written"
        )


if __name__ == "__main__":
    main()
