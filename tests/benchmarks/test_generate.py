"""`benchmarks/generate.py` and its parts: stack and code are undone exactly, conditions count classes, a dry run measures both rules."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from iccld.diffusion import Diffusion
from iccld.models import Features

pytestmark = pytest.mark.usefixtures("script")  # its parts can be imported while a test runs, not before

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "generate.py"
QUICK = ["--iterations", "2", "--batch", "2", "--window", "4", "--widths", "32", "32", "--steps", "1", "2"]
QUICK += ["--decoder_iterations", "2", "--decoder_seeds", "1", "--control_iterations", "1", "--num", "4"]


def test_stack_and_code_are_undone():
    from generation.stack import Code, stacked, unstacked

    generator = torch.Generator().manual_seed(0)
    shapes = ((3, 4, 6), (5, 8, 12), (2, 16, 24))
    level8, level4, level2 = (torch.randn((7, *shape), generator=generator) for shape in shapes)
    features = Features(torch.randn((7, 4, 4, 6), generator=generator), (level2, level4, level8))
    channels = [4, 3, 20, 32]
    stack = stacked(features)
    again = unstacked(stack, channels)
    assert torch.equal(again.latent, features.latent)
    assert all(torch.equal(*pair) for pair in zip(again.pyramid, features.pyramid, strict=True))
    code = Code(stack, channels, 1.0)
    encoded = code.encode(stack)
    assert code.sizes == channels
    torch.testing.assert_close(encoded.std((0, 2, 3)), torch.ones(59), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(code.decode(encoded), stack, rtol=1e-4, atol=1e-4)
    assert Code(stack, channels, 0.5).sizes[2] < 20


def test_condition_holds_the_share_of_each_class():
    from generation.generator import condition_of

    label = torch.full((1, 16, 8), 255, dtype=torch.uint8)
    label[0, :8] = 1
    label[0, :4, :2] = 0  # half of the upper left quarter of the upper cell
    told = condition_of(label, torch.tensor([1]), 2)
    assert told.shape == (1, 9, 2, 1)
    assert told[0, :8, 0, 0].tolist() == [0.5, 0, 0, 0, 0.5, 1, 1, 1]
    assert told[0, :8, 1, 0].tolist() == [0] * 8
    assert told[0, 8].unique().tolist() == [1]


def test_velocity_implies_the_clean_code():
    from generation.generator import Model

    generator = torch.Generator().manual_seed(0)
    clean, noise = torch.randn((2, 3, 5, 4, 4), generator=generator)
    timestep = torch.tensor([49, 499, 999])
    diffusion = Diffusion(prediction="sample")
    signal = diffusion.signal(timestep)
    velocity = signal.sqrt() * noise - (1 - signal).sqrt() * clean
    model = Model(lambda noised, timestep, told: velocity, None, "v", diffusion)
    torch.testing.assert_close(model.clean(diffusion.add_noise(clean, noise, timestep), timestep, clean), clean, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("chosen", [["--scope", "all", "--anyway"], ["--scope", "latent", "--predict", "v", "--only_rules"]])
def test_a_dry_run_measures_both_rules(script, finished, tmp_path, capsys, monkeypatch, chosen):
    monkeypatch.setenv("ICCLD_VIEW_LABELS", str(tmp_path / "labels"))
    monkeypatch.setattr("generation.rules.proxy_a_distance", lambda first, second: 1.0)  # 2 val pictures are too few to fold
    script.main([str(finished), "--keep", str(tmp_path), *chosen, *QUICK])
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    rules = next(row for row in told if row["what"] == "rules")
    assert rules["both_hold"] == {"1": False, "2": False}
    assert [row["steps"] for row in told if row.get("of", "").startswith("generated target of val's true")] == [1, 2]
    if "--anyway" not in chosen:
        assert not any(row["what"] == "against the control" for row in told)
        return
    against = next(row for row in told if row["what"] == "against the control")
    assert all(math.isfinite(against[name]) for name in ("decoder", "generated"))
    assert len(list(tmp_path.glob("*.pt"))) == 1
