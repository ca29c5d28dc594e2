"""Predictions as other programs import them: COCO, CVAT, Label Studio, Cityscapes, Pascal VOC.  Made from the masks of train ids.

Formats: COCO's data format page (uncompressed RLE, column by column); CVAT's documentation, "XML annotation format" 1.1 and "Run-length
encoding" (mask: counts row by row inside the box, the first of background); Label Studio's brush labels (the RLE of thi.ng/umbrella's
rle-pack over RGBA); the Pascal VOC and Cityscapes folders with a labelmap.txt, as CVAT and datumaro import them.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt
from PIL import Image

from iccld.data.images import read_palette_indices
from iccld.files import write_atomically, write_json
from iccld.labels import IGNORE, LabelSpace, raw_ids

FORMATS = ("coco", "cvat", "labelstudio", "cityscapes", "voc")
UInt8Array = npt.NDArray[np.uint8]
Bits = npt.NDArray[np.bool_]


class Predicted(NamedTuple):
    """A finished picture."""

    source: Path
    name: str
    mask: Path
    """Of train ids."""


def export(format: str, out: Path, entries: Mapping[str, Mapping[str, Any]], space: LabelSpace) -> Path:
    """Write the pictures of an index (`PredictionIndex.own`) in one of FORMATS below `out`; returns the file or folder to import."""
    pictures = [Predicted(Path(source), entry["name"], out / entry["outputs"]["train_ids"]) for source, entry in sorted(entries.items())]
    writers = {"coco": _coco, "cvat": _cvat, "labelstudio": _label_studio, "cityscapes": _cityscapes, "voc": _voc}
    return writers[format](out, pictures, space)


def runs(bits: Bits) -> list[int]:
    """Lengths of the runs of a flat mask, the first of background (0 where it begins with foreground)."""
    edges = np.flatnonzero(bits[1:] != bits[:-1]) + 1
    lengths = np.diff(np.concatenate([[0], edges, [bits.size]])).tolist()
    return ([0] if bits.size and bits[0] else []) + [int(length) for length in lengths]


def _classes(labels: UInt8Array, space: LabelSpace) -> Iterator[tuple[int, str, Bits]]:
    for train_id in np.unique(labels).tolist():
        if train_id < space.num_classes:
            yield train_id, space.names[train_id], labels == train_id


def _box(bits: Bits) -> tuple[int, int, int, int]:
    """(left, top, width, height) of a mask that is not empty."""
    rows, columns = np.flatnonzero(bits.any(axis=1)), np.flatnonzero(bits.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1] - columns[0] + 1), int(rows[-1] - rows[0] + 1)


def _file_name(picture: Predicted) -> str:
    return f"{picture.name}{picture.source.suffix}"


def _coco(out: Path, pictures: list[Predicted], space: LabelSpace) -> Path:
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, picture in enumerate(pictures, 1):
        labels = read_palette_indices(picture.mask)
        height, width = labels.shape
        images.append({"id": number, "file_name": _file_name(picture), "height": height, "width": width})
        for train_id, _, bits in _classes(labels, space):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": train_id + 1,
                    "segmentation": {"size": [height, width], "counts": runs(bits.ravel(order="F"))},
                    "area": int(bits.sum()),
                    "bbox": list(_box(bits)),
                    "iscrowd": 1,
                }
            )
    categories = [{"id": train_id + 1, "name": name, "supercategory": ""} for train_id, name in enumerate(space.names)]
    path = out / "annotations" / "instances_default.json"
    write_json(path, {"images": images, "categories": categories, "annotations": annotations}, indent=None)
    return path


def _cvat(out: Path, pictures: list[Predicted], space: LabelSpace) -> Path:
    root = ElementTree.Element("annotations")
    ElementTree.SubElement(root, "version").text = "1.1"
    labels_element = ElementTree.SubElement(ElementTree.SubElement(ElementTree.SubElement(root, "meta"), "task"), "labels")
    for each in space.classes:
        label = ElementTree.SubElement(labels_element, "label")
        for key, value in (("name", each.name), ("color", _hex(each.color)), ("type", "mask")):
            ElementTree.SubElement(label, key).text = value
        ElementTree.SubElement(label, "attributes")
    for number, picture in enumerate(pictures):
        labels = read_palette_indices(picture.mask)
        size = {"width": str(labels.shape[1]), "height": str(labels.shape[0])}
        image = ElementTree.SubElement(root, "image", {"id": str(number), "name": _file_name(picture), **size})
        for _, name, bits in _classes(labels, space):
            left, top, width, height = _box(bits)
            inside = bits[top : top + height, left : left + width].ravel()
            place = {"left": str(left), "top": str(top), "width": str(width), "height": str(height), "z_order": "0"}
            counts = ", ".join(map(str, runs(inside)))
            ElementTree.SubElement(image, "mask", {"label": name, "source": "auto", "occluded": "0", "rle": counts, **place})
    path = out / "annotations.xml"
    write_atomically(path, '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n")
    return path


def _label_studio(out: Path, pictures: list[Predicted], space: LabelSpace) -> Path:
    tasks = []
    for picture in pictures:
        labels = read_palette_indices(picture.mask)
        height, width = labels.shape
        result = [
            {
                "id": f"{train_id}",
                "type": "brushlabels",
                "from_name": "tag",
                "to_name": "image",
                "original_width": width,
                "original_height": height,
                "image_rotation": 0,
                "value": {"format": "rle", "rle": list(_packed_runs(bits)), "brushlabels": [name]},
            }
            for train_id, name, bits in _classes(labels, space)
        ]
        tasks.append({"data": {"image": _file_name(picture)}, "predictions": [{"model_version": "iccld", "result": result}]})
    path = out / "tasks.json"
    write_json(path, tasks, indent=None)
    labels_xml = "".join(f'<Label value="{each.name}" background="{_hex(each.color)}"/>' for each in space.classes)
    view = f'<View><Image name="image" value="$image"/><BrushLabels name="tag" toName="image">{labels_xml}</BrushLabels></View>\n'
    write_atomically(out / "label_config.xml", view)
    return path


RUN_BITS = (4, 8, 12, 16)
"""Sizes of a run's length that the header declares; the shortest that fits is named before each run."""
CHANNELS = 4


def _packed_runs(bits: Bits) -> bytes:
    """A mask as RGBA of 0 and 255, in rle-pack's bits: number of values (32), their size less 1 (5), four sizes of lengths less 1 (4 each);
    then for each run a 1, the index of its size (2), its length less 1, and its value.  Zeros fill the last byte."""
    words = [(bits.size * CHANNELS, 32), (7, 5), *((size - 1, 4) for size in RUN_BITS)]
    value = 0
    for length in runs(bits.ravel()):
        remaining = length * CHANNELS
        while remaining:
            part = min(remaining, 1 << RUN_BITS[-1])
            index = next(i for i, size in enumerate(RUN_BITS) if part <= 1 << size)
            words += [(1, 1), (index, 2), (part - 1, RUN_BITS[index]), (value, 8)]
            remaining -= part
        value = 255 - value
    text = "".join(format(number, f"0{size}b") for number, size in words)
    text += "0" * (-len(text) % 8)
    return int(text, 2).to_bytes(len(text) // 8, "big")


def _cityscapes(out: Path, pictures: list[Predicted], space: LabelSpace) -> Path:
    table, folder = raw_ids(space), out / "gtFine" / "default"
    for picture in pictures:
        labels = read_palette_indices(picture.mask)
        for kind, values in (("labelIds", table[labels]), ("color", _painted(labels, space))):
            _save(values, folder / f"{picture.name}_gtFine_{kind}.png")
    colors = "".join(f"{red} {green} {blue} {each.name}\n" for each in space.classes for red, green, blue in [each.color])
    write_atomically(out / "label_colors.txt", colors)
    return out / "gtFine"


def _voc(out: Path, pictures: list[Predicted], space: LabelSpace) -> Path:
    for picture in pictures:
        labels = read_palette_indices(picture.mask)
        _save(_painted(labels, space), out / "SegmentationClass" / f"{picture.name}.png")
        copy = out / "JPEGImages" / _file_name(picture)
        copy.parent.mkdir(parents=True, exist_ok=True)
        if picture.source.is_file() and not copy.exists():
            shutil.copyfile(picture.source, copy)
    names = "".join(f"{picture.name}\n" for picture in pictures)
    write_atomically(out / "ImageSets" / "Segmentation" / "default.txt", names)
    lines = ["# label:color_rgb:parts:actions", "background:0,0,0::"]
    lines += [f"{each.name}:{','.join(map(str, each.color))}::" for each in space.classes]
    write_atomically(out / "labelmap.txt", "\n".join(lines) + "\n")
    return out / "SegmentationClass"


def _painted(labels: UInt8Array, space: LabelSpace) -> UInt8Array:
    palette = np.zeros((256, 3), dtype=np.uint8)
    palette[: space.num_classes] = space.palette
    palette[IGNORE] = 0
    return palette[labels]


def _save(values: UInt8Array, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path, compress_level=4)


def _hex(color: tuple[int, int, int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*color)
