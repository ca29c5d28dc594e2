"""Speed of the generated city on one core: scenes a second, rendered and written (layout gta5), for both worlds."""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from iccld.city import WORLDS, generate, render_scene
from iccld.labels import CITYSCAPES19
from iccld.progress import set_quiet

SEEDS = (400, 403, 407, 410, 413, 419, 423, 409)
"""Scenes of `sim` on the contact sheet."""


def write_sheet(path: Path, size: tuple[int, int] = (144, 192)) -> None:
    """Scenes of `sim` beside their labels, two pairs a row, and a row of the other worlds."""
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


def main() -> None:
    """Print one line a world."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num", type=int, default=40, help="scenes to time in each world")
    parser.add_argument("--size", type=int, nargs=2, default=(256, 512), metavar=("H", "W"))
    parser.add_argument("--sheet", type=Path, metavar="JPG", help="write a contact sheet instead of timing anything")
    arguments = parser.parse_args()
    if arguments.sheet is not None:
        write_sheet(arguments.sheet)
        return
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
