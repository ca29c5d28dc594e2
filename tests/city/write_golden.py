"""Writes golden_scenes.json: the sparse grids that test_city_labels.py compares.  Run it after raising VERSION."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np

from iccld.city import VERSION, WORLDS, render_scene


def main() -> None:
    """Draw one scene of every world and keep its mean grey in 6 x 10 cells and its class shares."""
    grids, shares = {}, {}
    for world in WORLDS:
        scene = render_scene(world, 77, (96, 160))
        grids[world] = cv2.resize(scene.image, (10, 6), interpolation=cv2.INTER_AREA).mean(axis=2).round(2).tolist()
        shares[world] = (np.bincount(scene.label.ravel(), minlength=256)[:19] / scene.label.size).round(5).tolist()
    text = json.dumps({"version": VERSION, "grids": grids, "shares": shares})
    (Path(__file__).parent / "golden_scenes.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
