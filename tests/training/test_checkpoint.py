"""Faults 1-3, 5-10 and 18: whole or not at all, verified, never overwritten, no pickle."""

from __future__ import annotations

import ast
import errno
import json
import logging
import os
import random
import signal
import time
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from iccld.errors import CheckpointError, NumericError
from iccld.training import checkpoint
from iccld.training.checkpoint import Payload
from iccld.training.packing import pack, unpack

SOURCE = Path(__file__).parents[2] / "src" / "iccld"


def payload(value: float = 1.0) -> Payload:
    weight = torch.full((2, 3, 4, 4), value).to(memory_format=torch.channels_last)
    state = {"optimizers": {"model": {"state": {0: {"step": torch.tensor(3.0)}}, "betas": (0.9, 0.999)}}, "progress": {"iteration": 4}}
    return Payload({"net.weight": weight, "net.tied": weight}, {"net.weight": weight * 2}, state)


@pytest.fixture
def stage(tmp_path: Path) -> Path:
    return checkpoint.stage_directory(tmp_path / "run", "step1")


def test_saved_checkpoint_comes_back_as_it_was(stage: Path) -> None:
    path = checkpoint.save(stage, 40, payload(3.5), fingerprint={"classes": ["road"]})
    assert path == stage / "00000040"
    assert sorted(file.name for file in path.iterdir()) == sorted([*checkpoint.FILES, checkpoint.MANIFEST])
    loaded = checkpoint.load(path)
    assert torch.equal(loaded.model["net.weight"], payload(3.5).model["net.weight"])
    assert torch.equal(loaded.ema["net.weight"], payload(7.0).model["net.weight"])
    assert loaded.state["optimizers"]["model"]["state"][0]["step"].item() == 3.0
    assert loaded.state["optimizers"]["model"]["betas"] == (0.9, 0.999)
    assert (loaded.stage, loaded.iteration, loaded.fingerprint) == ("step1", 40, {"classes": ["road"]})


leaves = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(max_size=5)
keys = st.text(max_size=5) | st.integers() | st.just("$tensor") | st.tuples(st.integers(), st.text(max_size=2))
trees = st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | st.tuples(inner, inner) | st.dictionaries(keys, inner, max_size=3))


@settings(max_examples=40, deadline=None)
@given(trees)
def test_packing_is_lossless_through_json(tree: Any) -> None:
    assert unpack(json.loads(json.dumps(pack(tree, {}), allow_nan=False)), {}) == tree


def test_packing_keeps_tensors_apart_and_refuses_objects() -> None:
    tensors: dict[str, torch.Tensor] = {}
    tree = pack({"a": [torch.ones(1), {1: torch.zeros(2)}], "b": float("inf")}, tensors)
    assert sorted(tensors) == ["/a/0", "/a/1/1"]
    assert unpack(json.loads(json.dumps(tree)), tensors)["b"] == float("inf")
    with pytest.raises(TypeError, match="/a/0 is a set"):
        pack({"a": [{1, 2}]}, {})


def test_fault_01_leftovers_of_killed_saves_are_ignored_and_cleaned(stage: Path) -> None:
    checkpoint.save(stage, 4, payload())
    leftover = stage / ".tmp-00000008-abc"
    leftover.mkdir()
    (leftover / "model.safetensors").write_bytes(b"half")
    assert checkpoint.find(stage.parents[1]) == stage / "00000004"
    checkpoint.save(stage, 8, payload())
    assert sorted(entry.name for entry in stage.iterdir()) == ["00000004", "00000008"]


def test_fault_01_sigkill_at_a_random_moment_of_a_save_leaves_the_newest_whole(stage: Path) -> None:
    checkpoint.save(stage, 1, payload(1.0))
    generator = random.Random(0)
    for _ in range(int(os.environ.get("KILLS", "12"))):
        first = checkpoint.iterations(stage)[-1] + 1
        child = os.fork()
        if child == 0:
            for iteration in range(first, first + 10_000):
                checkpoint.save(stage, iteration, payload(float(iteration)))
            os._exit(0)
        time.sleep(generator.uniform(0.005, 0.04))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        newest = checkpoint.load_latest(stage)
        assert newest is not None
        assert newest.iteration == checkpoint.iterations(stage)[-1]  # a visible checkpoint is a whole one
        assert float(newest.model["net.weight"].mean()) == newest.iteration
    checkpoint.save(stage, newest.iteration + 1, payload())
    assert not list(stage.glob(".*"))


def test_fault_02_partial_directory_of_the_same_step_does_not_stop_the_save(stage: Path, caplog: pytest.LogCaptureFixture) -> None:
    (stage / "00000008").mkdir(parents=True)
    (stage / "00000008" / "model.safetensors").write_bytes(b"half")
    assert checkpoint.load_latest(stage) is None
    checkpoint.save(stage, 8, payload())
    checkpoint.verify(stage / "00000008")
    assert "manifest.json is missing" in caplog.text


def test_fault_03_never_overwrites(stage: Path) -> None:
    path = checkpoint.save(stage, 8, payload(1.0))
    before = {file.name: file.read_bytes() for file in path.iterdir()}
    with pytest.raises(CheckpointError, match="never overwritten"):
        checkpoint.save(stage, 8, payload(2.0))
    assert {file.name: file.read_bytes() for file in path.iterdir()} == before


def test_fault_03_files_are_synced_before_the_manifest_and_the_rename(stage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    real_sync, real_replace, real_write = checkpoint.sync, os.replace, checkpoint.write_atomically
    monkeypatch.setattr(checkpoint, "sync", lambda path: (events.append(f"sync {path.name}"), real_sync(path)))
    monkeypatch.setattr(checkpoint, "write_atomically", lambda path, text: (events.append(f"write {path.name}"), real_write(path, text)))

    def replace(old: Path, new: Path) -> None:
        if new.parent == stage:
            events.append("rename")
        real_replace(old, new)

    monkeypatch.setattr(checkpoint.os, "replace", replace)
    checkpoint.save(stage, 8, payload())
    expected = [f"sync {name}" for name in checkpoint.TENSOR_FILES] + ["write state.json", "write manifest.json"]
    assert events[:5] == expected
    assert events[5].startswith("sync .tmp-")
    assert events[6:] == ["rename", "sync step1"]


@pytest.mark.parametrize("moment", range(6))
def test_fault_05_dying_at_any_moment_of_a_save_keeps_the_previous(stage: Path, monkeypatch: pytest.MonkeyPatch, moment: int) -> None:
    checkpoint.save(stage, 4, payload(1.0))
    calls = iter(range(100))

    def die(*arguments: Any) -> None:
        if next(calls) == moment:
            raise KeyboardInterrupt

    for name in ("sync", "write_atomically"):
        real = getattr(checkpoint, name)
        monkeypatch.setattr(checkpoint, name, lambda *a, real=real: (die(), real(*a)))
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save(stage, 8, payload(2.0))
    monkeypatch.undo()
    loaded = checkpoint.load_latest(stage)
    assert loaded is not None
    assert (loaded.iteration, float(loaded.model["net.weight"].mean())) == (4, 1.0)
    checkpoint.save(stage, 8, payload(2.0))


@pytest.mark.parametrize("when", ["foreseen", "midway"])
def test_fault_06_disk_full_names_bytes_and_keeps_the_old(stage: Path, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    checkpoint.save(stage, 4, payload())
    usage = namedtuple("usage", "total used free")
    free = 10 if when == "foreseen" else 2**40
    monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda path: usage(2**40, 0, free))
    if when == "midway":

        def full(*arguments: Any) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(CheckpointError, match=rf"disk full: the checkpoint needs 1,0\d\d,\d\d\d bytes, {free:,} are free"):
        checkpoint.save(stage, 8, payload())
    assert [entry.name for entry in stage.iterdir()] == ["00000004"]
    checkpoint.verify(stage / "00000004")


@pytest.mark.parametrize("name", [*checkpoint.FILES, checkpoint.MANIFEST])
@pytest.mark.parametrize("damage", ["truncated", "flipped", "missing", "empty"])
def test_fault_07_damage_is_named_and_the_previous_is_taken(stage: Path, caplog: pytest.LogCaptureFixture, name: str, damage: str) -> None:
    checkpoint.save(stage, 4, payload())
    file = checkpoint.save(stage, 8, payload()) / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    replacement = {"truncated": content[:-1], "flipped": content, "empty": b"", "missing": None}[damage]
    file.unlink()
    if replacement is not None:
        file.write_bytes(replacement)
    with caplog.at_level(logging.WARNING):
        loaded = checkpoint.load_latest(stage)
    assert loaded is not None
    assert loaded.iteration == 4
    assert "00000008" in caplog.text
    assert name in caplog.text
    with pytest.raises(CheckpointError, match=name):
        checkpoint.load(stage / "00000008")


def test_fault_07_every_flipped_bit_of_a_manifest_is_seen(stage: Path) -> None:
    file = checkpoint.save(stage, 8, payload(), fingerprint={"classes": ["road"]}) / checkpoint.MANIFEST
    content = file.read_bytes()
    for position in range(0, len(content), 3):
        damaged = bytearray(content)
        damaged[position] ^= 1 << position % 8
        file.write_bytes(damaged)
        with pytest.raises(CheckpointError):
            checkpoint.verify(file.parent)


def test_fault_08_no_pickle_can_be_loaded_anywhere() -> None:
    """Every source file: no pickle-like import, and torch.load only with weights_only=True."""
    offences = [offence for file in sorted(SOURCE.rglob("*.py")) for offence in pickle_paths(file.read_text(), file.name)]
    assert offences == []
    hostile = "import pickle\nfrom joblib import load\ntorch.load(f)\ntorch.load(f, weights_only=False)\nnp.load(f, allow_pickle=True)\n"
    assert len(pickle_paths(hostile, "x.py")) == 5
    assert pickle_paths("torch.load(f, weights_only=True)\nnp.load(f)", "x.py") == []


def pickle_paths(text: str, name: str) -> list[str]:
    """Places in a source text where a pickle could be executed."""
    unsafe = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import) and any(alias.name.split(".")[0] in unsafe for alias in node.names):
            found.append(f"{name}:{node.lineno} import")
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in unsafe:
            found.append(f"{name}:{node.lineno} import")
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "load":
            options = {k.arg: k.value.value for k in node.keywords if isinstance(k.value, ast.Constant)}
            owner = node.func.value.id if isinstance(node.func.value, ast.Name) else ""
            if options.get("allow_pickle") or (owner == "torch" and options.get("weights_only") is not True):
                found.append(f"{name}:{node.lineno} load")
    return found


def test_fault_08_pickle_in_place_of_weights_is_refused(stage: Path) -> None:
    path = checkpoint.save(stage, 8, payload())
    torch.save({"net.weight": torch.ones(1)}, path / "model.safetensors")
    manifest = json.loads((path / checkpoint.MANIFEST).read_text())
    del manifest["digest"]
    file = path / "model.safetensors"
    manifest["files"][file.name] = {"bytes": file.stat().st_size, "sha256": checkpoint._digest(file)}
    (path / checkpoint.MANIFEST).write_text(checkpoint._canonical(manifest))  # a stranger can forge the manifest
    with pytest.raises(CheckpointError, match="cannot be read"):
        checkpoint.load(path)


def test_fault_09_latest_is_found_by_scanning_stages_in_order(tmp_path: Path) -> None:
    run = tmp_path / "run"
    for order, (name, iteration) in enumerate([("warm", 900), ("adapt", 5)]):
        for step in (iteration - 1, iteration):
            checkpoint.save(checkpoint.stage_directory(run, name), step, payload(), order=order)
    assert checkpoint.find(run) == run / "checkpoints" / "adapt" / "00000005"
    assert checkpoint.find(run, "warm") == run / "checkpoints" / "warm" / "00000900"
    assert checkpoint.find(run / "checkpoints" / "warm" / "00000899").name == "00000899"


def test_find_says_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is not a run: there is no such folder"):
        checkpoint.find(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="is not a run: it holds no checkpoints"):
        checkpoint.find(tmp_path)
    (tmp_path / "checkpoints" / "step1").mkdir(parents=True)
    with pytest.raises(CheckpointError, match="has no checkpoint"):
        checkpoint.find(tmp_path)
    checkpoint.save(tmp_path / "checkpoints" / "step1", 1, payload())
    with pytest.raises(CheckpointError, match="no checkpoint of stage 'step2'"):
        checkpoint.find(tmp_path, "step2")


def test_fault_10_another_configuration_is_refused_with_the_difference(stage: Path) -> None:
    before = {"method": {"ema_decay": 0.99}, "classes": ["road", "sky"]}
    path = checkpoint.save(stage, 8, payload(), fingerprint=before)
    checkpoint.load(path, fingerprint={"classes": ("road", "sky"), "method": {"ema_decay": 0.99}})
    with pytest.raises(CheckpointError, match=r"method.ema_decay: 0.99 in the checkpoint, 0.9 now"):
        checkpoint.load(path, fingerprint={**before, "method": {"ema_decay": 0.9}})
    with pytest.raises(CheckpointError, match=r"classes: \['road', 'sky'\] in the checkpoint, \['road'\] now"):
        checkpoint.load_latest(stage, fingerprint={**before, "classes": ["road"]})


def test_fault_11_output_that_cannot_be_written_is_seen_before_training(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file where a folder should be")
    with pytest.raises(CheckpointError, match="cannot be written"):
        checkpoint.ensure_writable(tmp_path / "run")
    checkpoint.ensure_writable(tmp_path / "new")
    assert list((tmp_path / "new" / "checkpoints").iterdir()) == []


def test_fault_18_non_finite_weights_are_never_saved(stage: Path) -> None:
    bad = payload()
    bad.ema["net.weight"][0, 0, 0, 0] = float("nan")
    with pytest.raises(NumericError, match=r"net\.weight"):
        checkpoint.save(stage, 8, bad)
    assert not stage.exists()


def test_keeps_the_last_and_the_best(stage: Path) -> None:
    for iteration in range(1, 7):
        checkpoint.save(stage, iteration, payload(), keep_last=2, keep=[2])
    assert checkpoint.iterations(stage) == [2, 5, 6]
    assert checkpoint.prune(stage, 1) == [stage / "00000002", stage / "00000005"]
    assert [entry.name for entry in stage.iterdir()] == ["00000006"]
