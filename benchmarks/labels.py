"""What do labels of chosen pictures bring?  As many chosen by `iccld worst` beside as many at random, and none, over seeds.

    python benchmarks/labels.py RUN --out FOLDER [--num 20] [--seeds 0,1,2] [--iterations 300] [--share 0.25]

RUN: a finished run whose target and validation scenes were generated (layout cityscapes), so that every target picture has a mask that
training never read.  Each seed trains step 1 anew from RUN's source stage: without labels, with `num` labelled pictures that RUN finds
worst, and with as many drawn at random by the seed.  The same folder goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import statistics
from pathlib import Path

from iccld.adapting import train
from iccld.assembly.domains import domain_path
from iccld.config import Config, load_config, read_config
from iccld.predict.worst import choose
from iccld.runs import load_with_standing
from iccld.runs.trust import other_predictors

ARMS = ("none", "random", "worst")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--num", type=int, default=20)
    parser.add_argument("--seeds", type=lambda text: [int(word) for word in text.split(",")], default=[0, 1, 2])
    parser.add_argument("--iterations", type=int, default=300)
    parser.add_argument("--share", type=float, default=0.25)
    asked = parser.parse_args()
    config = read_config(asked.run / "config.yaml")
    pool = domain_path(config.target)
    assert pool is not None
    assert config.target.generate.layout == "cityscapes", "the target has to be generated scenes in the layout cityscapes"
    pictures = sorted((pool / "leftImg8bit").rglob("*.png"))
    found: dict[str, list[float]] = {arm: [] for arm in ARMS}
    for seed in asked.seeds:
        chosen = {"none": [], "random": random.Random(seed).sample(pictures, asked.num), "worst": worst_of(asked.run, pool, asked)}
        for arm, kept in chosen.items():
            found[arm].append(score(config, arm, seed, labelled(pool, kept, asked.out / "labelled" / f"{arm}-{seed}"), asked))
    print("| labelled pictures | " + " | ".join(f"seed {seed}" for seed in asked.seeds) + " | mean | less none |")
    print("|---|" + "---:|" * (len(asked.seeds) + 2))
    base = statistics.mean(found["none"])
    for arm, scores in found.items():
        mean = statistics.mean(scores)
        print(f"| {arm} | " + " | ".join(f"{each:.2f}" for each in scores) + f" | {mean:.2f} | {mean - base:+.2f} |")


def worst_of(run: Path, pool: Path, asked: argparse.Namespace) -> list[Path]:
    """What RUN finds worst; chosen once."""
    kept = asked.out / f"worst-{asked.num}.json"
    if not kept.is_file():
        predictor, standing = load_with_standing(run)
        chosen, _ = choose([predictor, *other_predictors(run, standing)], [pool], asked.num, asked.out)
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps([str(each.path) for each in chosen]))
    return [Path(each) for each in json.loads(kept.read_text())]


def labelled(pool: Path, pictures: list[Path], folder: Path) -> Path | None:
    """A folder of the pictures with their masks, in the pool's layout; None for none."""
    for picture in pictures:
        inside = picture.relative_to(pool / "leftImg8bit")
        mask = Path("gtFine") / inside.parent / inside.name.replace("_leftImg8bit", "_gtFine_labelIds")
        for file in (Path("leftImg8bit") / inside, mask):
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(pool / file, folder / file)
    return folder if pictures else None


def score(config: Config, arm: str, seed: int, folder: Path | None, asked: argparse.Namespace) -> float:
    """mIoU on the validation scenes after step 1 with these labelled pictures."""
    words = ["--seed", str(seed), "--name", f"{arm}-{seed}", "--runtime.out", str(asked.out), "--runtime.resume", "auto"]
    words += ["--source_checkpoint", str(config.source_checkpoint or asked.run), "--stages.step1.iterations", str(asked.iterations)]
    words += ["--stages.step2.iterations", "0"] if "step2" in config.stages else []
    words += ["--evaluation.estimate_pictures", "0", "--runtime.evaluate_every", "0", "--evaluation.num_pictures", "0"]
    words += [] if folder is None else ["--source.extra.path", str(folder), "--source.extra.format", "cityscapes"]
    words += [] if folder is None else ["--source.extra.share", str(asked.share)]
    run = train(load_config(asked.run / "config.yaml", words), estimates=False)
    return float(json.loads((run / "summary.json").read_text())["headline"]["miou"])


if __name__ == "__main__":
    main()
