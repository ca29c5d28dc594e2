"""The front door for Python: docs/python.md and README.md run as they stand, pictures of every kind, refusals in one line."""

from __future__ import annotations

import inspect
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import iccld
from iccld import adapting
from iccld import config as config_room
from iccld.cli import main
from iccld.data.images import read_image
from iccld.errors import IccldError
from iccld.front import Model, _words
from iccld.runs import load_predictor

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
BLOCKS, README = (
    re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    for page in (PAGE, (ROOT / "README.md").read_text(encoding="utf-8"))
)
GOLDEN = Path(__file__).parents[1] / "data" / "golden"

TINY = [
    *("--source.generate.num", "6", "--source.generate.size", "64x96", "--source.holdout", "2", "--batch_size", "2"),
    *("--size.source", "64x96", "--size.target", "64x96", "--size.crop", "32x64", "--network.widths", "8,8,16,16,16"),
    *(f"--stages.{stage}.iterations={count}" for stage, count in (("source", 2), ("step1", 2), ("step2", 2))),
    *("--network.latent_channels", "8", "--network.denoiser_widths", "16,16", "--runtime.threads", "1"),
]
"""What makes the page's recipe a matter of seconds."""


@pytest.fixture(scope="module")
def model(finished: Path) -> Model:
    return iccld.load(finished)


@pytest.fixture
def street() -> Image.Image:
    """A picture of an odd size."""
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (53, 71, 3), dtype=np.uint8))


def test_the_page_runs_as_it_stands(
    finished: Path, workshop: Any, street: Image.Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One block after the other in one namespace, as a reader types them; only the recipe is cut short."""
    plain = config_room.load_config
    monkeypatch.setattr(config_room, "load_config", lambda recipe, words=(): plain(recipe, [*words, *TINY]))
    monkeypatch.chdir(tmp_path)
    shutil.copytree(finished, "runs/mine")
    street.save("street.jpg")
    Path("pictures").mkdir()
    for number in range(3):
        street.rotate(number).save(f"pictures/{number}.png")
    shutil.copytree(workshop.data.val, "data/camera")
    names: dict[str, Any] = {}
    assert len(BLOCKS) == 6
    for block in BLOCKS:
        exec(compile(block, "docs/python.md", "exec"), names)
    told = capsys.readouterr().out
    assert names["result"].names == iccld.Run("runs/mine_too").load().names
    assert 0 < names["changed"] <= 1
    with Image.open("seen.jpg") as seen, Image.open("mask.png") as mask:
        assert seen.size == street.size
        assert (mask.mode, mask.size) == ("P", street.size)
    assert iccld.Run("runs/mine_too").score is None
    assert "runs/mine_too/report.html" in told
    assert "nowhere.jpg: no such file" in told
    assert str(sorted(iccld.METHODS)) in told
    Path("mask.png").unlink()
    assert len(README) == 1
    exec(compile(README[0], "README.md", "exec"), names := {})
    assert names["run"].report.is_file()
    assert Path("mask.png").is_file()


def test_every_public_name_stands_on_the_page_with_a_docstring_and_types() -> None:
    table = PAGE[PAGE.index("## Names") :]
    assert sorted(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| ([^|]*) \|", table, re.MULTILINE)))) == sorted(iccld.__all__)
    stub = (ROOT / "src" / "iccld" / "__init__.pyi").read_text(encoding="utf-8")
    assert sorted(re.findall(r'^    "(\w+)",$', stub, re.MULTILINE)) == sorted(iccld.__all__)
    assert set(iccld.__all__) <= set(dir(iccld))
    for name in iccld.__all__:
        value = getattr(iccld, name)
        if not (inspect.isclass(value) or inspect.isfunction(value)):
            continue
        assert value.__doc__, name
        functions = {name: value} if inspect.isfunction(value) else {k: v for k, v in vars(value).items() if inspect.isfunction(v)}
        for called, function in functions.items():
            if not called.startswith("_"):
                assert function.__doc__, f"{name}.{called}"
                assert "return" in function.__annotations__, f"{name}.{called}"


def test_it_predicts_what_the_command_predicts(model: Model, finished: Path, street: Image.Image, tmp_path: Path) -> None:
    street.save(tmp_path / "street.png")
    assert main(["predict", str(finished), str(tmp_path / "street.png"), "--out", str(tmp_path / "out"), "--write", "all", "--quiet"]) == 0
    result = model.segment(tmp_path / "street.png")
    assert result.save(tmp_path / "own" / "mask.png").read_bytes() == (tmp_path / "out" / "train_ids" / "street.png").read_bytes()
    assert (result.labels.shape, result.labels.dtype) == ((53, 71), np.uint8)
    assert (result.confidence.shape, result.confidence.dtype) == ((53, 71), np.float32)
    assert 1 / len(result.names) <= float(result.confidence.min()) <= float(result.confidence.max()) <= 1
    with Image.open(tmp_path / "out" / "confidence" / "street.png") as certainty:
        np.testing.assert_array_equal(np.round(result.confidence * 255), np.asarray(certainty))


def test_a_path_a_pil_image_and_an_array_are_one_picture(model: Model, street: Image.Image, tmp_path: Path) -> None:
    street.save(tmp_path / "street.png")
    kinds = [str(tmp_path / "street.png"), tmp_path / "street.png", street, np.asarray(street), np.asarray(street)[:, ::-1][:, ::-1]]
    results = model.segment(kinds)
    assert len(results) == len(kinds)
    for result in results:
        np.testing.assert_array_equal(result.labels, results[0].labels)
        np.testing.assert_array_equal(result.image, np.asarray(street))
    assert model.segment([]) == []
    assert len(model.segment((street,))) == 1


def test_keywords_choose_stage_weights_device_and_precision(model: Model, finished: Path, street: Image.Image) -> None:
    image = np.asarray(street)
    for choices in ({"stage": "source"}, {"stage": "step1", "weights": "model"}):
        expected = load_predictor(finished, choices["stage"], choices.get("weights"))
        found = iccld.load(finished, device="cpu", precision="fp32", **choices)
        np.testing.assert_array_equal(found.segment(image).labels, Model(finished, expected).segment(image).labels)
        assert (found.segment(image).confidence != model.segment(image).confidence).any()
    assert model.predictor.precision == iccld.load(finished).predictor.precision == "fp32"
    assert iccld.load(finished, precision="bf16").predictor.precision == "bf16"
    assert iccld.Run(finished).load(stage="source").names == model.names


EVERY_KIND = ["rgb.png", "l.png", "la.png", "rgba.png", "i16.png", "p.png", "p_transparent.png", "cmyk.jpg", "i16.tif", "rgba.tif", "p.gif"]


@pytest.mark.parametrize("name", EVERY_KIND)
def test_a_pil_image_is_converted_as_its_file_is(name: str, model: Model) -> None:
    with Image.open(GOLDEN / name) as image:
        np.testing.assert_array_equal(model.segment(image).image, read_image(GOLDEN / name))


def test_exif_orientation_is_applied_to_a_pil_image(model: Model, street: Image.Image, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rows and columns change places
    street.save(tmp_path / "turned.png", exif=exif)
    with Image.open(tmp_path / "turned.png") as image:
        result = model.segment(image)
    assert result.labels.shape == (71, 53)
    np.testing.assert_array_equal(result.image, read_image(tmp_path / "turned.png"))


@pytest.mark.parametrize(
    ("picture", "says"),
    [
        (3, "not a int"),
        (None, "not a NoneType"),
        (b"street.jpg", "not a bytes"),
        (np.zeros((4, 5, 3), np.float32), "(4, 5, 3) float32"),
        (np.zeros((4, 5), np.uint8), "(4, 5) uint8"),
        (np.zeros((4, 5, 4), np.uint8), "(4, 5, 4) uint8"),
        (np.zeros((0, 5, 3), np.uint8), "(0, 5, 3) uint8"),
        (Image.new("RGB", (0, 5)), "no pixels"),
        (Image.new("LAB", (4, 4)), "no defined conversion"),
        (Image.new("F", (4, 4), 0.5), "no defined brightness"),
        ("nowhere.jpg", "no such file"),
        ([[1]], "not a list"),
    ],
)
def test_what_is_no_picture_is_one_line(picture: Any, says: str, model: Model) -> None:
    with pytest.raises(iccld.DataError) as caught:
        model.segment(picture)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("choices", "says"),
    [
        ({"stage": "step3"}, r"'step3' \(did you mean step2\?\); it has source, step1, step2"),
        ({"weights": "average"}, "ema or model"),
        ({"device": "gpu"}, "auto or cpu or cuda"),
        ({"precision": "fp64"}, "fp32 or bf16 or auto"),
    ],
)
def test_a_choice_that_there_is_not_is_one_line(choices: dict[str, str], says: str, finished: Path) -> None:
    with pytest.raises(IccldError, match=says):
        iccld.load(finished, **choices)


def test_what_is_no_run_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(iccld.CheckpointError, match="no folder"):
        iccld.load(tmp_path / "nowhere")
    for opened in (iccld.load, iccld.Run):
        with pytest.raises(iccld.CheckpointError, match=r"config\.yaml"):
            opened(tmp_path)


def test_labels_are_saved_as_png_alone(model: Model, street: Image.Image, tmp_path: Path) -> None:
    result = model.segment(street)
    with pytest.raises(iccld.ConfigError, match=r"mask\.png"):
        result.save(tmp_path / "mask.jpg")
    with pytest.raises(iccld.ConfigError, match="0 to 1"):
        result.overlay(2)
    assert list(tmp_path.iterdir()) == []
    with Image.open(result.save(tmp_path / "mask.png")) as mask:
        np.testing.assert_array_equal(np.asarray(mask), result.labels)
    np.testing.assert_array_equal(np.asarray(result.overlay(1.0)), result.palette[result.labels])
    np.testing.assert_array_equal(np.asarray(result.overlay(0.0)), np.asarray(street))


def test_a_mask_that_cannot_be_written_is_one_line(model: Model, street: Image.Image, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(iccld.DataError, match=r"mask\.png: cannot be written \("):
        model.segment(street).save(tmp_path / "file" / "mask.png")


def test_no_name_is_the_recipes_name(monkeypatch: pytest.MonkeyPatch, finished: Path) -> None:
    names = []
    monkeypatch.setattr(adapting, "train", lambda config, _: names.append(config.name) or finished)
    iccld.adapt("demo", name=None)
    iccld.adapt("demo", name="mine")
    assert names == ["demo", "mine"]


def test_own_classes_are_opened_by_the_file_that_names_them(tmp_path: Path) -> None:
    for folder, image in (("images", Image.new("RGB", (4, 3), (9, 9, 9))), ("masks", Image.new("L", (4, 3), 7))):
        (tmp_path / folder).mkdir()
        image.save(tmp_path / folder / "a.png")
    (tmp_path / "dataset.yaml").write_text("classes: [{name: lawn, ids: [7]}, {name: pond, ids: [8]}]")
    (tmp_path / "classes.yaml").write_text("classes: [{name: pond}, {name: lawn}]")
    assert iccld.open_dataset(tmp_path, label_space=tmp_path / "classes.yaml")[0].label.tolist() == [[1] * 4] * 3
    with pytest.raises(iccld.ConfigError, match="unknown label space 'camvid12'"):
        iccld.open_dataset(tmp_path, label_space="camvid12")


def test_overrides_are_the_commands_words() -> None:
    assert _words("stages", {"step1": {"iterations": 5}}) == ["--stages.step1.iterations=5"]
    assert _words("network", {"widths": (8, 16), "inter_coder": False}) == ["--network.widths=[8, 16]", "--network.inter_coder=false"]
    assert _words("target", {"path": Path("a b")}) == ["--target.path=a b"]
    assert _words("source_checkpoint", None) == ["--source_checkpoint=null"]
    with pytest.raises(iccld.ConfigError, match="seed is a object"):
        _words("seed", object())


def test_settings_that_cannot_be_are_refused_as_by_the_command() -> None:
    with pytest.raises(iccld.ConfigError, match=r"did you mean stages\.step1\.iterations\?"):
        iccld.adapt("demo", stages={"step1": {"iteration": 5}})
    with pytest.raises(iccld.ConfigError, match="did you mean threshold"):
        iccld.adapt("demo", settings={"thresold": 0.5})
    with pytest.raises(iccld.DataError, match="nowhere: no such folder"):
        iccld.adapt("city_to_camvid", target="nowhere")
