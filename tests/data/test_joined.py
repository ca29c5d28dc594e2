"""Several data sets as one domain: each by its own ids, drawn by weight; partly labelled ones do not take their rest for background."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from iccld.assembly.domains import held_out
from iccld.config import load_config
from iccld.data import FileDataset, open_dataset
from iccld.data.joined import JoinedDataset, join
from iccld.data.pairs import Order, PairDataset, Sizes
from iccld.data.rare_class import rare_class_sampler
from iccld.errors import ConfigError
from iccld.labels import LabelClass, LabelSpace

SPACE = LabelSpace("three", (LabelClass("road", (1, 1, 1)), LabelClass("car", (2, 2, 2)), LabelClass("other", (3, 3, 3), takes_rest=True)))


def write(root: Path, num: int, yaml: str, ids: tuple[int, ...]) -> FileDataset:
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for i in range(num):
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (16, 24, 3), dtype=np.uint8)).save(root / "images" / f"{i}.png")
        Image.fromarray(np.resize(np.array(ids, dtype=np.uint8), (16, 24))).save(root / "masks" / f"{i}.png")
    (root / "dataset.yaml").write_text(yaml)
    return open_dataset(root, label_space=SPACE)


@pytest.fixture
def parts(tmp_path: Path) -> tuple[FileDataset, FileDataset]:
    whole = "classes: [{name: road, ids: [1]}, {name: car, ids: [2]}, {name: sky, ids: [0]}]"
    other = "labelled: [road]\nclasses: [{name: road, ids: [7]}, {name: background, ids: [0]}]"
    return write(tmp_path / "a", 6, whole, (0, 1, 2)), write(tmp_path / "b", 2, other, (0, 7))


def test_each_part_keeps_its_own_ids_and_unlabelled_rest_is_ignored(parts: tuple[FileDataset, FileDataset]) -> None:
    joined = join(parts)
    assert (len(joined), joined.has_labels) == (8, True)
    assert joined.names[5:] == ["0/5", "1/0", "1/1"]
    assert joined.read_label(0)[0, :3].tolist() == [2, 0, 1]  # sky is the rest
    assert joined.read_label(6)[0, :2].tolist() == [255, 0]  # what only `road` labels says nothing of the rest
    assert joined.subset([7, 0]).read_label(0)[0, :2].tolist() == [255, 0]
    assert join(parts[:1]) is parts[0]


def test_a_source_without_the_word_labelled_has_to_fill_the_space(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has car, but no class of the data becomes that"):
        write(tmp_path / "c", 1, "classes: [{name: road, ids: [7]}, {name: sky, ids: [0]}]", (0, 7))


def test_weights_decide_how_often_a_part_is_drawn(parts: tuple[FileDataset, FileDataset]) -> None:
    joined = join(parts, (1.0, 3.0))
    pairs = PairDataset(joined, parts[0], order=Order(4, 0), sizes=Sizes((16, 24), (16, 24)))
    drawn = [index for iteration in range(150) for index in pairs.indices(iteration)[0]]
    counts = Counter(0 if index < 6 else 1 for index in drawn)
    assert counts == {0: 150, 1: 450}
    by_picture = Counter(drawn)
    assert {by_picture[index] for index in range(6)} == {25}
    assert {by_picture[index] for index in (6, 7)} == {225}
    assert drawn == [index for iteration in range(150) for index in pairs.indices(iteration)[0]]


def test_weights_hold_for_rare_class_sampling_too(parts: tuple[FileDataset, FileDataset]) -> None:
    joined = join(parts, (1.0, 3.0))
    assert isinstance(joined, JoinedDataset)
    counts = np.full((8, 1), 1000)
    sampler = rare_class_sampler(counts)
    weighted = type(sampler)(sampler.probabilities, sampler.pictures, joined.picture_weights())
    rng = np.random.default_rng(0)
    share = np.mean([weighted.draw(rng)[0] >= 6 for _ in range(4000)])
    assert share == pytest.approx(0.75, abs=0.03)


def test_without_weights_the_order_is_that_of_one_data_set(parts: tuple[FileDataset, FileDataset]) -> None:
    plain = PairDataset(join(parts), parts[0], order=Order(4, 0), sizes=Sizes((16, 24), (16, 24)))
    assert sorted(index for iteration in (0, 1) for index in plain.indices(iteration)[0]) == list(range(8))


def test_a_holdout_comes_from_every_part(parts: tuple[FileDataset, FileDataset]) -> None:
    assert held_out(join(parts), 4) == {3, 4, 5, 7}
    assert held_out(parts[0], 2) == {4, 5}


def test_settings_of_several_paths(tmp_path: Path) -> None:
    own = ["--source.generate.num", "0", "--source.path"]
    config = load_config("demo", [*own, "a, b", "--source.format", "gta5,folder", "--source.weights", "2,1"])
    assert [(part.path, part.format) for part in config.source.parts] == [("a", "gta5"), ("b", "folder")]
    assert config.source.weights == (2.0, 1.0)
    for flags, says in (
        (["--source.format", "gta5,folder,folder"], "format has 3 entries for 2 paths"),
        (["--source.weights", "1,2,3"], "weights is"),
        (["--source.weights", "1,0"], "weights is"),
    ):
        with pytest.raises(ConfigError, match=says):
            load_config("demo", [*own, "a,b", *flags])
    (tmp_path / "a,b").mkdir()
    assert load_config("demo", [*own, str(tmp_path / "a,b")]).source.paths == (str(tmp_path / "a,b"),)
