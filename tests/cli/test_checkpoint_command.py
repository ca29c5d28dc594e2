"""`iccld checkpoint list | verify | prune` on a run made of small checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from iccld.cli import main
from iccld.training import checkpoint
from iccld.training.checkpoint import Payload
from iccld.training.inventory import take_inventory
from iccld.training.lock import lock_run


def save(run: Path, stage: str, iteration: int, order: int, best: dict[str, Any] | None = None) -> Path:
    payload = Payload({"net.weight": torch.ones(4)}, {}, {"progress": {"best": best}})
    return checkpoint.save(checkpoint.stage_directory(run, stage), iteration, payload, order=order, keep_last=100)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Two stages, `warm` before `adapt`; the best of `adapt` is iteration 2."""
    save(tmp_path / "run", "warm", 9, 0)
    for iteration in (2, 4, 6):
        save(tmp_path / "run", "adapt", iteration, 1, {"miou": 50.0, "iteration": 2})
    return tmp_path / "run"


def damage(path: Path) -> None:
    content = bytearray((path / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (path / "model.safetensors").write_bytes(content)


def test_list_and_verify_show_every_checkpoint_in_order(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command, word in (("list", "complete"), ("verify", "whole")):
        assert main(["checkpoint", command, str(run)]) == 0
        lines = [line.split() for line in capsys.readouterr().out.splitlines()]
        assert lines[0] == ["stage", "iteration", "MiB", "saved", "state"]
        assert [line[:2] for line in lines[1:]] == [["warm", "9"], ["adapt", "2"], ["adapt", "4"], ["adapt", "6"]]
        assert [line[5:] for line in lines[1:]] == [[word], [f"{word},", "best"], [word], [word]]


def test_fault_07_verify_exits_4_and_names_the_broken_file(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damage(run / "checkpoints" / "adapt" / "00000004")
    assert main(["checkpoint", "list", str(run)]) == 0  # the sizes are right
    capsys.readouterr()
    assert main(["checkpoint", "verify", str(run)]) == 4
    broken = [line for line in capsys.readouterr().out.splitlines() if "broken" in line]
    assert len(broken) == 1
    assert "model.safetensors is damaged" in broken[0]
    (run / "checkpoints" / "adapt" / "00000006" / "state.json").unlink()
    assert main(["checkpoint", "list", str(run)]) == 4
    assert "state.json is missing" in capsys.readouterr().out


def test_prune_keeps_the_newest_whole_and_the_best(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(run, "adapt", 8, 1, {"miou": 50.0, "iteration": 2})
    damage(run / "checkpoints" / "adapt" / "00000008")
    leftover = run / "checkpoints" / "adapt" / ".tmp-00000009-abc"
    leftover.mkdir()
    assert [path.name for path in take_inventory(run).leftovers] == [leftover.name]
    assert main(["checkpoint", "prune", str(run)]) == 0
    assert [Path(line).name for line in capsys.readouterr().out.split()] == ["00000004", "00000008", leftover.name]
    assert checkpoint.iterations(run / "checkpoints" / "adapt") == [2, 6]
    assert checkpoint.iterations(run / "checkpoints" / "warm") == [9]
    assert not leftover.exists()
    assert main(["checkpoint", "prune", str(run), "--keep_last", "3"]) == 0
    assert checkpoint.iterations(run / "checkpoints" / "adapt") == [2, 6]


def test_prune_removes_nothing_of_a_stage_without_a_whole_checkpoint(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damage(run / "checkpoints" / "warm" / "00000009")
    assert main(["checkpoint", "prune", str(run)]) == 4
    assert "warm has no whole checkpoint left" in capsys.readouterr().err
    assert checkpoint.iterations(run / "checkpoints" / "warm") == [9]


def test_prune_waits_for_nobody(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with lock_run(run):
        assert main(["checkpoint", "prune", str(run)]) == 4
    assert "in use by process" in capsys.readouterr().err
    assert checkpoint.iterations(run / "checkpoints" / "adapt") == [2, 4, 6]


@pytest.mark.parametrize("command", ["list", "verify", "prune"])
def test_what_is_no_run_is_refused_and_left_alone(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["checkpoint", command, str(tmp_path / "nowhere")]) == 4
    assert "is not a run" in capsys.readouterr().err
    assert not (tmp_path / "nowhere").exists()
    (tmp_path / "checkpoints" / "step1").mkdir(parents=True)
    assert main(["checkpoint", command, str(tmp_path)]) == 4
    assert "has no checkpoint" in capsys.readouterr().err
