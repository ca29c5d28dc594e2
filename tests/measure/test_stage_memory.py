"""Memory of the stages by component: sums by hand, what checkpointing and precision save, and what docs/memory.md tells."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import Dinov2Config

from iccld.adapting import memory_lines
from iccld.assembly.networks import build_networks
from iccld.batch import DomainBatch
from iccld.config import Config, load_config, recipe_names
from iccld.measure.memory import StageMemory, UnknownMemory, stage_memory
from iccld.methods import METHODS
from iccld.methods.common.supervised import Supervised

SMALL = (
    *("--network.encoder", "", "--size.crop", "64x64", "--batch_size", "2"),
    *("--network.denoiser_widths", "32,32", "--network.denoiser_patch", "1"),
)
SOURCE = ("--stages.step1.iterations", "0", "--stages.step2.iterations", "0")
DOCS = Path(__file__).parents[2] / "docs" / "memory.md"


def config(*overrides: str) -> Config:
    return load_config("demo", [*SMALL, *overrides])


@cache
def memory(*overrides: str, bf16: bool = True) -> list[StageMemory]:
    return known(config(*overrides), bf16)


def known(config: Config, bf16: bool = True, device: str = "meta") -> list[StageMemory]:
    """The memory of the configuration's stages, none of which is unknown."""
    stages = stage_memory(config, bf16, device)
    told = [stage for stage in stages if isinstance(stage, StageMemory)]
    assert len(told) == len(stages)
    return told


def size(network: nn.Module) -> int:
    return sum(4 * p.numel() for p in network.parameters())


def test_parameters_averages_moments_and_gradients_are_counted_by_hand() -> None:
    networks = build_networks(config().network, 19)
    segmenter, denoiser = networks.make_segmenter(), networks.make_denoiser(True)
    scale = 4 * 2 * networks.latent_channels
    source, step1, step2 = memory("--settings.labels", "views")
    for stage in (source, step1):
        assert (stage.parameters, stage.average) == (size(segmenter),) * 2
        assert (stage.optimizer, stage.gradients) == (2 * size(segmenter), size(segmenter))
    assert step2.average == size(segmenter) + size(denoiser)
    assert step2.parameters == step2.average + scale + size(segmenter.decoder)  # the decoder that labels stands still
    trained = size(segmenter.decoder) + size(denoiser)  # the encoder is frozen
    assert (step2.optimizer, step2.gradients) == (2 * trained, trained)
    assert all(stage.peak > stage.parameters + stage.average + stage.optimizer + stage.gradients for stage in (source, step1, step2))


@pytest.mark.slow
def test_activations_belong_to_the_passes_of_the_stage() -> None:
    source, step1, step2 = memory()
    # Twice the pictures, but casts of the weights are kept once.
    assert source.activations["encoder"] < step1.activations["encoder"] < 2 * source.activations["encoder"]
    assert set(step2.activations) == {"encoder", "denoiser", "decoder", "rest"}
    assert step2.activations["encoder"] < source.activations["encoder"]  # no gradient: levels and latent alone
    (alone,) = memory("--settings.task_weight", "0", "--stages.source.iterations", "0", "--stages.step1.iterations", "0")
    assert set(alone.activations) == {"encoder", "denoiser", "rest"}


@pytest.mark.slow
def test_activations_grow_with_the_area() -> None:
    (small,), (large,) = memory(*SOURCE), memory(*SOURCE, "--size.crop", "128x128")
    assert large.activations["rest"] == pytest.approx(4 * small.activations["rest"], rel=0.01)
    assert 3 * small.activations["decoder"] < large.activations["decoder"] < 4 * small.activations["decoder"]


@pytest.mark.slow
def test_checkpointing_and_bf16_save_activations_and_nothing_else() -> None:
    (plain,), (saving,) = memory(*SOURCE), memory(*SOURCE, "--network.gradient_checkpointing", "true")
    (wide,) = memory(*SOURCE, bf16=False)
    for other in (saving, wide):
        assert (other.parameters, other.average, other.optimizer, other.gradients) == (
            plain.parameters,
            plain.average,
            plain.optimizer,
            plain.gradients,
        )
    assert saving.activations["encoder"] < plain.activations["encoder"]
    assert saving.peak < plain.peak < wide.peak


@pytest.mark.slow
def test_a_run_tells_it_by_stage_unless_its_networks_are_compact() -> None:
    assert memory_lines(config(*SOURCE)) == []
    tiny = ("--network.preset", "ldm", "--network.decoder_width", "0", "--network.latent_stride", "4", "--network.widths", "32,32,32")
    (line,) = memory_lines(config(*SOURCE, *tiny))
    assert re.match(r"memory of stage source: \d\.\d GiB at its peak \(parameters \d\.\d\d, average ", line)


NEED_VALUES = {"bapa", "corda", "cluda"}
"""Methods whose own step draws boundaries, picks pixels or places windows by the values of its tensors."""

STEP2_BOUND = 0.01
"""Step 2 on a CPU against the meta device.  The CPU's attention keeps half as large a row of sums as the CUDA kernel that is counted, and
its mean of squares lies in a buffer that holds all of them: 0.6 and 0.7 % of what lives at the peak were seen."""


FAST = ("iccld", "iccld_paper", "dacs", "hrda", "cluda", "proda")
"""Steps that differ in kind; the other methods' are tested by `make test-slow`."""


@pytest.mark.parametrize("method", [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in METHODS])
def test_the_meta_device_counts_what_the_same_step_takes_on_a_cpu_or_tells_that_it_needs_values(method: str) -> None:
    one = config("--method", method, "--settings", "{}")
    stages = stage_memory(one, bf16=False)
    unknown = [stage for stage in stages if isinstance(stage, UnknownMemory)]
    assert [stage.stage for stage in unknown] == (["adapt"] if method in NEED_VALUES else [])
    assert all(str(stage).startswith("memory of stage adapt: not known, its step depends on the values") for stage in unknown)
    counted = [stage for stage in stages if isinstance(stage, StageMemory)]
    for stage, real in zip(counted, known(one, bf16=False, device="cpu"), strict=method not in NEED_VALUES):
        fixed = stage.parameters + stage.average + stage.optimizer
        assert (stage.stage, fixed, stage.gradients) == (real.stage, real.parameters + real.average + real.optimizer, real.gradients)
        assert stage.peak - fixed == pytest.approx(real.peak - fixed, rel=STEP2_BOUND if stage.stage == "step2" else 0)


def item_of_a_loss(method: Supervised, batch: DomainBatch) -> None:
    batch.source_image.float().mean().item()


def change_optimizer(method: Supervised, batch: DomainBatch) -> None:
    method.optimizer = torch.optim.RMSprop(method.model.parameters())


@pytest.mark.parametrize(
    ("act", "reason"), [(item_of_a_loss, "depends on the values of its tensors"), (change_optimizer, "optimiser RMSprop is none of those")]
)
def test_a_step_that_cannot_be_counted_stops_no_run(
    act: Callable[[Supervised, DomainBatch], None], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A method from outside the package may do what the package's do not."""
    monkeypatch.setattr(Supervised, "step", lambda self, batch, iteration, draw: act(self, batch))
    (told,) = stage_memory(config(*SOURCE))
    assert isinstance(told, UnknownMemory)
    assert reason in str(told)


def test_the_letter_trains_the_denoiser_alone() -> None:
    networks = build_networks(config().network, 19)
    trained, discriminator = size(networks.make_denoiser(False)), size(networks.make_discriminator())
    *_, step2 = stages = memory("--method", "iccld_paper", "--settings", "{}")
    assert [stage.stage for stage in stages] == ["source", "step1", "step2"]
    assert (step2.optimizer, step2.gradients) == (2 * (trained + discriminator), trained)
    assert set(step2.activations) == {"encoder", "denoiser", "discriminator", "rest"}


@pytest.mark.parametrize("method", ["iccld", "iccld_paper"])
def test_a_denoiser_with_attention_is_counted_too(method: str) -> None:
    flags = ["--network.conditioning", "attention", "--stages.source.iterations", "0", "--stages.step1.iterations", "0"]
    (step2,) = memory(*flags, "--method", method, "--settings", "{}")
    networks = build_networks(config(*flags).network, 19)
    segmenter = networks.make_segmenter()
    further = segmenter.decoder if method == "iccld" else networks.make_discriminator()  # what labels the target; the adversary
    made = (segmenter, networks.make_denoiser(False), further)
    assert step2.parameters == sum(map(size, made)) + 4 * 2 * networks.latent_channels
    assert step2.activations["denoiser"] > 0


@pytest.mark.parametrize("reading", ["discriminate: features", "task_weight: 1", "adversarial_condition: false"])
def test_readings_are_counted_as_their_step_goes(reading: str) -> None:
    flags = ["--stages.source.iterations", "0", "--stages.step1.iterations", "0", "--method", "iccld_paper"]
    (plain,), (other,) = memory(*flags, "--settings", "{}"), memory(*flags, "--settings", f"{{{reading}}}")
    assert other.peak != plain.peak
    assert ("decoder" in other.activations) == (reading == "task_weight: 1")


def test_recipes_with_ldm_networks_recompute_activations() -> None:
    networks = {name: load_config(name).network for name in recipe_names()}
    large = {name: network for name, network in networks.items() if network.preset == "ldm"}
    assert {"gta5_to_cityscapes_paper", "synthia_to_cityscapes_paper"} <= large.keys()
    assert [name for name, network in large.items() if not network.gradient_checkpointing] == []


@pytest.mark.slow
def test_the_letters_recipe_fits_a_24_gb_gpu() -> None:
    stages = known(load_config("gta5_to_cityscapes_paper"))
    assert [stage.stage for stage in stages] == ["source", "step1", "step2"]
    assert max(stage.peak for stage in stages) < 24e9


@pytest.mark.parametrize(
    "training", ["full", pytest.param("frozen", marks=pytest.mark.slow), pytest.param("last:4", marks=pytest.mark.slow)]
)
def test_recipe_with_dinov2_takes_real_size_steps_and_fits_a_24_gb_gpu(training: str, tmp_path: Path) -> None:
    """Forward and backward passes of every stage at 512x512 through DINOv2-B, on the meta device: shapes and live bytes are real."""
    architecture = Dinov2Config(image_size=518, patch_size=14)  # the defaults are those of the base model
    assert (architecture.hidden_size, architecture.num_hidden_layers) == (768, 12)
    architecture.save_pretrained(tmp_path)
    flags = ["--network.encoder", str(tmp_path), "--network.encoder_training", training, "--stages.step2.iterations", "40000"]
    source, step1, _ = stages = known(load_config("gta5_to_cityscapes", flags))
    assert [stage.stage for stage in stages] == ["source", "step1", "step2"]
    assert max(stage.peak for stage in stages) < 24e9
    assert 4 * 86e6 < source.parameters < 4 * 100e6
    assert step1.activations["encoder"] > source.activations["encoder"]
    if training == "full":
        assert 4 * 86e6 < source.gradients <= source.parameters
        rows = DOCS.read_text(encoding="utf-8").splitlines()
        assert [_row(stage) for stage in stages if _row(stage) not in rows] == []
    else:
        assert source.gradients < 4 * (15e6 if training == "frozen" else 45e6)


@pytest.mark.parametrize("widths", ["128,256,384,512", pytest.param("224,448,672,896", marks=pytest.mark.slow)])
def test_kl_f8_at_512_pixels_fits_24_gb_as_the_docs_tell(widths: str) -> None:
    size = [word for name in ("source", "target", "crop") for word in (f"--size.{name}", "512x512")]
    flags = ["--network.preset", "ldm", "--network.encoder", "", "--network.widths", "[]", "--network.decoder_width", "0"]
    flags += ["--network.gradient_checkpointing", "true", "--network.denoiser_widths", widths, "--network.denoiser_patch", "1"]
    stages = known(load_config("demo", ["--batch_size", "2", *size, *flags]))
    assert max(stage.peak for stage in stages) < 24e9
    rows = DOCS.read_text(encoding="utf-8").splitlines()
    assert [_row(stage) for stage in stages if _row(stage) not in rows] == []


def _row(stage: StageMemory) -> str:
    """A line of the table in docs/memory.md."""
    networks = ("encoder", "decoder", "denoiser", "discriminator", "rest")
    sizes = [stage.parameters, stage.average, stage.optimizer, stage.gradients, *(stage.activations.get(name, 0) for name in networks)]
    return f"| {stage.stage} | " + " | ".join(f"{value / 2**30:.2f}" if value else "–" for value in [*sizes, stage.peak]) + " |"


def test_what_is_told_holds_workspaces_beside_what_is_counted() -> None:
    memory = StageMemory("source", 1, 1, 1, 1, {"encoder": 2**30}, 10 * 2**30)
    assert memory.expected == 11 * 2**30
    assert "11.0 GiB at its peak" in str(memory)
    assert "workspaces 1.00" in str(memory)
