"""`benchmarks/doubt.py`: its areas and its ECE against their definitions, and a dry run on a finished run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "doubt.py"


def test_areas_are_those_of_all_pairs(script):
    generator = torch.Generator().manual_seed(0)
    doubts = [torch.rand(150, generator=generator).mul(40).round().div(40) for _ in range(3)]  # ties
    wrongs = [torch.rand(150, generator=generator) < doubt for doubt in doubts]
    errors, rights = script.binned(doubts, wrongs)
    auroc, precision = script.areas(errors.sum(0), rights.sum(0))
    doubt, wrong = torch.cat(doubts), torch.cat(wrongs)
    pairs = doubt[wrong][:, None] - doubt[~wrong][None]
    assert auroc == pytest.approx(float((pairs > 0).float().mean() + 0.5 * (pairs == 0).float().mean()), abs=1e-6)
    above = [(doubt >= value) for value in doubt[wrong]]
    assert precision == pytest.approx(float(np.mean([float(wrong[each].float().mean()) for each in above])), abs=1e-6)


def test_ece_is_the_mean_gap(script):
    confidence = torch.tensor([0.95, 0.95, 0.5, 0.5])
    wrong = torch.tensor([False, True, False, False])
    sums = script.calibration([confidence[:2], confidence[2:]], [wrong[:2], wrong[2:]])
    assert script.ece(sums.sum(0)) == pytest.approx(100 * (0.45 + 0.5) / 2)


def test_answers_that_agree_carry_no_information(script):
    answer = torch.rand((1, 3, 4, 6), generator=torch.Generator().manual_seed(0)).softmax(1)
    label = torch.zeros((8, 12), dtype=torch.uint8)
    label[0] = 255
    same = script.seen(answer.expand(4, -1, -1, -1), answer, label)
    assert len(same.confidence) == 3 * 6  # every second pixel of every second row but the first, which has no label
    assert float(same.doubt["information"].abs().max()) < 1e-6
    torch.testing.assert_close(same.doubt["class"], same.doubt["class_of_plain"])
    torch.testing.assert_close(same.tempered, same.confidence)
    assert bool((script.seen(answer, answer, label, 2.0).tempered > same.confidence).all())
    other = script.seen(torch.cat([answer, answer.flip(1)]), answer, label)
    assert float(other.doubt["information"].max()) > 1e-3


def test_a_dry_run_compares_every_way(script, finished, capsys):
    script.main([str(finished), str(finished), "--draws", "2", "--resamples", "5"])
    lines = capsys.readouterr().out.splitlines()
    rows = [json.loads(line) for line in lines if line.startswith("{")]
    assert [row["way"] for row in rows] == ["plain", "masks", "noise", "views"] * 2
    assert rows[0]["auroc_own_class"] == rows[0]["auroc_plain_class_of_plain"]
    assert rows[0]["ece_over_plain"] == rows[0]["ece_tempered_over_plain"] == [0, 0, 0]
    assert all(row["ms"] > 0 and 0 <= row["aupr_own_class"] <= 100 for row in rows)
    assert lines[-1].startswith("| views | 2 |")


def test_a_stage_without_masks_is_refused(script, finished):
    with pytest.raises(SystemExit, match="not step 2 of iccld"):
        script.main([str(finished), "--stage", "step1"])
