"""What a shared folder holds, and how one is told from a run.  Without PyTorch."""

from __future__ import annotations

import re
from pathlib import Path

from iccld.config.network import EFFICIENTNETS
from iccld.files import read_json

CONFIG, WEIGHTS, PREPROCESSING, CARD = "config.json", "model.safetensors", "preprocessor_config.json", "README.md"
ARCHITECTURE = "encoder/config.json"
"""The configuration of a transformers backbone, where the encoder is one."""
FILES = (WEIGHTS, PREPROCESSING, CARD, ARCHITECTURE, CONFIG)
"""In the order in which they are put in place: config.json holds the digest of the weights, and comes last."""

OWN = "iccld"
"""Key of config.json under which everything lies that is not transformers' own."""
FORMAT = 1
LARGEST_CONFIG = 2**20
"""Bytes of a config.json that is read: one of 254 classes has less than a tenth."""


def is_shared(folder: Path) -> bool:
    """Whether a folder is one that `iccld share` wrote, by its config.json."""
    file = folder / CONFIG
    return file.is_file() and file.stat().st_size <= LARGEST_CONFIG and OWN in read_json(file)


def public_name(name: str) -> str:
    """A network's name as others know it: owner/model stays, of a folder of this machine the last part is left."""
    is_public = name in EFFICIENTNETS or (re.fullmatch(r"[\w.-]+/[\w.-]+(@[\w./-]+)?", name) and not Path(name).exists())
    return name if is_public or not name else Path(name).expanduser().resolve().name
