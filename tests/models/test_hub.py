"""Weights by name, without a network: folders, the cache, and what is said when neither has them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from huggingface_hub import constants

from iccld.assembly.networks import pretrained_weights
from iccld.config import NetworkConfig
from iccld.errors import ConfigError
from iccld.models.hub import UNKNOWN_LICENCE, licence, weights_folder


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub, and no network."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "cache"


def put(cache: Path, name: str, revision: str, files: dict[str, str]) -> Path:
    """A model in the cache as the hub's client lays it out."""
    model = cache / f"models--{name.replace('/', '--')}"
    snapshot = model / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (model / "refs").mkdir()
    (model / "refs" / revision).write_text("0" * 40)
    for file, text in files.items():
        (snapshot / file).write_text(text)
    return snapshot


def test_fault_40_a_folder_is_taken_as_it_is(tmp_path: Path, cache: Path) -> None:
    assert weights_folder(str(tmp_path), "network.encoder") == tmp_path


@pytest.mark.parametrize("weights", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize(("name", "revision"), [("lab/net", "main"), ("lab/net@v2", "v2")])
def test_fault_40_cached_weights_work_without_the_hub(cache: Path, weights: str, name: str, revision: str) -> None:
    snapshot = put(cache, "lab/net", revision, {"config.json": "{}", weights: ""})
    assert weights_folder(name, "network.encoder") == snapshot


def test_a_run_tells_revision_and_digest_of_weights_from_the_hubs_cache(cache: Path) -> None:
    put(cache, "lab/net", "main", {"config.json": "{}", "model.safetensors": "weights"})
    told = pretrained_weights(NetworkConfig(preset="ldm", encoder="lab/net"))
    digest = hashlib.sha256(b"weights").hexdigest()
    assert told == {"encoder": {"name": "lab/net", "revision": "0" * 40, "model.safetensors": digest}}


def test_fault_40_what_to_fetch_is_named_when_nobody_has_it(cache: Path) -> None:
    with pytest.raises(ConfigError) as refusal:
        weights_folder("lab/net", "network.encoder")
    message = str(refusal.value)
    assert "network.encoder is 'lab/net'" in message
    assert "hf download lab/net" in message
    assert "model.safetensors" in message
    assert "\n" not in message
    assert refusal.value.exit_code == 2


def test_fault_40_a_cache_without_the_weights_names_the_file(cache: Path) -> None:
    put(cache, "lab/net", "main", {"config.json": "{}"})
    with pytest.raises(ConfigError, match=r"holds no model\.safetensors"):
        weights_folder("lab/net", "network.encoder")


def test_a_name_that_is_neither_folder_nor_model_is_refused(cache: Path) -> None:
    with pytest.raises(ConfigError, match="no such folder"):
        weights_folder("/no/such/folder", "network.encoder")


def test_the_licence_is_the_cards_then_the_configs_then_unknown(tmp_path: Path) -> None:
    assert licence(tmp_path) == UNKNOWN_LICENCE
    (tmp_path / "config.json").write_text('{"license": "mit"}')
    assert licence(tmp_path) == "licence mit"
    (tmp_path / "README.md").write_text("---\nlicense: apache-2.0\n---\n# Net\n")
    assert licence(tmp_path) == "licence apache-2.0"
    (tmp_path / "README.md").write_text("---\nlicense: other\nlicense_name: dinov3-license\n---\n")
    assert licence(tmp_path) == "licence dinov3-license"
    (tmp_path / "README.md").write_text("# A card without a header\n")
    assert licence(tmp_path) == "licence mit"
