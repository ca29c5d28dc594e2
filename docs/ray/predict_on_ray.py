"""Segment a folder of pictures on Ray: python predict_on_ray.py RUN PICTURES OUT [ACTORS]"""

import sys
from pathlib import Path

import numpy as np
import ray

import iccld


class Segmenter:
    """An actor: loads the run once, then segments batches."""

    def __init__(self, run: str, pictures: str, out: str) -> None:
        self.model = iccld.load(run)
        self.pictures, self.out = Path(pictures), Path(out)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        confidences = []
        for path in map(str, batch["path"]):
            found = self.model.segment(path)
            found.save(self.out / f"{Path(path).relative_to(self.pictures)}.png")
            confidences.append(float(found.confidence.mean()))
        return {"path": batch["path"], "confidence": np.array(confidences)}


def main(run: str, pictures: str, out: str, actors: str = "1") -> None:
    files = sorted(Path(pictures).resolve().rglob("*"))
    rows = [{"path": str(path)} for path in files if path.suffix.lower() in (".png", ".jpg", ".jpeg")]
    folders = tuple(str(Path(each).resolve()) for each in (run, pictures, out))
    done = ray.data.from_items(rows).map_batches(Segmenter, fn_constructor_args=folders, batch_size=8, concurrency=int(actors))
    confidences = [row["confidence"] for row in done.iter_rows()]
    print(f"{len(confidences)} pictures, mean confidence {np.mean(confidences):.3f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
