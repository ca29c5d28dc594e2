"""How right are CBST's labels of the demo's target: those of its first and last round beside as many of plain argmax.

    python benchmarks/class_balanced_labels.py RUN     a run of the demo recipe with a source stage, e.g. runs/demo

Labels are taken at half the size of the 60 labelled validation scenes, thresholds (Eq. 6) on the same scenes.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor

from iccld.assembly.objects import open_data
from iccld.config import load_config
from iccld.labels import IGNORE, get_label_space
from iccld.methods.cbst import balanced_label, class_thresholds, confidence_counts
from iccld.runs import load_predictor

SIZE = (96, 192)


def main() -> None:
    torch.set_num_threads(1)
    config = load_config("demo", [])
    probability, truth = predictions(Path(sys.argv[1]), config)
    known = truth != IGNORE
    confidence, plain = probability.max(1)
    names = get_label_space(config.label_space).names
    counts = confidence_counts(probability)
    print(f"argmax: {share((plain == truth)[known]):.1f} % right")
    for portion in (0.15, 0.4):
        label = balanced_label(probability, class_thresholds(counts, portion))
        kept = known & (label != IGNORE)
        surest = known & (confidence >= confidence[known].sort(descending=True).values[int(kept.sum()) - 1])
        print(f"portion {portion}: {share(kept):.1f} % kept, {share((label == truth)[kept]):.1f} % of them right", end="; ")
        print(f"as many of argmax: {share((plain == truth)[surest]):.1f} % right")
        for index, name in enumerate(names):
            print(
                f"  {name:14} {share(label[kept] == index):5.1f} % of the labels, {share(truth[kept] == index):5.1f} % of the truth there"
            )


def predictions(run: Path, config: object) -> tuple[Tensor, Tensor]:
    """Probabilities (N, K, h, w) of the source stage's average, and the truth (N, h, w), of the validation scenes."""
    predictor = load_predictor(run, "source", device="cpu")
    scenes = open_data(config).val  # type: ignore[arg-type]
    assert scenes is not None
    probability, truth = [], []
    with torch.no_grad():
        for index in range(len(scenes)):
            scene = scenes[index]
            image = torch.from_numpy(scene.image).permute(2, 0, 1)[None]
            probability.append(predictor.logits_at(image, SIZE).softmax(1))
            assert scene.label is not None
            truth.append(torch.from_numpy(scene.label)[None, ::2, ::2].long())
    return torch.cat(probability), torch.cat(truth)


def share(mask: Tensor) -> float:
    return 100 * float(mask.float().mean())


if __name__ == "__main__":
    main()
