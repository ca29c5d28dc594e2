"""Fault 8: wherever a stranger's file is read, a pickle that would run code is refused and does not run."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import pickle
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from iccld.config import read_config
from iccld.data import images, open_dataset
from iccld.data.check import class_statistics
from iccld.errors import IccldError
from iccld.evaluation import Record
from iccld.experiments.formulations import chosen_rows
from iccld.files import read_json
from iccld.labels import LabelClass, LabelSpace, get_label_space
from iccld.models.autoencoder import read_autoencoder
from iccld.models.backbone import load_backbone
from iccld.models.efficientnet import EfficientNetLite, load_weights
from iccld.report.run import read_run
from iccld.runs import adapted, load_predictor
from iccld.runs.source import find_source
from iccld.share import folder as shared
from iccld.training import checkpoint
from iccld.training.checkpoint import Payload

SOURCE = Path(__file__).parents[2] / "src" / "iccld"
SPACE = LabelSpace("two", (LabelClass("road", (0, 0, 0)), LabelClass("sky", (1, 1, 1))))


class Hostile:
    """Unpickled, it makes the folder `marker`: a harmless stand-in for any command."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., None], tuple[str]]:
        return os.mkdir, (str(self.marker),)


@pytest.fixture
def bait(tmp_path: Path) -> Hostile:
    return Hostile(tmp_path / "marker")


def plain(bait: Hostile) -> bytes:
    return pickle.dumps({"net.weight": bait})


def zipped(bait: Hostile) -> bytes:
    """As torch.save writes it."""
    path = bait.marker.with_name("zipped")
    torch.save({"net.weight": bait}, path)
    return path.read_bytes()


def array(bait: Hostile) -> bytes:
    """An array of objects, as numpy writes it."""
    path = bait.marker.with_name("array.npy")
    np.save(path, np.array([bait], dtype=object), allow_pickle=True)
    return path.read_bytes()


def tag(bait: Hostile) -> bytes:
    """YAML's own way of calling a function."""
    return f"name: !!python/object/apply:os.mkdir ['{bait.marker}']\n".encode()


KINDS = [plain, zipped, array, tag]


@pytest.mark.parametrize("kind", KINDS)
def test_fault_08_the_bait_would_work(bait: Hostile, kind: Callable[[Hostile], bytes]) -> None:
    """A reader that does not care makes the folder: the tests below can fail."""
    path = bait.marker.with_name("bait")
    path.write_bytes(kind(bait))
    {
        plain: lambda: pickle.loads(path.read_bytes()),
        zipped: lambda: torch.load(path, weights_only=False),
        array: lambda: np.load(path, allow_pickle=True),
        tag: lambda: yaml.unsafe_load(path.read_text()),
    }[kind]()
    assert bait.marker.is_dir()


# --- every reader ---------------------------------------------------------------------------------------------------------


def small_run(folder: Path) -> Path:
    """A run with one checkpoint."""
    (folder / "run").mkdir()
    (folder / "run" / "config.yaml").write_text("recipe: x\nname: run\nmethod: source_only\n")
    payload = Payload({"segmenter.weight": torch.ones(2)}, {}, {"progress": {"iteration": 1}})
    return checkpoint.save(checkpoint.stage_directory(folder / "run", "source"), 1, payload)


def forge(path: Path, name: str, content: bytes) -> None:
    """Put `content` into a checkpoint under a manifest that agrees with it, as a stranger can."""
    (path / name).write_bytes(content)
    manifest = json.loads((path / checkpoint.MANIFEST).read_text())
    del manifest["digest"]
    manifest["files"][name] = {"bytes": len(content), "sha256": checkpoint._digest(path / name)}
    (path / checkpoint.MANIFEST).write_text(checkpoint._canonical(manifest))


def through_checkpoint(name: str, read: Callable[[Path], object]) -> Callable[[Path, bytes], object]:
    def attempt(folder: Path, content: bytes) -> object:
        path = small_run(folder)
        forge(path, name, content)
        return read(path)

    return attempt


def through_file(name: str, read: Callable[[Path], object]) -> Callable[[Path, bytes], object]:
    def attempt(folder: Path, content: bytes) -> object:
        (folder / name).write_bytes(content)
        return read(folder / name)

    return attempt


def through_config(read: Callable[[Path], object]) -> Callable[[Path, bytes], object]:
    def attempt(folder: Path, content: bytes) -> object:
        run = small_run(folder).parents[2]
        (run / "config.yaml").write_bytes(content)
        return read(run)

    return attempt


def through_dataset_yaml(folder: Path, content: bytes) -> object:
    (folder / "images").mkdir()
    (folder / "dataset.yaml").write_bytes(content)
    return open_dataset(folder, "folder", label_space=SPACE)


def through_backbone(folder: Path, content: bytes) -> object:
    from transformers import SegformerConfig

    SegformerConfig(num_encoder_blocks=4, hidden_sizes=[8, 8, 8, 8], depths=[1, 1, 1, 1]).save_pretrained(folder)
    (folder / "pytorch_model.bin").write_bytes(content)
    return load_backbone(folder)


def through_autoencoder(folder: Path, content: bytes) -> object:
    from diffusers import AutoencoderKL

    AutoencoderKL(block_out_channels=(8, 8), layers_per_block=2, latent_channels=4, norm_num_groups=4, **BLOCKS).save_config(folder)
    (folder / "diffusion_pytorch_model.bin").write_bytes(content)
    return read_autoencoder(folder, (8, 8), 4)


def through_efficientnet(folder: Path, content: bytes) -> object:
    (folder / "lite0.pth").write_bytes(content)
    return load_weights(EfficientNetLite("efficientnet-lite0"), folder / "lite0.pth")


BLOCKS = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}

READERS: dict[str, Callable[[Path, bytes], object]] = {
    **{f"checkpoint {name}": through_checkpoint(name, checkpoint.load) for name in checkpoint.FILES},
    "checkpoint manifest": through_file(checkpoint.MANIFEST, lambda path: checkpoint.verify(path.parent)),
    "resume": through_checkpoint("optimizer.safetensors", lambda path: checkpoint.load_latest(path.parent)),
    "predictor": through_checkpoint("model.safetensors", lambda path: load_predictor(path.parents[2])),
    "source checkpoint": through_config(lambda run: find_source(run, SPACE.names)),
    "configuration": through_file("run.yaml", read_config),
    "configuration of a run": through_config(load_predictor),
    "report": through_config(read_run),
    "label space": through_file("space.yaml", get_label_space),
    "dataset.yaml": through_dataset_yaml,
    "summary": through_file("summary.json", read_json),
    "confusions": through_file("step1.npz", Record.load),
    "depth": through_file("depth.npy", images.read_depth),
    "backbone": through_backbone,
    "efficientnet": through_efficientnet,
    "autoencoder": through_autoencoder,
    "adapter": through_file("adapter.safetensors", adapted.read_weights),
    "shared model": through_file("model.safetensors", shared._opened),
    "row of a grid": through_file("row.yaml", lambda path: chosen_rows(None, [f"own={path}"])),
}

TOLERANT = {"report", "summary"}
"""These show what they can read and leave out the rest."""


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reader", READERS)
def test_fault_08_hostile_pickle_is_refused_by_every_reader(
    reader: str, kind: Callable[[Hostile], bytes], tmp_path: Path, bait: Hostile
) -> None:
    folder = tmp_path / "place"
    folder.mkdir()
    with contextlib.nullcontext() if reader in TOLERANT else pytest.raises(IccldError):
        READERS[reader](folder, kind(bait))
    assert not bait.marker.exists()


def test_fault_08_hostile_cache_of_class_counts_is_counted_again(tmp_path: Path, bait: Hostile, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    monkeypatch.setenv("ICCLD_CACHE", str(tmp_path / "cache"))
    for name, shape in (("images", (8, 12, 3)), ("masks", (8, 12))):
        (tmp_path / "data" / name).mkdir(parents=True)
        Image.fromarray(np.zeros(shape, np.uint8)).save(tmp_path / "data" / name / "0.png")
    dataset = open_dataset(tmp_path / "data", "folder", label_space=SPACE)
    expected = class_statistics(dataset)
    (cached,) = (path for path in (tmp_path / "cache").rglob("*") if path.is_file())
    for kind in KINDS:
        cached.write_bytes(kind(bait))
        assert np.array_equal(class_statistics(dataset), expected)
        assert not bait.marker.exists()


# --- no reader is forgotten -----------------------------------------------------------------------------------------------

COVERED = {
    "training/checkpoint.py": "checkpoint …",
    "config/loading.py": "configuration",
    "labels.py": "label space",
    "report/run.py": "report",
    "data/folder.py": "dataset.yaml",
    "data/check.py": "the test of the cache",
    "data/images.py": "depth",
    "evaluation/record.py": "confusions",
    "models/backbone.py": "backbone",
    "models/efficientnet.py": "efficientnet",
    "models/autoencoder.py": "autoencoder",
    "runs/adapted.py": "adapter",
    "share/folder.py": "shared model",
    "experiments/formulations.py": "row of a grid",
    "methods/common/view_labels.py": "tests/methods/common/test_view_labels.py",
}
"""Files that open formats which could carry code, and which case above tries them."""

LOADERS = {"load_file", "safe_open", "from_pretrained", "safe_load", "unsafe_load", "full_load", "load_all", "fromfile", "memmap"}


def loader_calls(text: str) -> set[str]:
    """Names of calls in a source text that read a format which could carry code."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            if name.rpartition(".")[2] in LOADERS or re.fullmatch(r"(np|numpy|torch|yaml|safetensors\.torch|joblib)\.load", name):
                found.add(name)
    return found


def test_fault_08_every_reader_of_the_package_is_tried_above() -> None:
    reading = {path.relative_to(SOURCE).as_posix() for path in SOURCE.rglob("*.py") if loader_calls(path.read_text())}
    assert reading <= COVERED.keys(), f"a new reader: add a case to READERS and its file to COVERED: {sorted(reading - COVERED.keys())}"
    assert loader_calls("torch.load(f)\nnp.load(f)\nx.from_pretrained(f)\nself._load(f)") == {"torch.load", "np.load", "x.from_pretrained"}


def test_fault_08_no_reader_trusts_remote_code() -> None:
    """transformers would run a stranger's Python with trust_remote_code, diffusers with custom pipelines."""
    words = ("trust_remote_code", "custom_pipeline")
    assert [path.name for path in SOURCE.rglob("*.py") if any(word in path.read_text() for word in words)] == []
