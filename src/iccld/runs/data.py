"""What a run has to know of its data before the first step: is there anything to learn, and are they those of the earlier start?"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from iccld.assembly.objects import Data
from iccld.data import FileDataset
from iccld.data.check import class_statistics
from iccld.data.joined import JoinedDataset
from iccld.data.sizes import mismatched
from iccld.data.wide import Range
from iccld.errors import CheckpointError, DataError
from iccld.labels import LabelSpace
from iccld.progress import say
from iccld.training import checkpoint

RANGES = "ranges.json"
"""The values of 16-bit pictures that become black and white, by domain, in the run directory."""


def refuse_unlearnable(data: Data) -> None:
    """DataError when the source's or the validation's masks label nothing, or one class alone; a warning for each class without a pixel."""
    names = data.label_space.names
    for role, dataset in (("source", data.source), ("validation", data.val)):
        if dataset is None or not dataset.has_labels:
            continue
        totals = class_statistics(dataset).sum(axis=0)
        present = [name for name, total in zip(names, totals, strict=True) if total]
        where = f"{dataset.root}: the {len(dataset)} {role} masks"
        if not present:
            raise DataError(f"{where} label no pixel with a class of '{data.label_space.name}'; check the ids with iccld data check")
        if role == "validation":
            continue
        if len(present) == 1:
            raise DataError(f"{where} label nothing but '{present[0]}', so every answer would be right; see iccld data check")
        for name in names:
            if name not in present:
                say(f"warning: class '{name}' occurs in no source picture, so it will not be learned; leave it out, or add pictures of it")


def with_equal_sizes(data: Data, skips: bool) -> Data:
    """The data without the pairs whose sizes differ, told from their headers; DataError naming the first, unless `skips`.

    With `skips`, validation pictures that cannot be read are left out as well: there are few of them, and they score every stage.
    """

    def kept(role: str, dataset: FileDataset | None) -> FileDataset | None:
        if dataset is None or not dataset.has_labels:
            return dataset
        bad = mismatched(dataset)
        if role == "val" and skips:
            bad |= {index: line for index in range(len(dataset)) if (line := fault(dataset, index))}
        if not bad:
            return dataset
        first = next(iter(bad.values()))
        if not skips:
            raise DataError(f"{first} ({len(bad)} of {len(dataset)} {role} pairs); mend or remove them, or set --runtime.data_errors skip")
        if len(bad) == len(dataset):
            raise DataError(f"{first}; no {role} picture is left")
        say(f"warning: {len(bad)} of {len(dataset)} {role} pictures are left out, such as: {first}")
        return dataset.subset([index for index in range(len(dataset)) if index not in bad])

    source = kept("source", data.source)
    assert source is not None
    return replace(data, source=source, source_val=kept("source", data.source_val), val=kept("val", data.val))


def fault(dataset: FileDataset, index: int) -> str | None:
    """Why a picture or its mask cannot be used; None where it can."""
    try:
        dataset[index]
    except DataError as error:
        return str(error)
    return None


def data_digest(data: Data) -> dict[str, Any]:
    """What a checkpoint has to agree with: number and names of the pictures, the resolved ids and the range of 16-bit values, by domain."""
    return {
        "source": {**_pictures(data.source), "ids": _all_ids(data.source, data.label_space)},
        "target": _pictures(data.target),
    }


def _pictures(dataset: FileDataset) -> dict[str, Any]:
    names = hashlib.sha256("\n".join(dataset.names).encode()).hexdigest()[:16]
    return {"pictures": len(dataset), "names": names, "range": list(dataset.wide)}


def _all_ids(dataset: FileDataset, space: LabelSpace) -> dict[str, str]:
    """Class -> its raw ids; of several data sets, one after the other."""
    parts = [_ids(part, space) for part in dataset.parts] if isinstance(dataset, JoinedDataset) else [_ids(dataset, space)]
    return {name: " | ".join(part[name] for part in parts) for name in space.names}


def _ids(dataset: FileDataset, space: LabelSpace) -> dict[str, str]:
    """Class -> its raw ids as runs, such as '7' or '26-28'."""
    lookup = dataset.raw_ids.lookup
    runs = {}
    for train_id, name in enumerate(space.names):
        ids = np.flatnonzero(lookup == train_id)
        parts = np.split(ids, np.flatnonzero(np.diff(ids) > 1) + 1) if len(ids) else []
        runs[name] = ", ".join(str(part[0]) if len(part) == 1 else f"{part[0]}-{part[-1]}" for part in parts)
    return runs


def refuse_other_data(run: Path, digest: Mapping[str, Any], num_stages: int) -> None:
    """CheckpointError when the newest checkpoint of the run was trained with other data than these; nothing for one that did not note them.

    num_stages: of the method, by which a finished run is told: it has nothing left to learn from new pictures, which is said too.
    """
    if not any((run / "checkpoints").glob("*/*/manifest.json")):
        return
    newest = checkpoint.find(run)
    stored = json.loads((newest / checkpoint.MANIFEST).read_bytes())["fingerprint"].get("data")
    if stored is None or stored == json.loads(json.dumps(digest)):
        return
    changes = "; ".join(_changes(stored, digest))
    summary = run / "summary.json"
    told = json.loads(summary.read_text(encoding="utf-8")).get("stages", {}) if summary.is_file() else {}
    if len(told) >= num_stages:
        raise CheckpointError(
            f"{run}: is finished and was trained with other data ({changes}); these were not used. To go on from its weights, start a "
            f"new run: iccld adapt --config {run / 'config.yaml'} --name NEW --source_checkpoint {run}"
        )
    raise CheckpointError(
        f"{run}: its data have changed since it was interrupted ({changes}); put them back to resume it, or start anew with another --name"
    )


def _changes(stored: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """In words, what differs: counts first, since other names follow from them."""
    found = []
    for role in ("source", "target"):
        before, after = stored.get(role, {}), now[role]
        if before.get("pictures") != after["pictures"]:
            found.append(f"{role} had {before.get('pictures')} pictures, now {after['pictures']}")
        elif before.get("names") != after["names"]:
            found.append(f"the names of the {role} pictures differ")
        if list(before.get("range", after["range"])) != list(after["range"]):
            found.append(f"the {role} had the range {before['range']}, now {after['range']}")
        for name, ids in after.get("ids", {}).items():
            if before.get("ids", {}).get(name) != ids:
                found.append(f"class '{name}' was id {before.get('ids', {}).get(name) or 'none'}, now {ids or 'none'}")
    return found


def read_ranges(run: Path) -> dict[str, Range] | None:
    """The ranges that a run has stored; None for one that has none yet, or is older than they are."""
    path = run / RANGES
    if not path.is_file():
        return None
    return {role: (int(low), int(high)) for role, (low, high) in json.loads(path.read_text(encoding="utf-8")).items()}
