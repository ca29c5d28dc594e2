"""A whole run on an accelerator: trained, scored, shown, reported, read again and predicted with."""

from __future__ import annotations

import json

import pytest
import torch

from iccld.cli import main

from ..workshop import Workshop

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_run_is_trained_scored_shown_and_predicts_on_the_device(workshop: Workshop, precision: str) -> None:
    runtime = {**workshop.settings["runtime"], "device": "cuda", "precision": precision}
    assert workshop.adapt(f"cuda-{precision}", {"runtime": runtime}) == 0
    run = workshop.runs / f"cuda-{precision}"
    told = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    assert all(stage["miou"] is not None for stage in told["stages"].values())
    assert (run / "report.html").is_file()
    assert list((run / "pictures").glob("0_step2.png"))
    out = workshop.root / f"masks-{precision}"
    assert main(["predict", str(run), str(workshop.data.val), "--out", str(out)]) == 0
    assert list(out.rglob("*.png"))


def test_a_run_is_trained_with_compiled_networks(workshop: Workshop) -> None:
    runtime = {**workshop.settings["runtime"], "device": "cuda", "compile": True}
    assert workshop.adapt("cuda-compiled", {"runtime": runtime}) == 0
    told = json.loads((workshop.runs / "cuda-compiled" / "summary.json").read_text(encoding="utf-8"))
    assert all(stage["miou"] is not None for stage in told["stages"].values())
