"""The hub, played by a server on loopback and by the client's own cache: push, fetch, revisions, and no network."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import constants

import iccld
from iccld.cli import main
from iccld.errors import CheckpointError, ConfigError
from iccld.share import is_hub_name
from iccld.share.names import FILES

from .hub_stub import Hub, serving


@pytest.fixture
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_XET_CACHE", str(tmp_path / "xet"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", "hf_of_a_test")
    return tmp_path / "hub"


@pytest.fixture
def hub(cache_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub that answers, to which the client is pointed."""
    from huggingface_hub.hf_api import api

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with serving(Hub()) as made:
        monkeypatch.setattr(constants, "ENDPOINT", made.address)
        monkeypatch.setattr(api, "endpoint", made.address)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", made.address + "/{repo_id}/resolve/{revision}/{filename}")
        yield made


@pytest.fixture
def offline(cache_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return cache_folder


def picture() -> np.ndarray:
    return np.random.default_rng(2).integers(0, 256, (40, 56, 3), dtype=np.uint8)


def test_pushed_and_fetched_it_is_the_same_model(
    hub: Hub, finished: Path, workshop: object, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    first = iccld.load(finished, stage="source")
    address = first.push_to_hub("lab/street")
    assert address.startswith(f"{hub.address}/lab/street/commit/")
    assert main(["share", str(finished), "--out", "m", "--push", "lab/street", "--quiet"]) == 0
    assert capsys.readouterr().out.split()[0] == "m"
    assert {name: (Path("m") / name).read_bytes() for name in FILES if (Path("m") / name).is_file()} == hub.repositories["lab/street"][-1]
    hub.repositories["lab/street"][-1]["evil.py"] = b"print('ran')"
    for name, expected in (("lab/street", iccld.load(finished)), ("lab/street@v1", first)):
        model = iccld.load(name)
        np.testing.assert_array_equal(model.segment(picture()).confidence, expected.segment(picture()).confidence)
        assert not (model.run / "evil.py").exists()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    asked = len(hub.requests)
    np.testing.assert_array_equal(iccld.load("lab/street").segment(picture()).labels, iccld.load(finished).segment(picture()).labels)
    assert len(hub.requests) == asked  # from the cache
    with pytest.raises(ConfigError, match="HF_HUB_OFFLINE is set"):
        first.push_to_hub("lab/street")
    assert len(hub.requests) == asked


def test_what_the_hub_does_not_have_is_one_line(hub: Hub, finished: Path) -> None:
    for name in ("lab/nothing", "lab/street@v9"):
        with pytest.raises(CheckpointError, match="the hub has no such model or revision") as refusal:
            iccld.load(name)
        assert "\n" not in str(refusal.value)
    hub.repositories["lab/bert"] = [{"config.json": b'{"model_type": "bert"}'}]
    with pytest.raises(CheckpointError, match="is no model of iccld"):
        iccld.load("lab/bert")


def test_a_path_on_the_hub_does_not_leave_the_cache(hub: Hub, finished: Path, cache_folder: Path, tmp_path: Path) -> None:
    """Files outside the list are not asked for, whatever they are called."""
    iccld.load(finished).push_to_hub("lab/street")
    hub.repositories["lab/street"][-1] |= {"../../../escaped.txt": b"x", "encoder/../../escaped.txt": b"x", "/escaped.txt": b"x"}
    assert iccld.load("lab/street").names
    assert not list(tmp_path.rglob("escaped.txt"))
    assert not any("escaped" in path for _, path in hub.requests)


def test_offline_and_not_cached_names_what_to_fetch(offline: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(CheckpointError, match="`hf download lab/street` fetches it"):
        iccld.load("lab/street@v1")
    assert main(["predict", "lab/street", str(tmp_path), "--out", str(tmp_path / "out")]) == 4
    assert "hf download lab/street" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_environments_hf_hub_offline_is_obeyed(tmp_path: Path) -> None:
    code = "import iccld\ntry:\n    iccld.load('lab/street')\nexcept iccld.CheckpointError as error:\n    print(error)"
    environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "HF_ENDPOINT": "http://127.0.0.1:9", "PATH": "/usr/bin"}
    path = os.environ.get("PYTHONPATH")
    environment |= {"PYTHONPATH": path} if path else {}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env=environment, cwd=tmp_path)
    assert "neither the hub's cache" in done.stdout, done.stderr


def test_a_refused_push_leaves_the_folder_whole(
    hub: Hub, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from huggingface_hub import HfApi

    monkeypatch.setattr(HfApi, "create_repo", lambda *_, **__: (_ for _ in ()).throw(OSError("no\nnetwork")))
    assert main(["share", str(finished), "--out", str(tmp_path / "m"), "--push", "lab/street"]) == 2
    told = capsys.readouterr().err
    assert next(line for line in told.splitlines() if line.startswith("error: ")).endswith("tries again")
    assert iccld.load(tmp_path / "m").names


@pytest.mark.parametrize("name", ["street", "lab/street@v1", "lab/../street", "/lab/street", "lab/street/more"])
def test_an_impossible_name_is_refused_before_anything_is_written(name: str, finished: Path, tmp_path: Path) -> None:
    assert main(["share", str(finished), "--out", str(tmp_path / "m"), "--push", name]) == 2
    assert not (tmp_path / "m").exists()


def test_paths_and_names_of_the_hub_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert is_hub_name("lab/street")
    assert is_hub_name("lab/street@refs/pr/1")
    assert not any(map(is_hub_name, ("street", "lab/a/b", "/lab/street", "../lab", "lab/..", "lab/street@../x", "~/street")))
    Path("runs").mkdir()
    assert not is_hub_name("runs/demo")
    with pytest.raises(CheckpointError, match="runs/demo is no folder; name a run"):
        iccld.load("runs/demo")
