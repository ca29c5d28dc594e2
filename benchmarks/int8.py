"""What do 8 bits cost a trained network?  mIoU and agreement of each exported file beside the run's own network, on its validation split.

    python benchmarks/int8.py RUN... [--num 32] [--stage S]

Every run's last stage is exported in fp32 and in 8 bits (calibrated on `--num` of its target pictures, evenly spread, which no label is
read of), and scored in onnxruntime and OpenVINO as `iccld evaluate` scores it.  One thread.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from iccld.assembly.objects import open_data
from iccld.assembly.scoring import Asked
from iccld.config import read_config
from iccld.evaluation import evaluate
from iccld.evaluation.evaluate import spread
from iccld.export import export_model, load_exported
from iccld.runs import load_with_standing
from iccld.runs.data import read_ranges

FILES = (("onnx", ".onnx", "onnxruntime"), ("openvino", ".xml", "openvino"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--num", type=int, default=32)
    parser.add_argument("--stage")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    print("| run | PyTorch fp32 | onnxruntime fp32 | onnxruntime int8 | less | OpenVINO int8 | less |")
    print("|---|" + "---:|" * 6)
    for run in asked.runs:
        fp32, plain, onnx, openvino = scores(run, asked.stage, asked.num)
        eight = f"{onnx:.2f} | {onnx - fp32:+.2f} | {openvino:.2f} | {openvino - fp32:+.2f}"
        print(f"| {run.name} | {fp32:.2f} | {plain:.2f} | {eight} |", flush=True)


def scores(run: Path, stage: str | None, num: int) -> Sequence[float]:
    """mIoU in percent: PyTorch in fp32, onnxruntime in fp32, onnxruntime in 8 bits, OpenVINO in 8 bits."""
    data = open_data(read_config(run / "config.yaml"), read_ranges(run), tells=False)
    assert data.val is not None, f"{run} has no labelled validation pictures"
    predictor, standing = load_with_standing(run, stage, device="cpu", asked=Asked(precision="fp32"))
    calibrate = [data.target.image_paths[index] for index in spread(len(data.target), num)]
    found = [evaluate(predictor, data.val, data.label_space).miou]
    with tempfile.TemporaryDirectory() as made:
        plain = export_model(predictor, standing, "onnx", Path(made) / "plain.onnx")
        files = [(plain, "onnxruntime")]
        for format, suffix, runtime in FILES:
            file = export_model(predictor, standing, format, Path(made) / f"eight{suffix}", calibrate=calibrate, int8=True)
            files.append((file, runtime))
        for file, runtime in files:
            exported, _ = load_exported(file, runtime, Asked(precision="fp32"))
            found.append(evaluate(exported, data.val, data.label_space).miou)
    return found


if __name__ == "__main__":
    main()
