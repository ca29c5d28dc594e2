"""`iccld export` and `--runtime`: what the files tell, what is refused, and that commands and Python take them."""

from __future__ import annotations

import contextlib
import json
import re
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image

import iccld
from iccld.cli import main
from iccld.diffusion import DdimSampler, Diffusion
from iccld.errors import CheckpointError, ConfigError
from iccld.export import export_model, load_exported, on_runtime
from iccld.files import read_json
from iccld.methods.common.parts import MEAN, STD
from iccld.models import Denoiser, DiffusionSegmenter, LatentScale, UNetKind
from iccld.predictor import LatentNoise, Predictor
from iccld.runs import Standing, load_predictor


@pytest.fixture(scope="session")
def exported(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished run's last stage as ONNX; nothing may be changed in it."""
    file = tmp_path_factory.mktemp("exported") / "model.onnx"
    assert main(["export", str(finished), "--format", "onnx", "--out", str(file), "--quiet"]) == 0
    return file


@pytest.fixture
def picture() -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (61, 83, 3), dtype=np.uint8)


def test_another_program_finds_all_it_needs(exported: Path, finished: Path) -> None:
    """onnx's checker and plain onnxruntime, without iccld: sizes, classes, normalisation and the size rule."""
    onnx.checker.check_model(onnx.load(exported))
    session = onnxruntime.InferenceSession(exported.read_bytes(), providers=["CPUExecutionProvider"])
    told, predictor = session.get_modelmeta().custom_metadata_map, load_predictor(finished)
    assert session.get_inputs()[0].name == "image"
    assert [isinstance(side, str) for side in session.get_inputs()[0].shape] == [True, False, True, True]
    assert json.loads(told["id2label"]) == {str(number): name for number, name in enumerate(predictor.label_space.names)}
    assert json.loads(told["mean"]) == list(predictor.mean)
    assert json.loads(told["size_rule"])["multiple"] == predictor.size_multiple
    assert "normalised inside the graph" in told["inputs"]
    has_noise = predictor.noise_channels > 0
    assert [one.name for one in session.get_inputs()] == ["image", "noise"][: 1 + has_noise]
    for number, height, width in ((1, 64, 96), (3, 32, 160)):
        given: dict[str, Any] = {"image": np.zeros((number, 3, height, width), np.float32)}
        if has_noise:
            given["noise"] = np.zeros((number, predictor.noise_channels, height // 8, width // 8), np.float32)
        assert session.run(None, given)[0].shape[:2] == (number, len(predictor.label_space.names))


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_python_predicts_through_a_runtime(runtime: str, finished: Path, exported: Path, picture: np.ndarray) -> None:
    expected = iccld.load(finished).segment(picture)
    for model in (iccld.load(finished, runtime=runtime), iccld.load(exported, runtime=runtime)):
        found = model.segment(picture)
        assert (found.labels == expected.labels).mean() >= 0.999
        np.testing.assert_allclose(found.confidence, expected.confidence, atol=1e-3)
        assert (model.names, model.id2label) == (expected.names, dict(enumerate(expected.names)))
    assert iccld.load(finished, runtime="torch").segment(picture).confidence.tobytes() == expected.confidence.tobytes()


def test_windows_views_and_sizes_are_the_predictors(finished: Path, picture: np.ndarray) -> None:
    from iccld.assembly.scoring import Asked
    from iccld.runs import load_with_standing

    asked = Asked(window="32x64", stride=16, scales=(0.5, 1.0), flip=True, size=(64, 64))
    predictor, standing = load_with_standing(finished, asked=asked)
    images = torch.from_numpy(picture).permute(2, 0, 1)[None]
    with torch.no_grad():
        torch.testing.assert_close(on_runtime(predictor, standing, "onnxruntime")(images), predictor(images), rtol=1e-3, atol=1e-3)


def test_commands_take_the_file_and_the_runtime(exported: Path, finished: Path, workshop: Any, tmp_path: Path) -> None:
    val = str(workshop.data.val)
    calls = {"torch": [str(finished)], "file": [str(exported)], "runtime": [str(finished), "--runtime", "onnxruntime"]}
    for name, (model, *words) in calls.items():
        assert main(["predict", model, val, "--out", str(tmp_path / name), "--write", "train_ids", *words, "--quiet"]) == 0
    for mask in (tmp_path / "torch" / "train_ids").rglob("*.png"):
        expected = np.asarray(Image.open(mask))
        for name in ("file", "runtime"):
            found = np.asarray(Image.open(tmp_path / name / mask.relative_to(tmp_path / "torch")))
            assert (found == expected).mean() >= 0.999
    assert main(["evaluate", str(exported), "--data", val, "--json", str(tmp_path / "f.json"), "--quiet"]) == 0
    assert main(["evaluate", str(finished), "--data", val, "--json", str(tmp_path / "r.json"), "--quiet"]) == 0
    assert read_json(tmp_path / "f.json")["miou"] == pytest.approx(read_json(tmp_path / "r.json")["miou"], abs=0.2)


def test_a_run_is_exported_once_and_a_damaged_cache_is_made_again(
    finished: Path, picture: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ICCLD_CACHE", str(tmp_path))
    first = iccld.load(finished, runtime="onnxruntime").segment(picture)
    assert "exporting the model for onnxruntime" in capsys.readouterr().err
    (file,) = (tmp_path / "exported").glob("*.onnx")
    iccld.load(finished, runtime="onnxruntime")
    assert "exporting" not in capsys.readouterr().err
    file.write_bytes(file.read_bytes()[:1000])
    again = iccld.load(finished, runtime="onnxruntime").segment(picture)
    np.testing.assert_array_equal(first.confidence, again.confidence)
    iccld.load(finished, stage="source", runtime="onnxruntime")
    assert len(list((tmp_path / "exported").glob("*.onnx"))) == 2  # other weights, another file


def diffusing(trained: Predictor, steps: int, patch: int = 1) -> Predictor:
    """A predictor whose network samples a latent from noise, with a random denoiser."""
    torch.manual_seed(0)
    segmenter = trained.network
    sampler = DdimSampler(Diffusion(prediction="sample"), steps)
    denoiser = Denoiser(16, (16, 16, 16), 1, 16, kind=UNetKind(patch=patch))
    network = DiffusionSegmenter(segmenter.encoder, segmenter.decoder, denoiser, LatentScale(16), sampler)
    noise = LatentNoise(16, 8, 0)
    made = Predictor(network, trained.label_space, working_size=(64, 96), size_multiple=16, mean=MEAN, std=STD, noise=noise)
    return made.eval()


def test_several_steps_are_refused_with_the_reason(trained: Predictor, standing: Standing, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="denoises in 2 steps"):
        export_model(diffusing(trained, 2), standing, "onnx", tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("patch", [1, 4])
def test_a_denoiser_is_exported_with_its_noise_as_an_input(
    patch: int, trained: Predictor, standing: Standing, tmp_path: Path, picture: np.ndarray
) -> None:
    """Also where its latents are no multiple of what it halves: the picture's sides are multiples of 16, the denoiser wants 32 or 128."""
    predictor = diffusing(trained, 1, patch)
    file = export_model(predictor, standing, "onnx", tmp_path / "m.onnx")
    session = onnxruntime.InferenceSession(file.read_bytes(), providers=["CPUExecutionProvider"])
    assert [one.name for one in session.get_inputs()] == ["image", "noise"]
    assert "noise: (batch, 16, height / 8, width / 8)" in session.get_modelmeta().custom_metadata_map["inputs"]
    made, _ = load_exported(file)
    images = torch.from_numpy(picture).permute(2, 0, 1)[None].repeat(2, 1, 1, 1)
    prepared = predictor.prepared_size(61, 83)
    assert any(side % 32 for side in prepared)
    noise = torch.randn(2, 16, *(side // 8 for side in prepared))
    with torch.no_grad():
        torch.testing.assert_close(made(images, noise), predictor(images, noise), rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(made(images), predictor(images), rtol=1e-3, atol=1e-3)
        assert (made(images) != made(images, noise)).any()


def test_windows_inside_the_network_are_refused(trained: Predictor, standing: Standing, tmp_path: Path) -> None:
    from iccld.models.two_resolutions import TwoResolutions

    network = TwoResolutions(trained.network, 8, (32, 32), lambda *_: torch.zeros(1))  # type: ignore[arg-type]
    predictor = Predictor(network, trained.label_space, working_size=None, size_multiple=16, mean=(0, 0, 0), std=(1, 1, 1))
    with pytest.raises(ConfigError, match="moves windows of its own"):
        export_model(predictor, standing, "onnx", tmp_path / "m.onnx")


class FixedSize(torch.nn.Module):
    """What is traced at one size only: a Python decision about the picture."""

    def forward(self, image: torch.Tensor, noise: torch.Tensor | None = None) -> torch.Tensor:
        return image.repeat(1, 7, 1, 1)[:, :19] * int(image.shape[-1])


@pytest.mark.parametrize(("format", "suffix"), [("onnx", ".onnx"), ("openvino", ".xml")])
def test_a_graph_that_answers_otherwise_at_another_size_is_not_written(
    format: str, suffix: str, trained: Predictor, standing: Standing, tmp_path: Path
) -> None:
    predictor = Predictor(FixedSize(), trained.label_space, working_size=None, size_multiple=16, mean=(0, 0, 0), std=(1, 1, 1))
    with pytest.raises(ConfigError, match="at another size than the traced one"):
        export_model(predictor, standing, format, tmp_path / f"m{suffix}")
    assert list(tmp_path.iterdir()) == []


REFUSED = [
    ("--out m.xml", 2, "ends in .onnx"),
    ("--format openvino --out m.onnx", 2, "ends in .xml"),
    ("--format torch --int8 --calibrate PICTURES --out m.pt2", 2, "--int8 goes with onnx or openvino"),
    ("--int8 --out m.onnx", 2, "--int8 needs --calibrate"),
    ("--calibrate PICTURES --out m.onnx", 2, "add --int8"),
    ("--int8 --calibrate nowhere --out m.onnx", 3, "nowhere: no such file or folder"),
    ("--int8 --calibrate EMPTY --out m.onnx", 3, "holds no picture"),
    ("--stage step9 --out m.onnx", 4, "did you mean step"),
]


@pytest.mark.parametrize(("words", "code", "says"), REFUSED)
def test_refusals_are_one_line_and_write_nothing(
    words: str, code: int, says: str, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "pictures" / "a.png")
    before = sorted(tmp_path.rglob("*"))
    assert main(["export", str(finished), *words.replace("PICTURES", "pictures").replace("EMPTY", "empty").split()]) == code
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert says in errors[0]
    assert sorted(tmp_path.rglob("*")) == before


def test_files_that_are_not_ours_or_broken_are_one_line(exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    foreign = onnx.load(exported)
    del foreign.metadata_props[:]
    onnx.save(foreign, tmp_path / "foreign.onnx")
    (tmp_path / "cut.onnx").write_bytes(exported.read_bytes()[:5000])
    (tmp_path / "alone.xml").write_text("<net/>")
    (tmp_path / "model.pt2").write_bytes(b"PK")
    ours = onnx.load(exported)
    for one in ours.metadata_props:
        if one.key == "iccld":
            one.value = json.dumps({**json.loads(one.value), "predictor": {"working_size": [10**9, 10**9]}})
    onnx.save(ours, tmp_path / "edited.onnx")
    for name, says in {
        "foreign.onnx": "was not exported by iccld",
        "cut.onnx": "cannot read it",
        "alone.xml": "do not lie beside it",
        "model.pt2": "with pickle, which can run code",
        "missing.onnx": "no such file",
        "edited.onnx": "settings are damaged",
    }.items():
        with pytest.raises(CheckpointError, match=says) as refusal:
            iccld.load(tmp_path / name)
        assert "\n" not in str(refusal.value)
        assert main(["predict", str(tmp_path / name), str(tmp_path), "--out", str(tmp_path / "out")]) == 4
        assert says in capsys.readouterr().err
    with pytest.raises(ConfigError, match="not by torch"):
        iccld.load(exported, runtime="torch")
    with pytest.raises(ConfigError, match="of one stage"):
        iccld.load(exported, stage="source")
    with pytest.raises(ConfigError, match="computes on the CPU"):
        iccld.load(exported, runtime="openvino", device="cuda")
    with pytest.raises(ConfigError, match="cannot be turned back into weights"):
        iccld.load(exported).save_pretrained(tmp_path / "m")


def test_a_pt2_file_is_refused_whatever_the_runtime_since_reading_it_can_run_code(
    trained: Predictor, standing: Standing, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The reason is shown too: PyTorch's own reader runs what is written in the place of a size.  Should it stop to, decide again."""
    file = export_model(trained, standing, "torch", tmp_path / "model.pt2")
    hostile, ran = tmp_path / "hostile.pt2", tmp_path / "ran"
    with zipfile.ZipFile(file) as whole, zipfile.ZipFile(hostile, "w") as changed:
        for entry in whole.infolist():
            content = whole.read(entry)
            if entry.filename.endswith("models/model.json"):
                graph = content.decode()
                sizes = re.findall(r'"expr_str": *"([^"]+)"', graph)
                assert sizes
                graph = graph.replace(f'"{sizes[0]}"', f"\"__import__('os').mkdir('{ran}') or 2\"")
                content = graph.encode()
            changed.writestr(entry.filename, content)
    for name in ("model.pt2", "hostile.pt2"):
        for words in ([], ["--runtime", "torch"]):
            assert main(["predict", str(tmp_path / name), str(tmp_path), "--out", str(tmp_path / "out"), *words]) == 4
            errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
            assert len(errors) == 1
            assert "which can run code, so iccld does not" in errors[0]
    assert not ran.exists()
    with contextlib.suppress(Exception):  # what it makes of the rest
        torch.export.load(hostile)
    assert ran.exists()


@pytest.mark.parametrize(("runtime", "module", "extra"), [("onnxruntime", "onnxruntime", "onnx"), ("openvino", "openvino", "openvino")])
def test_an_absent_extra_is_one_line_that_names_it(
    runtime: str, module: str, extra: str, exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=rf"{runtime} is not installed; pip install 'iccld\[{extra}\]'"):
        iccld.load(exported, runtime=runtime)
