"""Settings of a domain -> its pictures, from folders or drawn.  Torch-free, so that what cannot be used is refused at once."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np

from iccld.config import DomainConfig, parse_size
from iccld.config.domains import SourceConfig
from iccld.data import FileDataset, open_dataset
from iccld.data.check import cache_folder
from iccld.data.joined import JoinedDataset, join
from iccld.errors import DataError
from iccld.labels import LabelSpace


def domain_path(domain: DomainConfig) -> Path | None:
    """The folder to read; generated scenes are drawn into the cache first, once."""
    if domain.path is not None:
        return Path(domain.path)
    scenes = domain.generate
    if scenes.num == 0:
        return None
    from iccld.city import VERSION, generate

    settings = {**dataclasses.asdict(scenes), "split": domain.split, "version": VERSION}
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]
    out = cache_folder() / "scenes" / f"{scenes.world}-{scenes.layout}-{scenes.num}-{digest}"
    out.parent.mkdir(parents=True, exist_ok=True)
    return generate(scenes.world, scenes.layout, scenes.num, parse_size(scenes.size), scenes.seed, out, split=domain.split)


def open_domain(domain: DomainConfig, space: LabelSpace, labels: bool, usual_split: str) -> FileDataset | None:
    """The pictures of all the domain's paths, or the scenes that it draws; None where there is nothing.

    A split other than the usual one was asked for, and has to be there.
    """
    opened = []
    for part in domain.parts:
        path = domain_path(part)
        if path is None:
            return None
        form = part.format if part.path is not None else part.generate.layout
        is_asked = part.path is not None and part.split != usual_split
        opened.append(open_dataset(path, form, part.split, space, part.classes, labels=labels, is_asked=is_asked))
    return join(opened, domain.weights)


def open_extra(source: SourceConfig, space: LabelSpace) -> FileDataset | None:
    """The labelled pictures that are drawn with the source's; None where there are none.  DataError for pictures without masks."""
    extra = source.extra
    if extra.path is None:
        return None
    found = open_dataset(Path(extra.path), extra.format, extra.split, space, extra.classes, is_asked=extra.split != "train")
    if not found.has_labels:
        raise DataError(f"{extra.path}: source.extra needs a mask for each picture; expected them in {found.label_folder}")
    return found


def held_out(source: FileDataset, holdout: int) -> set[int]:
    """Positions of the last `holdout` pictures; of several data sets, the last ones of each, as many as its share."""
    if not isinstance(source, JoinedDataset):
        return set(range(len(source) - holdout, len(source)))
    ends = np.cumsum([source.part_numbers.count(part) for part in range(len(source.parts))])
    shares = np.round(holdout * ends / len(source)).astype(int)  # cumulated, so that they add up
    counts = np.diff(shares, prepend=0)
    return {int(end) - 1 - k for end, count in zip(ends, counts, strict=True) for k in range(int(count))}
