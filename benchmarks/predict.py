"""How many pictures a second `iccld predict` takes from JPEG to mask, beside what bounds it.

    python benchmarks/predict.py [--before DIR] [--run RUN] [--pictures DIR] [--num 24] [--rounds 3] [--openvino]

For pictures of 480x360, 1280x720 and 2048x1024 it times, in turns, processes of their own:

- `after`: `predict_paths` of this tree, with what it writes by default, a palette PNG of train ids;
- `before`: the same call in another tree (`--before`, say `git worktree add DIR 23ecd24`), with what that writes by default;
- `before, ids`: that tree, asked for the palette PNG alone;
- `files`: reading the JPEG and encoding the PNG, on all cores: the bound of a network that costs nothing;
- `network`: prepared tensors through the network, one a core: the bound of files that cost nothing;
- with `--openvino`, SegFormer-B0 (random weights, at the same working size) in OpenVINO on the same pictures, resized to it and back by
  OpenCV, its classes written by the same encoder; latency and throughput are OpenVINO's own settings.

Files and network share the cores, so that both bounds together allow no more than 1 / (1 / files + 1 / network).  Each process predicts a
few pictures before the clock starts.  Rates are told by the clock and by the processor (threads / processor seconds a picture): where other
processes are at work the clock tells of these, and the processor what an idle machine would do.  The model has the networks of the recipe
city_to_camvid (EfficientNet-Lite0), after `--steps` iterations on generated scenes: without any its masks would be noise.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image

SIZES = ((480, 360), (1280, 720), (2048, 1024))
WARM_UP = 4
Rates = tuple[float, float]
"""By the clock, and by the processor."""
SHORT = [
    *("--source.generate.num", "24", "--source.holdout", "0", "--target.generate.num", "4", "--target.generate.world", "camera"),
    *("--target.generate.layout", "cityscapes", "--target.generate.size", "360x480", "--target.format", "cityscapes"),
    *("--stages.step1.iterations=0", "--stages.step2.iterations=0", "--batch_size", "2", "--runtime.evaluate_every", "0"),
]


def make_run(folder: Path, steps: int, root: Path) -> Path:
    """A run of the recipe's networks after a few steps of the tree at root: an earlier tree does not read what a later one writes."""
    words = ["adapt", "--recipe", "city_to_camvid", "--no_estimate", "--quiet", "--name", "short", "--runtime.out", str(folder), *SHORT]
    environment = {**os.environ, "PYTHONPATH": str(root / "src"), "ICCLD_CACHE": str(folder / "cache")}
    words = [sys.executable, "-m", "iccld", *words, f"--stages.source.iterations={steps}"]
    if subprocess.run(words, env=environment, check=False).returncode:
        raise SystemExit("the run could not be made")
    return folder / "short"


def make_pictures(folder: Path, num: int, source: Path | None) -> None:
    """`num` JPEGs of each size: enlarged from a folder of pictures, or from generated scenes."""
    if source is None:
        from iccld.cli import main

        source = folder / "scenes"
        words = ["data", "generate", "--world", "camera", "--layout", "cityscapes", "--num", str(min(num, 12)), "--size", "360x480"]
        if main([*words, "--seed", "3", "--out", str(source), "--quiet"]):
            raise SystemExit("the pictures could not be drawn")
        source = source / "leftImg8bit"
    found = sorted(path for path in source.rglob("*") if path.suffix in (".png", ".jpg", ".jpeg"))
    if not found:
        raise SystemExit(f"{source}: no pictures")
    for width, height in SIZES:
        (folder / f"{width}x{height}").mkdir()
        for number in range(num):
            with Image.open(found[number * len(found) // num if len(found) > num else number % len(found)]) as image:
                large = image.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
            large.save(folder / f"{width}x{height}" / f"{number:04}.jpg", quality=90)


class Clock:
    """Pictures a second since it was made: by the clock, and by the processor."""

    def __init__(self) -> None:
        self.threads = torch.get_num_threads()
        self.start = time.perf_counter(), time.process_time()

    def rates(self, num: int) -> Rates:
        clock, processor = time.perf_counter() - self.start[0], time.process_time() - self.start[1]
        return num / clock, num * self.threads / processor


# --- what a process of its own times: a run, a folder of pictures, a number of seconds -------------------------------------------


def predicted(run: Path, pictures: Path, wanted: Sequence[str] | None) -> Rates:
    """`predict_paths`, after a few pictures that warm up."""
    from iccld import progress
    from iccld.predict import Wanted, predict_paths
    from iccld.runs import load_predictor

    progress.set_quiet(True)
    predictor = load_predictor(run)
    files = sorted(pictures.iterdir())
    predict = partial(predict_paths, predictor)
    predict = predict if wanted is None else partial(predict, wanted=Wanted(tuple(wanted)))
    with tempfile.TemporaryDirectory() as out:
        predict(files[:WARM_UP], Path(out, "warm"))
        clock = Clock()
        report = predict(files, Path(out, "masks"))
        rates = clock.rates(len(files))
    if len(report.done) != len(files):
        raise SystemExit(f"{len(report.failed)} pictures failed")
    return rates


def beside_each_other(work: Callable[[int], object], num: int) -> Rates:
    """Calls a second, as many at a time as there are threads, each with one."""
    clock = Clock()

    def one(number: int) -> None:
        if torch.get_num_threads() != 1:
            torch.set_num_threads(1)
        with torch.inference_mode():
            work(number)

    with ThreadPoolExecutor(clock.threads) as pool:
        list(pool.map(one, range(WARM_UP)))
        clock.start = time.perf_counter(), time.process_time()
        list(pool.map(one, range(num)))
        rates = clock.rates(num)
    torch.set_num_threads(clock.threads)
    return rates


def files_alone(run: Path, pictures: Path) -> Rates:
    """Read every JPEG and encode a mask as its network would give it."""
    from iccld.data import png
    from iccld.data.images import read_image
    from iccld.predict.memory import label_pictures
    from iccld.runs import load_predictor

    predictor = load_predictor(run)
    found = sorted(pictures.iterdir())
    palette = predictor.label_space.palette
    with torch.inference_mode():
        batch = torch.from_numpy(np.array(read_image(found[0]))).permute(2, 0, 1)[None]
        mask = label_pictures(predictor, batch, confidence=False)[0][0].numpy()

    def work(number: int) -> None:
        read_image(found[number % len(found)])
        png.encode(mask, palette)

    return beside_each_other(work, len(found))


def network_alone(run: Path, pictures: Path) -> Rates:
    """Prepared pictures through the network."""
    from iccld.predict.admission import replicas
    from iccld.runs import load_predictor

    copies = replicas(load_predictor(run), torch.get_num_threads())
    width, height = map(int, pictures.name.split("x"))
    shown = torch.randn(1, 3, *copies[0].prepared_size(height, width))
    return beside_each_other(lambda number: copies[number % len(copies)]._run(shown, None), len(list(pictures.iterdir())))


class _LogitsOf(torch.nn.Module):
    """The logits of a transformers model alone, which is what OpenVINO can trace."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.network(images).logits
        return logits


def openvino_segformer(run: Path, pictures: Path, hint: str) -> Rates | None:
    """SegFormer-B0 at the run's working size, in OpenVINO; None where it is not installed."""
    try:
        import openvino
        from transformers import SegformerConfig, SegformerForSemanticSegmentation
    except ImportError:
        return None
    import cv2

    from iccld.data import png
    from iccld.data.images import read_image
    from iccld.runs import load_predictor

    predictor = load_predictor(run)
    width, height = map(int, pictures.name.split("x"))
    size = predictor.prepared_size(height, width)
    network = SegformerForSemanticSegmentation(SegformerConfig(num_labels=predictor.label_space.num_classes)).eval()
    converted = openvino.convert_model(_LogitsOf(network), example_input=torch.randn(1, 3, *size), input=[1, 3, *size])
    threads = torch.get_num_threads()
    settings = {"PERFORMANCE_HINT": hint, "INFERENCE_NUM_THREADS": threads}
    compiled = openvino.Core().compile_model(converted, "CPU", settings)
    found = sorted(pictures.iterdir())
    palette = predictor.label_space.palette
    cv2.setNumThreads(1 if hint == "THROUGHPUT" else threads)

    def work(number: int) -> None:
        image = cv2.resize(read_image(found[number % len(found)]), size[::-1], interpolation=cv2.INTER_AREA)
        shown = ((image.astype(np.float32) / 255 - 0.45) / 0.225).transpose(2, 0, 1)[None]
        logits = compiled.create_infer_request().infer({0: shown})[0][0]  # (K, H/4, W/4)
        large = cv2.resize(np.ascontiguousarray(logits.transpose(1, 2, 0)), (width, height), interpolation=cv2.INTER_LINEAR)
        png.encode(large.argmax(2).astype(np.uint8), palette)

    if hint == "THROUGHPUT":
        return beside_each_other(work, len(found))
    for number in range(WARM_UP):
        work(number)
    clock = Clock()
    for number in range(len(found)):
        work(number)
    return clock.rates(len(found))


WORK: dict[str, Callable[[Path, Path], Rates | None]] = {
    "after": lambda run, pictures: predicted(run, pictures, None),
    "before": lambda run, pictures: predicted(run, pictures, None),
    "before, ids": lambda run, pictures: predicted(run, pictures, ["train_ids"]),
    "files": files_alone,
    "network": network_alone,
    "SegFormer-B0, latency": lambda run, pictures: openvino_segformer(run, pictures, "LATENCY"),
    "SegFormer-B0, throughput": lambda run, pictures: openvino_segformer(run, pictures, "THROUGHPUT"),
}


def in_process(title: str, run: Path, pictures: Path, before: Path | None) -> list[Rates | None]:
    """Rates of one line for each size, in a process of its own."""
    root = before if title.startswith("before") and before is not None else Path(__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root / "src"), os.environ.get("PYTHONPATH", "")])}
    words = [sys.executable, __file__, "--one", title, "--run", str(run), "--pictures", str(pictures)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{title}: {done.stderr[-800:]}")
    return [None if each is None else (each[0], each[1]) for each in json.loads(done.stdout.splitlines()[-1])]


def tell(title: str, rates: Sequence[dict[str, Rates]]) -> None:
    """Median of the rounds of every line, and the shares of the bounds."""
    print(f"\n{title}, pictures a second{'clock':>17}{'processor':>11}")
    rate = {line: tuple(median(one[line][kind] for one in rates) for kind in (0, 1)) for line in rates[0]}
    for line, (clock, processor) in rate.items():
        print(f"  {line:34}{clock:8.1f}{processor:11.1f}")
    shares = [rate["after"][kind] / min(rate["files"][kind], rate["network"][kind]) for kind in (0, 1)]
    both = [rate["after"][kind] * (1 / rate["files"][kind] + 1 / rate["network"][kind]) for kind in (0, 1)]
    print(f"  {'share of the slower bound':34}{shares[0]:8.0%}{shares[1]:11.0%}")
    print(f"  {'share of what both allow together':34}{both[0]:8.0%}{both[1]:11.0%}")
    for line in ("before", "before, ids"):
        if line in rate:
            gains = [rate["after"][kind] / rate[line][kind] for kind in (0, 1)]
            print(f"  {f'times as many as {line}':34}{gains[0]:8.1f}{gains[1]:11.1f}")


def main() -> None:
    """Time every line in turns, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, help="another tree of this project")
    parser.add_argument("--run", type=Path)
    parser.add_argument("--pictures", type=Path, help="folder of pictures that are enlarged (default: generated scenes)")
    parser.add_argument("--num", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--openvino", action="store_true")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps([WORK[arguments.one](arguments.run, arguments.pictures / f"{width}x{height}") for width, height in SIZES]))
        return
    titles = [title for title in WORK if arguments.before is not None or not title.startswith("before")]
    titles = [title for title in titles if arguments.openvino or not title.startswith("SegFormer")]
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        run = arguments.run or make_run(folder, arguments.steps, arguments.before or Path(__file__).parents[1])
        make_pictures(folder, arguments.num, arguments.pictures)
        print(
            f"{torch.get_num_threads()} threads, torch {torch.__version__}, {arguments.num} pictures, median of {arguments.rounds}",
            flush=True,
        )
        rounds: list[list[dict[str, Rates]]] = [[{} for _ in range(arguments.rounds)] for _ in SIZES]
        for number in range(arguments.rounds):
            for title in titles:
                for place, rates in enumerate(in_process(title, run, folder, arguments.before)):
                    if rates is not None:
                        rounds[place][number][title] = rates
                        if number == 0:
                            print(f"  {title} {SIZES[place][0]}x{SIZES[place][1]}: {rates[0]:.1f}, {rates[1]:.1f}", flush=True)
                    elif place == number == 0:
                        print(f"{title} is not measured: pip install openvino")
        for (width, height), measured in zip(SIZES, rounds, strict=True):
            tell(f"{width}x{height}", measured)


if __name__ == "__main__":
    main()
