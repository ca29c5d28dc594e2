"""The same network through each runtime: EfficientNet-Lite0 with the decoder of the recipes, one picture of 512x1024.

    python benchmarks/runtimes.py [--threads 1] [--rounds 7] [--size 512x1024] [--json FILE]

Weights of the decoder are random, which changes no time.  Runtimes take turns, so that what else the machine does falls on all of them;
medians of each are printed, wall time and time of the processor (of all threads together: on a busy machine, the one to compare), and
their ratio to PyTorch in fp32.  8 bits are calibrated on four drawn scenes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from iccld.assembly.networks import build_networks
from iccld.city import generate
from iccld.config import load_config, parse_size
from iccld.export import export_model, load_exported
from iccld.labels import CAMVID11
from iccld.methods.common.parts import MEAN, STD
from iccld.predictor import Predictor
from iccld.runs import Standing


def runtimes(size: tuple[int, int], folder: Path) -> dict[str, Callable[[torch.Tensor], object]]:
    """Name -> what takes a prepared picture, (1, 3, H, W) in 0..1, to logits."""
    torch.manual_seed(0)
    config = load_config("city_to_camvid")
    networks = build_networks(config.network, CAMVID11.num_classes)
    predictor = Predictor(
        networks.make_segmenter(), CAMVID11, working_size=size, size_multiple=networks.size_multiple, mean=MEAN, std=STD
    ).eval()
    network = predictor.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    standing = Standing("step1", 1, 1, "ema", True, (0, 65535))
    pictures = sorted(generate("camera", "folder", 4, size, 0, folder / "scenes", 1).rglob("images/*"))
    plain = export_model(predictor, standing, "onnx", folder / "plain.onnx")
    eight = export_model(predictor, standing, "onnx", folder / "eight.onnx", int8=True, calibrate=pictures)
    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))

    def pytorch(precision: str) -> Callable[[torch.Tensor], object]:
        def call(image: torch.Tensor) -> object:
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
                return network(((image - mean) / std).contiguous(memory_format=torch.channels_last))

        return call

    def exported(file: Path, runtime: str, precision: str = "fp32") -> Callable[[torch.Tensor], object]:
        from iccld.assembly.scoring import Asked

        return load_exported(file, runtime, Asked(precision=precision))[0].network

    return {
        "PyTorch fp32": pytorch("fp32"),
        "PyTorch bf16": pytorch("bf16"),
        "onnxruntime fp32": exported(plain, "onnxruntime"),
        "OpenVINO fp32": exported(plain, "openvino"),
        "OpenVINO bf16": exported(plain, "openvino", "bf16"),
        "onnxruntime int8": exported(eight, "onnxruntime"),
        "OpenVINO int8": exported(eight, "openvino"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--size", type=parse_size, default=(512, 1024))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as made, torch.inference_mode():
        made_of = runtimes(arguments.size, Path(made))
        image = torch.rand(1, 3, *arguments.size, generator=torch.Generator().manual_seed(0))
        wall: dict[str, list[float]] = {name: [] for name in made_of}
        processor: dict[str, list[float]] = {name: [] for name in made_of}
        for number in range(arguments.rounds + 1):
            for name, call in made_of.items():
                start, spent = time.perf_counter(), time.process_time()
                call(image)
                if number:  # the first round sets up
                    wall[name].append(1000 * (time.perf_counter() - start))
                    processor[name].append(1000 * (time.process_time() - spent))
    first = statistics.median(processor["PyTorch fp32"])
    table = {
        name: {
            "wall_ms": statistics.median(wall[name]),
            "processor_ms": statistics.median(spent),
            "ratio": statistics.median(spent) / first,
        }
        for name, spent in processor.items()
    }
    print(f"{arguments.size[0]}x{arguments.size[1]}, {arguments.threads} thread(s), medians of {arguments.rounds} rounds")
    for name, told in table.items():
        print(f"{name:18} {told['wall_ms']:8.0f} ms wall {told['processor_ms']:8.0f} ms of the processor  x{told['ratio']:.2f}")
    if arguments.json:
        arguments.json.write_text(json.dumps({"size": arguments.size, "threads": arguments.threads, "runtimes": table}, indent=2) + "\n")


if __name__ == "__main__":
    main()
