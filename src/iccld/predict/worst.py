"""Where to look first: choose the pictures whose labels would teach most, and write them as an import with predictions in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from iccld.data.images import FULL_RANGE, read_image
from iccld.errors import DataError
from iccld.evaluation.evaluate import device_of, evaluation_mode
from iccld.evaluation.unlabelled.choosing import Look, look_of, spread_choice, values
from iccld.files import write_json
from iccld.predict.line import PredictReport
from iccld.predict.names import find_pictures
from iccld.predict.run import Wanted, predict_paths
from iccld.predictor import Predictor
from iccld.progress import progress, say

IMPORTS = ("cvat", "labelstudio")
"""Programs for whom an import is written."""
LIST = "worst.json"


@dataclass(frozen=True)
class Chosen:
    """A picture to label.  value: 0..1, how much its label is thought to teach.  doubt: 0..1.  rarest: its rarest classes, by name."""

    path: Path
    value: float
    doubt: float
    rarest: tuple[str, ...]


def choose(
    predictors: Sequence[Predictor], paths: Sequence[Path | str], num: int, out: Path, wide: tuple[int, int] = FULL_RANGE
) -> tuple[list[Chosen], list[tuple[Path, str]]]:
    """The `num` pictures of files and folders to label first, in that order, and those that could not be read, with reasons.

    predictors: the one that is to be taught, then others that it may disagree with; its mirrored view is asked as well.
    DataError when there is no picture that can be read.
    """
    found, refused = find_pictures(paths, out)
    looks: list[Look] = []
    kept: list[Path] = []
    main = predictors[0]
    with evaluation_mode(main), torch.inference_mode(), progress("Looking", total=len(found)) as bar:
        for other in predictors[1:]:
            other.eval()
        for path, _ in found:
            try:
                looks.append(_look(predictors, read_image(path, wide)))
                kept.append(path)
            except (DataError, OSError, MemoryError) as error:
                refused.append((path, " ".join(str(error).split())))
            bar.advance(1)
    if not kept:
        reason = f": {refused[0][1]}" if refused else ""
        raise DataError(f"{paths[0] if paths else 'no path'}: no picture to choose from{reason}")
    shares = torch.stack([look.shares for look in looks])
    value = values(torch.tensor([look.doubt for look in looks], dtype=torch.float64), shares)
    order = spread_choice(value, torch.stack([look.features for look in looks]), num)
    names, common = main.label_space.names, shares.mean(0)
    return [Chosen(kept[i], float(value[i]), looks[i].doubt, _rarest(shares[i], common, names)) for i in order], refused


def write_choice(
    chosen: Sequence[Chosen],
    predictor: Predictor,
    out: Path,
    *,
    model: str = "",
    origin: Mapping[str, Any] | None = None,
    wide: tuple[int, int] = FULL_RANGE,
) -> PredictReport:
    """Predict the chosen pictures into `out`, with imports for CVAT and Label Studio and the list `worst.json`."""
    wanted = Wanted(("train_ids", "color", "overlay"), None, origin or {}, wide)
    paths = [each.path for each in chosen]
    for program in IMPORTS:  # the second one finds the masks done
        report = predict_paths(predictor, paths, out, model=model, wanted=replace(wanted, format=program))
    listed = [
        {"picture": str(each.path), "value": round(each.value, 4), "doubt": round(each.doubt, 4), "rarest_classes": list(each.rarest)}
        for each in chosen
    ]
    write_json(out / LIST, listed)
    say(f"{len(chosen)} pictures to label: {out / LIST}; CVAT imports annotations.xml, Label Studio tasks.json with label_config.xml")
    return report


def _look(predictors: Sequence[Predictor], image: np.ndarray[Any, Any]) -> Look:
    batch = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None].to(device_of(predictors[0]))  # (1, 3, H, W)
    said = [predictor.network_logits(batch).float().softmax(1) for predictor in predictors]
    said.insert(1, predictors[0].network_logits(batch.flip(3)).float().flip(3).softmax(1))
    return look_of([each.cpu() for each in said], batch.float().cpu() / 255)


def _rarest(shares: torch.Tensor, common: torch.Tensor, names: Sequence[str]) -> tuple[str, ...]:
    """The three classes of a picture, of a thousandth of it or more, that are rarest in all pictures."""
    present = [i for i in range(len(names)) if float(shares[i]) >= 1e-3]
    return tuple(names[i] for i in sorted(present, key=lambda i: float(common[i]))[:3])
