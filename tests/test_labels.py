"""Label spaces, raw id tables and absorption: the tables of the datasets' own scripts, pinned."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iccld import labels
from iccld.errors import ConfigError, DataError
from iccld.labels import CAMVID11, CITYSCAPES13, CITYSCAPES16, CITYSCAPES19, IGNORE, LabelClass, LabelSpace, get_label_space, raw_id_table

CITYSCAPES_NAMES = (
    "road sidewalk building wall fence pole traffic_light traffic_sign vegetation terrain sky person rider car truck bus train "
    "motorcycle bicycle"
)
# One row a raw id, written out from the datasets' documentation and not derived from the code under test.
CITYSCAPES_GOLDEN = [
    255, 255, 255, 255, 255, 255, 255, 0, 1, 255, 255, 2, 3, 4, 255, 255, 255, 5, 255, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 255, 255,
    16, 17, 18, 255,
]  # fmt: skip
SYNTHIA_GOLDEN = [255, 10, 2, 0, 1, 4, 8, 5, 13, 7, 11, 18, 17, 255, 255, 6, 9, 12, 14, 15, 16, 3, 255]


def space(name: str, *classes: LabelClass) -> LabelSpace:
    return LabelSpace(name, classes)


def test_cityscapes19_names_and_order() -> None:
    assert CITYSCAPES19.names == tuple(name.replace("_", " ") for name in CITYSCAPES_NAMES.split())
    assert CITYSCAPES19.palette.shape == (19, 3)
    assert CITYSCAPES19.palette[0].tolist() == [128, 64, 128]
    assert CITYSCAPES19.palette[13].tolist() == [0, 0, 142]


def test_smaller_cityscapes_spaces_drop_the_published_classes() -> None:
    assert set(CITYSCAPES19.names) - set(CITYSCAPES16.names) == {"terrain", "truck", "train"}
    assert set(CITYSCAPES16.names) - set(CITYSCAPES13.names) == {"wall", "fence", "pole"}
    assert (CITYSCAPES16.num_classes, CITYSCAPES13.num_classes) == (16, 13)


def test_raw_id_tables_are_golden() -> None:
    cityscapes = raw_id_table(labels.CITYSCAPES_IDS, labels.CITYSCAPES_KNOWN)
    gta5 = raw_id_table(labels.GTA5_IDS, labels.CITYSCAPES_KNOWN)
    synthia = raw_id_table(labels.SYNTHIA_IDS, labels.SYNTHIA_KNOWN)
    raw = np.arange(35, dtype=np.uint8)
    assert cityscapes.apply(raw, "x").tolist() == CITYSCAPES_GOLDEN
    assert gta5.apply(raw, "x").tolist() == CITYSCAPES_GOLDEN
    assert synthia.apply(np.arange(23, dtype=np.uint16), "x").tolist() == SYNTHIA_GOLDEN
    assert cityscapes.apply(np.array([-1, 7], dtype=np.int16), "x").tolist() == [255, 0]


@pytest.mark.parametrize("value", [35, 200, 255])
def test_raw_id_table_names_file_and_unknown_value(value: int) -> None:
    table = raw_id_table(labels.CITYSCAPES_IDS, labels.CITYSCAPES_KNOWN)
    raw = np.full((2, 3), 7, dtype=np.uint8)
    raw[1, 2] = value
    with pytest.raises(DataError, match=rf"folder/a\.png: unknown label value {value} \(1 pixels\)") as caught:
        table.apply(raw, Path("folder/a.png"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("dtype", "value"), [(np.int16, -2), (np.uint16, 65535), (np.int32, 70000), (np.int64, -(2**40))])
def test_raw_id_table_refuses_values_outside_any_range(dtype: type, value: int) -> None:
    table = raw_id_table(labels.CITYSCAPES_IDS, labels.CITYSCAPES_KNOWN)
    with pytest.raises(DataError, match=f"unknown label value {value} "):
        table.apply(np.array([[7, value]], dtype=dtype), "x")


@given(st.lists(st.sampled_from(sorted(labels.CITYSCAPES_IDS)), min_size=1), st.sampled_from([np.uint8, np.uint16, np.int32]))
def test_raw_ids_round_trip(ids: list[int], dtype: type) -> None:
    table = raw_id_table(labels.CITYSCAPES_IDS, labels.CITYSCAPES_KNOWN)
    raw = np.array(ids, dtype=dtype)
    assert labels.raw_ids(CITYSCAPES19)[table.apply(raw, "x")].tolist() == ids


def test_raw_ids_of_other_spaces_are_train_ids() -> None:
    assert labels.raw_ids(CAMVID11)[[0, 10, 255]].tolist() == [0, 10, 255]
    assert labels.raw_ids(CITYSCAPES19)[IGNORE] == 0
    assert labels.raw_ids(CITYSCAPES13)[12] == 33


@given(st.dictionaries(st.integers(0, 65535), st.integers(0, 253), min_size=1, max_size=20), st.sets(st.integers(0, 65535), max_size=20))
def test_raw_id_table_equals_dictionary(mapping: dict[int, int], known: set[int]) -> None:
    table = raw_id_table(mapping, known)
    ids = sorted(known | set(mapping))
    assert table.apply(np.array(ids, dtype=np.uint16), "x").tolist() == [mapping.get(i, 255) for i in ids]
    with pytest.raises(DataError):
        table.apply(np.array([next(i for i in range(65536) if i not in ids)], dtype=np.uint16), "x")


def test_camvid_absorbs_the_nineteen_classes() -> None:
    table, unabsorbed = CAMVID11.absorption(CITYSCAPES19.names)
    assert table[:19].tolist() == [3, 4, 1, 1, 7, 2, 6, 6, 5, 5, 0, 9, 10, 8, 8, 8, 8, 10, 10]
    assert set(table[19:].tolist()) == {IGNORE}
    assert table.dtype == np.uint8
    assert table.shape == (256,)
    assert unabsorbed == []


def test_absorption_of_itself_is_identity() -> None:
    for same in labels.LABEL_SPACES.values():
        table, unabsorbed = same.absorption(same.names)
        assert table[: same.num_classes].tolist() == list(range(same.num_classes))
        assert unabsorbed == []


def test_absorption_lists_what_nobody_absorbs() -> None:
    table, unabsorbed = CITYSCAPES13.absorption(CITYSCAPES19.names)
    assert unabsorbed == ["wall", "fence", "pole", "terrain", "truck", "train"]
    assert [CITYSCAPES19.names[i] for i in np.flatnonzero(table[:19] == IGNORE)] == unabsorbed
    assert table[18] == 12


def test_absorbed_twice_is_an_error() -> None:
    doubled = space("two", LabelClass("ground", (0, 0, 0), ("road",)), LabelClass("way", (1, 1, 1), ("road", "sidewalk")))
    with pytest.raises(ConfigError, match="'road' is absorbed twice, by 'ground' and 'way'"):
        doubled.absorption(["road", "sidewalk"])


def test_target_finer_than_source_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"has sidewalk, wall, .*, but no class of the data becomes that"):
        CITYSCAPES19.absorption(CAMVID11.names)
    typo = space("t", LabelClass("green", (0, 0, 0), ("vegitation",)))
    with pytest.raises(ConfigError, match="did you mean 'vegetation'"):
        typo.absorption(["vegetation"])


def test_then_composes_and_keeps_unknown_ids_unknown() -> None:
    table = raw_id_table(labels.CITYSCAPES_IDS, labels.CITYSCAPES_KNOWN).then(CAMVID11.absorption(CITYSCAPES19.names)[0])
    assert table.apply(np.array([7, 12, 0, 33], dtype=np.uint8), "x").tolist() == [3, 1, 255, 10]
    with pytest.raises(DataError, match="unknown label value 99"):
        table.apply(np.array([99], dtype=np.uint8), "x")
    assert table.known_text() == "-1, 0-34"


def test_user_label_space_from_yaml(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\nclasses:\n- {name: ground, color: [1, 2, 3], absorbs: [road, sidewalk]}\n- {name: sky}\n")
    mine = get_label_space(path)
    assert (mine.name, mine.names, mine.palette[0].tolist()) == ("mine", ("ground", "sky"), [1, 2, 3])
    table, unabsorbed = mine.absorption(CITYSCAPES19.names)
    assert (table[0], table[1], table[10], len(unabsorbed)) == (0, 0, 1, 16)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("clases: []", "unknown key 'clases' (did you mean 'classes'?)"),
        ("name: x", "'classes' must be a list"),
        ("classes: [{color: [1,2,3]}]", "class number 0 has no 'name'"),
        ("classes: [{name: a, color: [1,2]}]", "'color' must be three whole numbers"),
        ("classes: [{name: a, absorbs: road}]", "'absorbs' must be a list"),
        ("classes: [{name: a}, {name: a}]", "names a class twice"),
        ("classes: [{name: a, absorb: [b]}]", "did you mean 'absorbs'"),
        ("[1, 2", "cannot be read as YAML"),
        ("- 1", "expected a mapping"),
    ],
)
def test_bad_label_space_yaml_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        get_label_space(path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_label_space_suggests_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'camvid11'"):
        get_label_space("camvid12")
    with pytest.raises(ConfigError, match="no such file"):
        get_label_space("nowhere.yaml")


@pytest.mark.parametrize("classes", [(), (LabelClass("a", (0, 0, 300)),), tuple(LabelClass(str(i), (0, 0, 0)) for i in range(255))])
def test_impossible_label_spaces_are_refused(classes: tuple[LabelClass, ...]) -> None:
    with pytest.raises(ConfigError):
        LabelSpace("bad", classes)


@pytest.mark.parametrize(("mapping", "known"), [({70000: 0}, ()), ({0: 254}, ()), ({-1: 3}, ()), ({}, (-2,))])
def test_impossible_raw_ids_are_refused(mapping: dict[int, int], known: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError):
        raw_id_table(mapping, known)


def test_distinct_colors_differ() -> None:
    assert len({labels.distinct_color(i) for i in range(254)}) == 254


def test_labels_and_data_leave_torch_unimported() -> None:
    code = "import sys, iccld.labels, iccld.data, iccld.data.check, iccld.data.rare_class; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_fault_54_one_class_is_refused_with_the_rest_to_add(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text("classes: [{name: road}]")
    with pytest.raises(ConfigError, match=r"'road' is the only class, .* \{name: other, absorbs: rest\}"):
        get_label_space(tmp_path / "one.yaml")


def test_rest_takes_every_class_that_nobody_else_absorbs(tmp_path: Path) -> None:
    (tmp_path / "two.yaml").write_text("classes: [{name: other, absorbs: rest}, {name: road, absorbs: [sidewalk]}]")
    table, unabsorbed = get_label_space(tmp_path / "two.yaml").absorption(CITYSCAPES19.names)
    assert unabsorbed == []
    assert table[:19].tolist() == [1, 1, *[0] * 17]
    assert table[255] == 255
    (tmp_path / "both.yaml").write_text("classes: [{name: a, absorbs: rest}, {name: b, absorbs: rest}]")
    with pytest.raises(ConfigError, match="two classes absorb the rest"):
        get_label_space(tmp_path / "both.yaml")


def test_rest_of_nothing_is_an_error() -> None:
    with pytest.raises(ConfigError, match="has other, but no class of the data becomes that"):
        space("t", LabelClass("road", (0, 0, 0)), LabelClass("other", (1, 1, 1), takes_rest=True)).absorption(["road"])


def test_names_compare_without_case_and_separators() -> None:
    wanted = space("t", LabelClass("Traffic_Light", (0, 0, 0)), LabelClass("sky", (1, 1, 1), ("ROAD",)))
    table, unabsorbed = wanted.absorption(["traffic light", "Sky", "road"])
    assert table[:3].tolist() == [0, 1, 1]
    assert unabsorbed == []


def test_hints_survive_several_mismatches() -> None:
    wanted = space("t", *(LabelClass(name, (0, 0, 0)) for name in ("skyy", "rode", "vehicles", "tree")))
    with pytest.raises(ConfigError) as caught:
        wanted.absorption(["sky", "road", "vehicle", "pole"])
    for name, near in (("skyy", "sky"), ("rode", "road"), ("vehicles", "vehicle")):
        assert f"'{name}' (did you mean '{near}'?)" in str(caught.value)


def test_classes_that_are_not_labelled_become_ignored_and_leave_classes_empty() -> None:
    wanted = space("t", LabelClass("road", (0, 0, 0)), LabelClass("car", (1, 1, 1)), LabelClass("rest", (2, 2, 2), takes_rest=True))
    table, _ = wanted.absorption(["background", "road", "car"], labelled=["road", "car"])
    assert table[:3].tolist() == [255, 0, 1]
    with pytest.raises(ConfigError, match="no class of the data becomes that"):
        space("t", LabelClass("sky", (0, 0, 0))).absorption(["road"], labelled=["road"])
