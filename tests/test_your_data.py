"""docs/your-data.md, walked as a newcomer would: its files, its two commands, on two folders of ten pictures each."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from iccld.cli import main

PAGE = (Path(__file__).parents[1] / "docs" / "your-data.md").read_text(encoding="utf-8")
STEPS = {"stages.source.iterations": 3, "stages.step1.iterations": 2, "stages.step2.iterations": 2}
SHORT = [
    *(word for key, count in STEPS.items() for word in (f"--{key}", str(count))),
    *("--runtime.threads", "1", "--evaluation.estimate_pictures", "2"),
]
IDS = (0, 1, 3, 5, 8)


def test_two_folders_become_masks_with_two_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ICCLD_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for folder in ("drone/images", "drone/masks", "phone"):
        (tmp_path / folder).mkdir(parents=True)
    for i in range(10):
        for folder in ("drone/images", "phone"):
            Image.fromarray(rng.integers(0, 256, (120, 160, 3), dtype=np.uint8)).save(tmp_path / folder / f"{i:04d}.jpg")
        Image.fromarray(rng.choice(np.array(IDS, dtype=np.uint8), (120, 160))).save(tmp_path / "drone" / "masks" / f"{i:04d}.png")
    for text in re.findall(r"```yaml\n# (\S+)\n(.*?)```", PAGE, flags=re.DOTALL):
        (tmp_path / text[0]).write_text(text[1])
    commands = [shlex.split(line)[1:] for line in re.findall(r"^iccld .*$", PAGE, flags=re.MULTILINE)][:2]
    assert [command[0] for command in commands] == ["adapt", "predict"]
    assert main([*commands[0], *SHORT]) == 0
    assert main(commands[1]) == 0
    assert "error" not in capfd.readouterr().err
    masks = sorted((tmp_path / "masks" / "train_ids").glob("*.png"))
    assert [path.stem for path in masks] == [f"{i:04d}" for i in range(10)]
    for path in masks:
        with Image.open(path) as image:
            values = np.asarray(image)
        assert values.shape == (120, 160)
        assert int(values.max()) < 4


def test_the_page_tells_all_eighteen() -> None:
    numbers = re.findall(r"^\| (\d+) \| .+ \| .+ \| .+ \|$", PAGE, flags=re.MULTILINE)
    assert numbers == [str(number) for number in range(1, 19)]
