"""What a command imports: only what it needs, and to refuse, no PyTorch.  Told by `sys.modules` of its own process, never by a clock."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

import iccld

HEAVY = ("torch", "diffusers", "transformers", "lightning_fabric", "torch._dynamo", "huggingface_hub", "cv2", "scipy", "sympy")
"""What takes long to import."""

PROGRAM = """
import sys
from iccld.cli import main
try:
    code = main(sys.argv[1:])
except SystemExit as ended:
    code = ended.code
print("code", code)
print("modules", *sorted(sys.modules))
"""


class Told(NamedTuple):
    """What a command came to."""

    code: int
    error: str
    heavy: set[str]
    own: set[str]
    """Modules of this package, without its name in front."""


def told(*words: object, folder: Path | None = None) -> Told:
    """The command in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *map(str, words)], capture_output=True, text=True, timeout=120, cwd=folder, check=False
    )
    code, modules = done.stdout.splitlines()[-2:]
    names = set(modules.split()[1:])
    own = {name.removeprefix("iccld.") for name in names if name.startswith("iccld.")}
    return Told(int(code.split()[1]), done.stderr, {name for name in HEAVY if name in names}, own)


def test_what_is_heavy_is_heavy() -> None:
    """Were a module renamed, everything below would pass."""
    import cv2
    import diffusers
    import huggingface_hub
    import lightning_fabric
    import torch._dynamo
    import transformers

    assert {cv2, diffusers, huggingface_hub, lightning_fabric, torch._dynamo, transformers} <= set(sys.modules.values())


@pytest.mark.parametrize(
    "words",
    [
        *("--help", "--version", "completion bash", "adapt --help", "predict --help"),
        *("adapt --recipe demo --print_config", "adapt --help_settings"),
    ],
)
def test_help_imports_nothing_heavy(words: str) -> None:
    found = told(*words.split())
    assert (found.code, found.heavy) == (0, set())


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ("predict nowhere . --out out", 4, "nowhere is no folder"),
        ("predict RUN nowhere --out out", 3, "nowhere: no such file or folder"),
        ("predict RUN . --out out --stage step3", 4, "did you mean step"),
        ("predict RUN . --outt out", 2, "did you mean --out?"),
        ("evaluate nowhere --data .", 4, "nowhere is no folder"),
        ("evaluate RUN --data nowhere", 3, "nowhere is no folder"),
        ("evaluate RUN --data . --stage stp2", 4, "did you mean step2?"),
        ("evaluate RUN --data . --label_space cityscape19", 2, "cityscapes19"),
        ("report nowhere", 4, "nowhere is no folder"),
        ("adapt --recipe dmo", 2, "did you mean demo?"),
        ("adapt --recipe demo --sede 1", 2, "did you mean seed?"),
        ("adapt --recipe demo --seed one", 2, "seed is one; expected int"),
        ("adapt --recipe demo --settings.thresold 0.9", 2, "did you mean threshold?"),
        ("adapt --recipe demo --settings.threshold high", 2, "settings.threshold is 'high'; expected float"),
        ("adapt --recipe demo --method mic --settings.feature_wieght 1", 2, "did you mean feature_weight?"),
        ("adapt --recipe demo --method mic --settings.masked_view weak", 2, "expected strong or plain"),
        ("adapt --recipe demo --method dafromer", 2, "did you mean daformer?"),
        ("adapt --recipe demo --method nowhere.at:ALL", 2, "there is no module nowhere"),
        ("adapt --recipe demo --stages.stpe1.iterations 5", 2, "did you mean step1?"),
        ("adapt --recipe demo --label_space cityscape19", 2, "cityscapes19"),
        ("adapt --recipe demo --source_checkpoint nowhere", 4, "nowhere is no folder"),
        ("adapt --recipe city_to_camvid --target.path nowhere", 3, "nowhere: no such folder"),
        ("adapt --recipe city_to_camvid --target.path . --val.path nowhere", 3, "no"),
        ("adapt --recipe gta5_to_cityscapes --source.path nowhere --target.path .", 3, "nowhere: no such folder"),
        ("compare --recipe demo --methods dafromer --out out", 2, "did you mean daformer?"),
        ("compare --recipe demo --methods iccld --settings.thresold 1 --out out", 2, "did you mean threshold?"),
        ("ablate --recipe demo --val.path nowhere --val.generate.num 0 --out out", 3, "nowhere: no such folder"),
    ],
)
def test_refusals_need_no_pytorch_and_write_nothing(words: str, code: int, says: str, finished: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "in" / "a.png")
    before = sorted(tmp_path.rglob("*"))
    found = told(*(finished if word == "RUN" else word for word in words.split()), folder=tmp_path)
    errors = [line for line in found.error.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, found.error
    assert says in errors[0]
    assert found.code == code
    assert found.heavy == set()
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(("command", "stage"), [("predict", "source"), ("evaluate", "step1"), ("predict", "step2")])
def test_a_command_that_predicts_imports_one_method_and_no_trainer(
    command: str, stage: str, finished: Path, workshop: Any, tmp_path: Path
) -> None:
    pictures = [workshop.data.val, "--out", tmp_path / "out"] if command == "predict" else ["--data", workshop.data.val]
    found = told(command, finished, *pictures, "--stage", stage, "--quiet")
    assert found.code == 0, found.error
    assert found.heavy <= {"torch", "cv2"}
    assert {name for name in found.own if name.startswith("methods.") and not name.startswith("methods.common")} == {"methods.iccld"}
    assert not found.own & {"city.scene", "measure", "measure.estimate", "report", "runs.run", "training.loop", "models.ldm"}


def test_a_report_needs_no_pytorch(finished: Path) -> None:
    found = told("report", finished)
    assert (found.code, found.heavy) == (0, set())
    assert not {f"methods.{name}" for name in iccld.METHODS} & found.own


def test_the_public_names_are_there_without_pytorch() -> None:
    code = "import iccld, sys; [getattr(iccld, name) for name in iccld.__all__]; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "False"
