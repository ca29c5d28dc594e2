"""Files for the Cityscapes benchmark's server: one PNG of labelIds for each picture, 2048x1024, named by city, sequence and frame.

The names are those that the benchmark's own evaluator looks for (cityscapesScripts, evalPixelLevelSemanticLabeling, `getPrediction`):
`<city>_<sequence>_<frame>*.png`, one a picture, anywhere below the folder.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from iccld.data import png
from iccld.data.images import FULL_RANGE
from iccld.errors import ConfigError, DataError
from iccld.files import write_atomically
from iccld.labels import CITYSCAPES19, LabelSpace
from iccld.labels import raw_ids as default_raw_ids
from iccld.predict.index import PredictionIndex
from iccld.predict.line import PredictReport
from iccld.predict.names import Job, find_pictures
from iccld.predict.run import predict_jobs
from iccld.predict.writer import describe
from iccld.predictor import Predictor

UInt8Array = npt.NDArray[np.uint8]
NUM_TEST = 1525
"""Pictures of Cityscapes' test split, for which the server has the truth."""
SIZE = (1024, 2048)
"""(H, W) of every picture of Cityscapes."""
ENDING = "_pred_labelIds.png"
FRAME = re.compile(r"([^_]+_\d{6}_\d{6})(_leftImg8bit)?")


class SubmissionWriter:
    """Writes one prediction as 8-bit grey labelIds."""

    def __init__(self, out: Path, label_space: LabelSpace) -> None:
        self.out = out
        self.label_space = label_space
        self.table = default_raw_ids(label_space)  # (256,)

    kinds: tuple[str, ...] = ("label_ids",)

    def files(self, name: str) -> dict[str, str]:
        """The one file of a frame, in `out` itself."""
        return {"label_ids": f"{name}{ENDING}"}

    def write(
        self,
        job: Job,
        image: UInt8Array,
        labels: UInt8Array,
        certainty: UInt8Array | None = None,
        logits: npt.NDArray[np.float16] | None = None,
    ) -> dict[str, Any]:
        """(H, W, 3), (H, W), (H, W) uint8 -> the picture's entry in the index.  Raises OSError when the file cannot be written."""
        if labels.shape != SIZE:  # a picture that its EXIF turns
            raise ValueError(f"is {labels.shape[1]}x{labels.shape[0]} once upright; a submission's pictures are {SIZE[1]}x{SIZE[0]}")
        files = self.files(job.name)
        write_atomically(self.out / files["label_ids"], png.encode(self.table[labels]), durable="later")  # with the index, many at once
        return describe(job, self.label_space, labels, certainty, files)


def predict_submission(
    predictor: Predictor,
    paths: Sequence[Path | str],
    out: Path | str,
    *,
    num: int = NUM_TEST,
    batch: int = 1,
    model: str = "",
    origin: Mapping[str, Any] | None = None,
    wide: tuple[int, int] = FULL_RANGE,
) -> PredictReport:
    """Predict `num` pictures of Cityscapes into `out`, resumable as `predict_paths` is, whose arguments these are.

    Everything is checked before the first prediction: DataError for another number of pictures, other names or sizes than Cityscapes', and
    for other PNG files below `out`, which the server would count too.  ConfigError for classes that are none of Cityscapes'.
    """
    space = predictor.label_space
    foreign = [name for name in space.names if name not in CITYSCAPES19.names]
    if foreign:
        raise ConfigError(f"label space {space.name} has '{foreign[0]}', which is no class of Cityscapes: it has no labelId to submit")
    out = Path(out)
    jobs = submission_jobs(paths, out, num)
    writer = SubmissionWriter(out, space)
    index = PredictionIndex(out, {"model": model, "submission": ENDING, "label_space": list(space.names)}, None, origin)
    return predict_jobs(predictor, writer, index, jobs, batch=batch, wide=wide)


def submission_jobs(paths: Sequence[Path | str], out: Path, num: int) -> list[Job]:
    """The pictures and their frames' names; DataError unless they are `num` different frames of Cityscapes, and `out` holds no others."""
    found, refused = find_pictures(paths, out)
    if refused:
        raise DataError(f"{refused[0][0]}: {refused[0][1]}")
    if len(found) != num:
        where = ", ".join(map(str, paths)) or "no folder"
        raise DataError(f"{where}: found {len(found)} pictures for a submission of {num}; name leftImg8bit/test, or set --expect")
    jobs: dict[str, Job] = {}
    for path, _ in found:
        frame = FRAME.fullmatch(path.stem)
        if frame is None:
            raise DataError(f"{path}: a submission's pictures are named <city>_<sequence>_<frame>_leftImg8bit.png, as Cityscapes' are")
        if frame[1] in jobs:
            raise DataError(f"{path}: frame {frame[1]} is also {jobs[frame[1]].path}; a submission has one prediction of each")
        _refuse_other_size(path)
        jobs[frame[1]] = Job(path, frame[1])
    strays = sorted(path for path in out.rglob("*.png") if path.parent != out or path.name.removesuffix(ENDING) not in jobs)
    if strays:
        raise DataError(f"{strays[0]}: belongs to no picture of this submission ({len(strays)} such files); choose an empty --out")
    return list(jobs.values())


def _refuse_other_size(path: Path) -> None:
    """The header alone, so that 1,525 pictures take seconds."""
    if not path.is_file():
        raise DataError(f"{path}: is no picture file")
    try:
        with Image.open(path) as image:
            width, height = image.size
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: cannot be read as a picture: {' '.join(str(error).split())}") from error
    if (height, width) != SIZE:
        raise DataError(f"{path}: is {width}x{height}; a submission's pictures are {SIZE[1]}x{SIZE[0]}, as Cityscapes ships them")
