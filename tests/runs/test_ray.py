"""The script of docs/ray.md on a local Ray."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from iccld.cli import main

from ..workshop import Workshop

SCRIPT = Path(__file__).parents[2] / "docs" / "ray" / "predict_on_ray.py"


def test_the_script_is_short() -> None:
    assert len(SCRIPT.read_text().splitlines()) <= 40


@pytest.mark.slow
def test_ray_predicts_what_the_command_predicts(finished: Path, workshop: Workshop, tmp_path: Path) -> None:
    pytest.importorskip("ray.data")
    pictures = tmp_path / "pictures"
    (pictures / "a").mkdir(parents=True)
    for number, picture in enumerate(sorted((workshop.data.target / "leftImg8bit").rglob("*.png"))):
        shutil.copy(picture, pictures / "a" / f"{number}.png")
    # Ray's workers are nicer than anybody, and starve on a busy machine.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "RAY_worker_niceness": "0"}
    command = [sys.executable, str(SCRIPT), str(finished), str(pictures), str(tmp_path / "ray"), "1"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=1800, env=environment, check=False)
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert "6 pictures, mean confidence" in ran.stdout
    assert main(["predict", str(finished), str(pictures), "--out", str(tmp_path / "own")]) == 0
    for number in range(6):
        by_ray = (tmp_path / "ray" / "a" / f"{number}.png.png").read_bytes()
        own = (tmp_path / "own" / "train_ids" / "a" / f"{number}.png").read_bytes()
        assert _pixels(by_ray, tmp_path / "x.png") == _pixels(own, tmp_path / "y.png")


def _pixels(data: bytes, path: Path) -> bytes:
    from PIL import Image

    path.write_bytes(data)
    with Image.open(path) as image:
        return image.tobytes()
