"""Predictions for other programs: read back by the programs' own packages where they are installed, and by their documentation's words."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from torch import Tensor, nn

from iccld.data import open_dataset
from iccld.errors import ConfigError
from iccld.labels import CITYSCAPES19, LabelClass, LabelSpace
from iccld.predict import Wanted, predict_paths
from iccld.predict.exchange import runs
from iccld.predictor import Predictor

SPACE = LabelSpace("three", (LabelClass("red", (255, 0, 0)), LabelClass("green", (0, 255, 0)), LabelClass("blue", (0, 0, 255))))


class Brightest(nn.Module):
    """The class is the strongest channel."""

    def forward(self, images: Tensor, noise: Tensor | None) -> Tensor:
        return images * 10


def predictor(space: LabelSpace = SPACE) -> Predictor:
    return Predictor(Brightest(), space, working_size=None, size_multiple=1, mean=(0, 0, 0), std=(1, 1, 1))


@pytest.fixture
def predicted(tmp_path: Path) -> tuple[Path, np.ndarray]:
    """Two pictures of random classes, and the classes of the first."""
    rng = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    classes = rng.integers(0, 3, (24, 40))
    classes[:12, :20] = 1  # one large area
    for name, values in (("a", classes), ("b", rng.integers(0, 3, (24, 40)))):
        Image.fromarray((np.eye(3)[values] * 200).astype(np.uint8)).save(tmp_path / "in" / f"{name}.png")
    return tmp_path, classes


def predict(root: Path, **choices: object) -> Path:
    predict_paths(predictor(), [root / "in"], root / "out", wanted=Wanted(**choices))  # type: ignore[arg-type]
    return root / "out"


def test_runs_begin_with_background() -> None:
    assert runs(np.array([0, 0, 1, 1, 1, 0], dtype=bool)) == [2, 3, 1]
    assert runs(np.array([1, 1, 0], dtype=bool)) == [0, 2, 1]
    assert runs(np.zeros(4, dtype=bool)) == [4]


def test_coco_is_read_by_pycocotools(predicted: tuple[Path, np.ndarray]) -> None:
    coco = pytest.importorskip("pycocotools.coco")
    root, classes = predicted
    out = predict(root, format="coco")
    found = coco.COCO(str(out / "annotations" / "instances_default.json"))
    assert [category["name"] for category in found.loadCats(found.getCatIds())] == ["red", "green", "blue"]
    image = next(each for each in found.loadImgs(found.getImgIds()) if each["file_name"] == "a.png")
    for annotation in found.loadAnns(found.getAnnIds(imgIds=[image["id"]])):
        expected = classes == annotation["category_id"] - 1
        assert found.annToMask(annotation).astype(bool).tolist() == expected.tolist()
        assert annotation["area"] == int(expected.sum())


def test_cvat_masks_follow_its_documentation(predicted: tuple[Path, np.ndarray]) -> None:
    root, classes = predicted
    tree = ElementTree.parse(predict(root, format="cvat") / "annotations.xml").getroot()
    assert tree.findtext("version") == "1.1"
    assert [label.findtext("name") for label in tree.iter("label") if label.find("name") is not None] == ["red", "green", "blue"]
    image = next(each for each in tree.iter("image") if each.get("name") == "a.png")
    assert (image.get("width"), image.get("height")) == ("40", "24")
    for mask in image.iter("mask"):
        left, top, width, height = (int(mask.get(key, "")) for key in ("left", "top", "width", "height"))
        counts = [int(count) for count in mask.get("rle", "").split(",")]
        inside = np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(height, width)
        whole = np.zeros((24, 40), dtype=bool)
        whole[top : top + height, left : left + width] = inside
        assert whole.tolist() == (classes == SPACE.names.index(mask.get("label", ""))).tolist()


def unpacked(data: list[int]) -> np.ndarray:
    """rle-pack's bits by its own description -> the values."""
    text, at = "".join(f"{byte:08b}" for byte in data), 0

    def read(size: int) -> int:
        nonlocal at
        at += size
        return int(text[at - size : at], 2)

    total, size = read(32), read(5) + 1
    sizes = [read(4) + 1 for _ in range(4)]
    values: list[int] = []
    while len(values) < total:
        is_run, length = read(1), read(sizes[read(2)]) + 1
        values += [read(size)] * length if is_run else [read(size) for _ in range(length)]
    return np.array(values, dtype=np.uint8)


def test_label_studio_masks_are_rle_packed(predicted: tuple[Path, np.ndarray]) -> None:
    root, classes = predicted
    out = predict(root, format="labelstudio")
    tasks = json.loads((out / "tasks.json").read_text())
    results = next(task for task in tasks if task["data"]["image"] == "a.png")["predictions"][0]["result"]
    assert [result["value"]["brushlabels"] for result in results] == [["red"], ["green"], ["blue"]]
    for train_id, result in enumerate(results):
        mask = unpacked(result["value"]["rle"]).reshape(24, 40, 4)
        assert mask[..., 3].astype(bool).tolist() == (classes == train_id).tolist()
    assert '<Label value="green" background="#00ff00"/>' in (out / "label_config.xml").read_text()


def test_label_studio_masks_are_read_by_its_converter(predicted: tuple[Path, np.ndarray]) -> None:
    brush = pytest.importorskip("label_studio_sdk.converter.brush")
    root, classes = predicted
    tasks = json.loads((predict(root, format="labelstudio") / "tasks.json").read_text())
    results = next(task for task in tasks if task["data"]["image"] == "a.png")["predictions"][0]["result"]
    for train_id, result in enumerate(results):
        mask = np.asarray(brush.decode_rle(result["value"]["rle"])).reshape(24, 40, 4)
        assert mask[..., 3].astype(bool).tolist() == (classes == train_id).tolist()


@pytest.mark.parametrize(
    ("format", "theirs", "pictures"),
    [("coco", "coco_instances", "images/default"), ("cvat", "cvat", "images"), ("voc", "voc_segmentation", "JPEGImages")],
)
def test_datumaro_reads_the_same_masks(format: str, theirs: str, pictures: str, predicted: tuple[Path, np.ndarray]) -> None:
    """The reader of datasets that CVAT's imports are built on.  It finds the pictures where these programs keep them."""
    datumaro = pytest.importorskip("datumaro")
    root, classes = predicted
    out = predict(root, format=format)
    shutil.copytree(root / "in", out / pictures, dirs_exist_ok=True)
    found = datumaro.Dataset.import_from(str(out), theirs)
    names = [label.name for label in found.categories()[datumaro.AnnotationType.label]]
    assert [name for name in names if name != "background"] == ["red", "green", "blue"]
    item = next(each for each in found if each.id == "a")
    masks = [each for each in item.annotations if each.type == datumaro.AnnotationType.mask]
    assert {names[mask.label] for mask in masks} == set(SPACE.names)
    for mask in masks:
        assert np.asarray(mask.image).astype(bool).tolist() == (classes == SPACE.names.index(names[mask.label])).tolist()


def test_voc_is_read_back_by_its_labelmap(predicted: tuple[Path, np.ndarray]) -> None:
    root, classes = predicted
    out = predict(root, format="voc")
    assert (out / "ImageSets" / "Segmentation" / "default.txt").read_text().split() == ["a", "b"]
    lines = [line.split(":") for line in (out / "labelmap.txt").read_text().splitlines() if not line.startswith("#")]
    colors = {tuple(map(int, color.split(","))): name for name, color, *_ in lines}
    with Image.open(out / "SegmentationClass" / "a.png") as image:
        painted = np.asarray(image)
    assert [[colors[tuple(pixel)] for pixel in row] for row in painted.tolist()] == [
        [SPACE.names[c] for c in row] for row in classes.tolist()
    ]
    assert sorted(path.name for path in (out / "JPEGImages").iterdir()) == ["a.png", "b.png"]


def test_cityscapes_holds_label_ids(tmp_path: Path) -> None:
    space = LabelSpace("few", (CITYSCAPES19.classes[0], CITYSCAPES19.classes[10], CITYSCAPES19.classes[13]))
    folder = tmp_path / "leftImg8bit" / "default" / "x"
    folder.mkdir(parents=True)
    classes = np.random.default_rng(1).integers(0, 3, (24, 40))
    Image.fromarray((np.eye(3)[classes] * 200).astype(np.uint8)).save(folder / "x_000000_000000_leftImg8bit.png")
    predict_paths(predictor(space), [tmp_path / "leftImg8bit"], tmp_path / "out", wanted=Wanted(["color"], "cityscapes"))
    files = sorted((tmp_path / "out" / "gtFine" / "default").rglob("*_gtFine_labelIds.png"))
    assert len(files) == 1
    with Image.open(files[0]) as image:
        assert np.asarray(image).tolist() == np.array([7, 23, 26])[classes].tolist()


def test_only_what_is_asked_for_is_written(predicted: tuple[Path, np.ndarray]) -> None:
    root, classes = predicted
    out = predict(root, write=["train_ids", "logits"])
    assert sorted(path.name for path in out.iterdir()) == ["logits", "predictions.json", "train_ids"]
    logits = np.load(out / "logits" / "a.npy")
    assert (logits.shape, logits.dtype) == ((3, 24, 40), np.float16)
    assert logits.argmax(axis=0).tolist() == classes.tolist()
    with pytest.raises(ConfigError, match=r"nothing called 'colour' can be written \(did you mean color\?\); choose from color,"):
        predict(root, write=["colour"])


def test_own_outputs_are_no_pictures_of_a_target(predicted: tuple[Path, np.ndarray]) -> None:
    root, _ = predicted
    predict(root)
    with pytest.raises(Exception, match="look like masks or depth maps"):
        open_dataset(root, labels=False)
