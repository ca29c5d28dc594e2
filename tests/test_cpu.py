"""Another CPU (fault 60): what computes is tried with the instructions of an older one as well.  bf16 on and off: fixture `has_bf16`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

TESTS = Path(__file__).parent

NUMERIC = (
    "losses",
    "evaluation/test_confusion.py",
    "evaluation/test_sliding.py",
    "transforms/test_boundary.py",
    "transforms/test_geometry.py",
    "models/test_compact.py",
    "models/test_decoder.py",
    "models/test_denoiser.py",
    "models/test_segmenter.py",
    "training/test_update.py",
    "methods/common/test_supervised.py::test_every_parameter_receives_a_gradient",
    "methods/test_iccld.py::test_step1_moves_every_parameter_of_encoder_and_decoder",
    "methods/test_iccld.py::test_the_first_losses_are_what_they_were",
    "methods/test_iccld.py::test_prediction_does_not_depend_on_the_batch",
    "test_diffusion.py",
    "test_predictor.py",
)
"""The numeric subset: closed forms, gradients, pinned losses, one answer for any batch and window."""

AVX2 = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "OMP_NUM_THREADS": "1"}
"""PyTorch's own kernels and oneDNN's convolutions; read once, when they are loaded: hence another process."""

COMMAND = "import sys, pytest, torch; print(torch.backends.cpu.get_cpu_capability()); sys.exit(pytest.main(sys.argv[1:]))"


@pytest.mark.skipif("AVX" not in torch.backends.cpu.get_cpu_capability(), reason="a CPU of another family has no AVX2")
def test_fault_60_the_numbers_hold_with_the_instructions_of_avx2_alone() -> None:
    files = [str(TESTS / name) for name in NUMERIC]
    environment = {**os.environ, **AVX2, "PYTHONPATH": str(TESTS.parent / "src")}
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, *options, *files], capture_output=True, text=True, timeout=600, env=environment, check=False
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert done.stdout.splitlines()[0] == "AVX2"
    assert int(re.findall(r"(\d+) passed", done.stdout)[-1]) > 200
