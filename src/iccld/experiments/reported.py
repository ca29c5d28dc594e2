"""What papers report, quoted from their tables: context beside what was measured here, never compared with it by arithmetic.

Rows of ICCLD's Tables 1 and 2; the tables, not the running text, whose figures differ in places (69.3 for 67.2, 58.3 for 58.5).
"""

from __future__ import annotations

from iccld.labels import CITYSCAPES16, CITYSCAPES19

TABLE1: dict[tuple[str, str], tuple[float, float]] = {
    ("without", "step1"): (58.3, 42.7),
    ("without", "step2"): (69.3, 58.5),
    ("with", "step1"): (68.4, 60.7),
    ("with", "step2"): (74.4, 67.2),
}
"""(connection, last step) -> mIoU of GTA5 → Cityscapes (19 classes) and SYNTHIA → Cityscapes (16)."""

MIOU: dict[str, tuple[float, float]] = {
    "adaptsegnet": (41.4, 37.2),
    "cbst": (45.9, 42.6),
    "dacs": (52.1, 48.3),
    "corda": (56.6, 55.0),
    "bapa": (57.4, 53.3),
    "proda": (57.5, 55.5),
    "daformer": (68.3, 60.9),
    "hrda": (73.8, 65.8),
    "cluda": (74.4, 67.2),
    "mic": (75.9, 67.3),
    "iccld_paper": (74.4, 67.2),
}
"""Method -> mIoU of GTA5 → Cityscapes and SYNTHIA → Cityscapes.  Table 2, but `cluda` and `mic`, which their own papers report."""

NOTE = (
    "Reported figures are quoted from the papers (ICCLD, Tables 1 and 2; CLUDA and MIC from their own): GTA5 → Cityscapes over 19 classes, "
    "SYNTHIA → Cityscapes over 16, other networks, data and budgets. They are context, not rivals. "
    "AdaptSegNet's SYNTHIA row holds 13 classes, and its 37.2 is no mean of them."
)

_GTA5 = {
    "adaptsegnet": "86.5 25.9 79.8 22.1 20.0 23.6 33.1 21.8 81.8 25.9 75.9 57.3 26.2 76.3 29.8 32.1 7.2 29.5 32.5",
    "cbst": "91.8 53.5 80.5 32.7 21.0 34.0 28.9 20.4 83.9 34.2 80.9 53.1 24.0 82.7 30.3 35.9 16.0 25.9 42.8",
    "dacs": "89.9 39.7 87.9 30.7 39.5 38.5 46.4 52.8 88.0 44.0 88.8 67.2 35.8 84.5 45.7 50.2 0.0 27.3 34.0",
    "corda": "94.7 63.1 87.6 30.7 40.6 40.2 47.8 51.6 87.6 47.0 89.7 66.7 35.9 90.2 48.9 57.5 0.0 39.8 56.0",
    "bapa": "94.4 61.0 88.0 26.8 39.9 38.3 46.1 55.3 87.8 46.1 89.4 68.8 40.0 90.2 60.4 59.0 0.0 45.1 54.2",
    "proda": "87.8 56.0 79.7 46.3 44.8 45.6 53.5 53.5 88.6 45.2 82.1 70.7 39.2 88.8 45.5 59.4 1.0 48.9 56.4",
    "daformer": "95.7 70.2 89.4 53.5 48.1 49.6 55.8 59.4 89.9 47.9 92.5 72.2 44.7 92.3 74.5 78.2 65.1 55.9 61.8",
    "hrda": "96.4 74.4 91.0 61.6 51.5 57.1 63.9 69.3 91.3 48.4 94.2 79.0 52.9 93.9 84.1 85.7 75.9 63.9 67.5",
    "iccld_paper": "97.6 74.3 90.9 62.3 52.3 57.0 64.9 72.5 91.1 51.3 94.5 78.6 53.2 94.5 84.9 85.4 75.1 65.4 66.7",
}
_SYNTHIA = {
    "adaptsegnet": "79.2 37.2 78.8 - - - 9.9 10.5 78.2 80.5 53.5 19.6 67.0 29.5 21.6 31.3",
    "cbst": "68.0 29.9 76.3 10.8 1.4 33.9 22.8 29.5 77.6 78.3 60.6 28.3 81.6 23.5 18.8 39.8",
    "dacs": "80.6 25.1 81.9 21.5 2.9 37.2 22.7 24.0 83.7 90.8 67.5 38.3 82.9 38.9 28.5 47.6",
    "corda": "93.3 61.6 85.3 19.6 5.1 37.8 36.6 42.8 84.9 90.4 69.7 41.8 85.6 38.4 32.6 53.9",
    "bapa": "91.7 53.8 83.9 22.4 0.8 34.9 30.5 42.8 86.8 88.2 66.0 34.1 86.6 51.3 29.4 50.5",
    "proda": "87.8 45.7 84.6 37.1 0.6 44.0 54.6 37.0 88.1 84.4 74.2 24.3 88.2 51.1 40.5 45.6",
    "daformer": "84.5 40.7 88.4 41.5 6.5 50.0 55.0 54.6 86.0 89.8 73.2 48.2 87.2 53.2 53.9 61.7",
    "hrda": "85.2 47.7 88.8 49.5 4.8 57.2 65.7 60.9 85.3 92.9 79.4 52.8 89.0 64.7 63.9 64.9",
    "iccld_paper": "91.3 48.5 89.9 49.5 8.5 58.6 67.4 60.2 86.2 93.4 79.8 54.2 88.9 66.7 65.5 65.7",
}


def class_iou(method: str) -> dict[str, dict[str, float | None]]:
    """`GTA5` and `SYNTHIA` -> class -> IoU of Table 2; {} for a method without a row."""
    found = {}
    for name, table, space in (("GTA5", _GTA5, CITYSCAPES19), ("SYNTHIA", _SYNTHIA, CITYSCAPES16)):
        if method in table:
            values = [None if word == "-" else float(word) for word in table[method].split()]
            found[name] = dict(zip(space.names, values, strict=True))
    return found
