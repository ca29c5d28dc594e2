"""What a folder is: the layouts that people have, told by their folders; and which of the files below any folder are pictures.

Masks, depth maps and painted labels are picture files too, and taking them for pictures of a camera goes wrong without a word.  They are
told by three signs: the layout that they belong to, the name of their folder, and what they hold (flat areas of few values).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from iccld.data.finding import find_files, picture_suffixes, relative_name
from iccld.data.images import opened_header
from iccld.data.pairing import common_endings
from iccld.data.splits import SYNONYMS, part_of
from iccld.errors import DataError

NOT_PICTURES = frozenset(
    {
        "masks", "mask", "labels", "label", "annotations", "annotation", "annot", "gt", "gtfine", "gtcoarse", "groundtruth",
        "ground_truth", "truth", "ids", "labelids", "trainids", "semantic", "semantics", "semantic_rgb", "semantic_segmentation",
        "sem_seg", "semseg", "seg", "segmentation", "segmentations", "segmentationclass", "segmentationobject", "instance",
        "instances", "instance_segmentation", "panoptic", "panoptic_maps", "colormaps", "color_labels", "color_masks", "depth",
        "depths", "disparity", "flow", "optical_flow", "cameraseg", "cameradepth", "train_ids", "raw_ids", "overlay", "confidence",
    }
)  # fmt: skip
"""Folders, in lower case, that hold no pictures of a camera where they stand beside some."""
DEPTH = frozenset({"depth", "depths", "disparity", "flow", "optical_flow", "cameradepth"})
"""Those of them that hold no masks either."""
SAMPLES = 4
"""Files of a folder that are looked at."""
FOLDERS = 64
"""Folders that are looked at."""
FAMILIES = 8
"""Kinds of file names in a folder that are looked at, the most frequent ones."""
MOST_VALUES = 64
"""Values in a mask at most; pictures of a camera have more colours."""
FLAT = 0.9
"""Share of neighbours with the same value from which on an area is flat."""
LEAST_PIXELS = 256
"""Pictures smaller than this are not judged by what they hold."""


@dataclass(frozen=True)
class Layout:
    """A layout as people have it on disk."""

    format: str
    """How `open_dataset` reads it."""
    title: str
    marks: tuple[str, ...]
    """Patterns of paths below the root that all have to exist."""
    images: tuple[str, ...]
    """Patterns of the folders with pictures; {split} stands for a part's folder."""
    masks: tuple[str, ...] = ()
    image_ending: str = ""
    """What a picture's stem ends with."""
    mask_ending: str = ""
    lists: str = ""
    """Text file of the names in a part, one a line; {split} stands for the part."""
    remedy: str = ""
    """What to give for its labels, where its masks do not say what their ids mean."""


_YAML = "classes: [{name: road, ids: [..]}, ..]"
LAYOUTS = (
    Layout(
        "voc", "Pascal VOC", ("JPEGImages",), ("JPEGImages",), ("SegmentationClass",), lists="ImageSets/Segmentation/{split}.txt",
        remedy=f"put a dataset.yaml there with {_YAML} for the masks in SegmentationClass/",
    ),
    Layout("kitti", "KITTI semantics", ("training/image_2",), ("{split}/image_2",), ("{split}/semantic",)),
    Layout("acdc", "ACDC", ("rgb_anon",), ("rgb_anon/*/{split}",), ("gt/*/{split}",), "_rgb_anon", "_gt_labelIds"),
    Layout("bdd100k", "BDD100K", ("images/10k",), ("images/10k/{split}",), ("labels/sem_seg/masks/{split}",)),
    Layout("bdd100k", "BDD100K", ("images/100k",), ("images/100k/{split}",), ("labels/sem_seg/masks/{split}",)),
    Layout("bdd100k", "BDD100K (seg)", ("seg/images",), ("seg/images/{split}",), ("seg/labels/{split}",), mask_ending="_train_id"),
    *(
        Layout(
            "mapillary", "Mapillary Vistas", marks, ("{split}/images",), ("{split}/v2.0/labels", "{split}/v1.2/labels", "{split}/labels"),
            remedy=f"put a dataset.yaml there with {_YAML}; an id is a label's position in its config.json",
        )
        for marks in (  # config.json lies beside the parts, and is easily left behind
            ("config*.json", "training/images"),
            *((f"{part}/images", f"{part}/{beside}") for part in ("training", "validation") for beside in ("instances", "v[12].*/labels")),
        )
    ),
    Layout(
        "idd", "IDD", ("leftImg8bit", "gtFine/*/*/*_gtFine_polygons.json"), ("leftImg8bit/{split}",), ("gtFine/{split}",), "_leftImg8bit",
        remedy="draw masks with the data set's own script, and put a dataset.yaml there with images: leftImg8bit, masks: gtFine, "
        f"suffixes: {{image: _leftImg8bit, mask: _gtFine_labellevel3Ids}}, {_YAML}",
    ),
)  # fmt: skip
"""Those that are told by their folders alone; the order decides.  IDD looks like Cityscapes until its masks are drawn."""
PAIRED = (
    ("leftImg8bit", "gtFine", "Cityscapes"),
    ("RGB", "GT", "SYNTHIA"),
    ("images", "labels", "GTA5"),
    ("images", "masks", "a folder with masks"),
)
"""Pictures, masks beside them, and what that is."""
CARLA_PICTURES = ("CameraRGB", "rgb", "RGB", "camera_rgb", "image", "images")
CARLA_MASKS = ("CameraSeg", "CameraSemSeg", "semantic", "semantic_segmentation", "sem_seg", "semseg", "seg", "ss")


def recognise(root: Path) -> Layout | None:
    """The known layout below `root`, or None."""
    for layout in LAYOUTS:
        if all(next(root.glob(mark), None) is not None for mark in layout.marks) and not _has_cityscapes_masks(root, layout):
            return layout
    pictures = next((name for name in CARLA_PICTURES if _holds(root / name, lambda mask: not _is_tag_mask(mask))), None)
    masks = next((name for name in CARLA_MASKS if _holds(root / name, _is_tag_mask)), None)
    if pictures is None or masks is None:
        return None
    title = f"CARLA recording ({pictures}/, {masks}/)"
    return Layout("carla", title, (), (pictures,), (masks,), remedy=f"put a dataset.yaml there with {_YAML}")


def _has_cityscapes_masks(root: Path, layout: Layout) -> bool:
    return layout.format == "idd" and next(root.glob("gtFine/*/*/*_gtFine_labelIds.png"), None) is not None


def folders_of(root: Path, patterns: Sequence[str], split: str) -> list[tuple[Path, str]]:
    """The folders that the patterns name for a split, each with what its wildcards stand for ('fog' of `rgb_anon/*/{split}`)."""
    names = {split, *SYNONYMS.get(part_of(split), ())}
    found: dict[Path, str] = {}
    for pattern in patterns:
        for name in sorted(names) if "{split}" in pattern else [""]:
            for folder in sorted(root.glob(pattern.format(split=name))):
                if folder.is_dir():
                    stars = zip(pattern.split("/"), folder.relative_to(root).parts, strict=True)
                    found.setdefault(folder, "/".join(part for given, part in stars if given == "*"))
        if found:
            break  # the patterns are alternatives
    return list(found.items())


def splits_of(root: Path, layout: Layout) -> list[str]:
    """Names that {split} may take below `root`."""
    found = set()
    for pattern in layout.images:
        if "{split}" in pattern:
            before, _, behind = pattern.partition("{split}")
            for path in root.glob(f"{before}*{behind}"):
                found.add(path.relative_to(root).parts[len(Path(before).parts)])
    if layout.lists:
        found |= {path.stem for path in root.glob(layout.lists.format(split="*"))}
    return sorted(found)


def all_pictures(root: Path, layout: Layout) -> list[Path]:
    """The pictures of every part."""
    folders = {path for pattern in layout.images for path in root.glob(pattern.format(split="*")) if path.is_dir()}
    files = {path for folder in folders for path in find_files(folder, picture_suffixes()) if path.stem.endswith(layout.image_ending)}
    return sorted(files)


def listed_names(root: Path, layout: Layout, split: str) -> list[str] | None:
    """The names of a part, where the layout keeps them in a text file; None where there is none."""
    names = [split, *SYNONYMS.get(part_of(split), ())]
    files = [root / layout.lists.format(split=name) for name in names] if layout.lists else []
    file = next((file for file in files if file.is_file()), None)
    return None if file is None else [line.split()[0] for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]


def mirrored_folders(base: Path) -> tuple[Path, Path] | None:
    """(pictures, masks) where exactly two of the subfolders hold the same names, one of them pictures and the other masks.

    What the files hold decides; names of depth maps and the like are left out of it.  None where that is not so.
    """
    suffixes = picture_suffixes()
    subfolders = sorted(path for path in base.iterdir() if path.is_dir() and not path.name.startswith(".")) if base.is_dir() else []
    pictures: list[tuple[Path, list[str]]] = []
    masks: list[tuple[Path, list[str]]] = []
    for folder in subfolders[:FOLDERS]:
        files = find_files(folder, suffixes)
        if files and folder.name.casefold() not in DEPTH:
            kind = masks if _look_like_masks(files) else pictures
            kind.append((folder, [relative_name(path, folder) for path in files]))
    if len(pictures) != 1 or len(masks) != 1:
        return None
    (picture_folder, ours), (mask_folder, theirs) = pictures[0], masks[0]
    same = set(theirs) <= set(ours) or common_endings(ours, theirs) is not None
    return (picture_folder, mask_folder) if same else None


def pictures_below(folder: Path, excluded: str = "") -> tuple[list[Path], str]:
    """The pictures to predict below any folder, and in words where they were taken from; masks that lie there are left out.

    excluded: the start of real paths that are none of them, such as earlier predictions.
    DataError when it holds what cannot be told from pictures for certain.
    """
    suffixes = picture_suffixes()
    layout = recognise(folder)
    if layout is not None:
        return all_pictures(folder, layout), f"{folder}: {layout.title}, its pictures are taken and its masks left alone"
    for pictures, beside, title in PAIRED:
        if (folder / pictures).is_dir() and (folder / beside).is_dir():
            words = f"{folder}: laid out as {title}, {pictures}/ is taken and {beside}/ left alone"
            files = find_files(folder / pictures, suffixes)
            refuse_masks(folder / pictures, files)
            return files, words
    mirrored = mirrored_folders(folder)
    if mirrored is not None:
        words = f"{mirrored[0]}: is taken for the pictures, and {mirrored[1].name}/ left alone as their masks"
        return find_files(mirrored[0], suffixes), words
    files = [path for path in find_files(folder, suffixes) if not excluded or not os.path.realpath(path).startswith(excluded)]
    refuse_masks(folder, files)
    return files, ""


def refuse_masks(base: Path, files: Sequence[Path], is_named: bool = False) -> None:
    """DataError when some of the files below `base`, which are to be read as pictures, are masks, depth maps or painted labels.

    is_named: whether the folder says that it holds pictures (`images/`); drawn pictures, which are flat as masks are, may then fill it.
    """
    groups: dict[Path, list[Path]] = {}
    for path in files:
        groups.setdefault(path.parent, []).append(path)
    suspects: list[Path] = []
    signs: list[str] = []
    for number, (folder, inside) in enumerate(groups.items()):
        named = next((part for part in folder.relative_to(base).parts if part.casefold() in NOT_PICTURES), None)
        if named is not None:
            suspects += inside
            signs.append(f"a folder named {named}/")
        for ending, family in _families(inside) if named is None and number < FOLDERS else ():
            if _look_like_masks(family):
                suspects += family
                signs.append(f"flat areas of few values, such as {family[0].name}" + (f", named *{ending}" if ending else ""))
    if not suspects or (is_named and len(suspects) == len(files)):
        return
    others = {path.parent for path in files} - {path.parent for path in suspects}
    remedy = f"name the folder of the pictures alone, e.g. {os.path.commonpath(others)}" if others else "name the folder of the pictures"
    found = f"{len(suspects)} of {len(files)} picture files look like masks or depth maps"
    raise DataError(
        f"{base}: {found} ({suspects[0].parent} has {signs[0]}); {remedy}, or put a dataset.yaml there that says images:, masks: "
        "or suffixes: (docs/your-data.md)"
    )


def _families(files: Sequence[Path]) -> list[tuple[str, list[Path]]]:
    """Files of one folder by what their stems end with (`_mask`, `_labelIds`, nothing): masks may lie among the pictures."""
    families: dict[tuple[str, str], list[Path]] = {}
    for path in files:
        start, _, end = path.stem.rpartition("_")
        ending = f"_{end}" if start and not end.isdecimal() else ""
        families.setdefault((ending, path.suffix.lower()), []).append(path)
    return sorted(((ending, inside) for (ending, _), inside in families.items()), key=lambda pair: -len(pair[1]))[:FAMILIES]


def _look_like_masks(files: Sequence[Path]) -> bool:
    """Whether every file of a sample is flat, with few values, and one of them has at least two.  The first picture ends the look."""
    most = 0
    for path in files[:: max(1, len(files) // SAMPLES)][:SAMPLES]:
        num_values = _flatness(path)
        if num_values is None:
            return False
        most = max(most, num_values)
    return most > 1


def _flatness(path: Path) -> int | None:
    """Number of values of a file that may be a mask; None for one that cannot be."""
    if path.suffix.lower() not in {".png", ".tif", ".tiff", ".bmp"}:
        return None
    values = _stored(path)
    if values is None or values.size < LEAST_PIXELS:
        return None
    found = np.unique(values)
    if len(found) > MOST_VALUES:
        return None
    across = values[:, 1:] == values[:, :-1]
    return len(found) if across.size and float(across.mean()) >= FLAT else None


def _stored(path: Path) -> np.ndarray | None:
    """(H, W) numbers as stored, one a colour; None where the file cannot be read, which is said when it is."""
    try:
        with opened_header(path) as image:
            if image.mode in {"1", "P", "L"}:
                return np.asarray(image)
            if image.mode.startswith("I"):
                return np.asarray(image)
            rgb = np.asarray(image.convert("RGB")).astype(np.uint32)
    except (DataError, OSError, ValueError, SyntaxError, MemoryError, Image.DecompressionBombError):
        return None
    colors: np.ndarray = (rgb[..., 0] << 16) | (rgb[..., 1] << 8) | rgb[..., 2]
    return colors


def _holds(folder: Path, sign: Callable[[Path], bool]) -> bool:
    """Whether the first picture below a folder shows the sign."""
    if not folder.is_dir():
        return False
    first = next((path for path in sorted(folder.rglob("*")) if path.suffix.lower() in picture_suffixes()), None)
    return first is not None and sign(first)


def _is_tag_mask(path: Path) -> bool:
    """CARLA's raw camera writes the tag in red and leaves green and blue at 0; its converter paints Cityscapes' colours."""
    if path.suffix.lower() != ".png":
        return False
    try:
        with opened_header(path) as image:
            if image.mode not in {"RGB", "RGBA"}:
                return False
            rgb = np.asarray(image.convert("RGB"))
    except (DataError, OSError, ValueError, SyntaxError, MemoryError, Image.DecompressionBombError):
        return False
    if int(rgb[..., 1:].max()) == 0 and int(rgb[..., 0].max()) <= 28:
        return True
    return (_flatness(path) or 0) > 1
