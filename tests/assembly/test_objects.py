"""Config -> objects: data sets, cached scenes, class weights, settings, and the predictors of a run."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from iccld.assembly.chosen import check_method, method_settings
from iccld.assembly.domains import domain_path
from iccld.assembly.objects import class_weights, make_engine, make_parts, open_data, optimisations, pair_dataset
from iccld.config import Config, DomainConfig, GenerateConfig, load_config
from iccld.data import FileDataset
from iccld.errors import CheckpointError, ConfigError
from iccld.labels import CITYSCAPES19
from iccld.methods import METHODS
from iccld.runs import load_predictor

from ..rounding import differ


def config(workshop: Any, *overrides: str) -> Config:
    path = workshop.root / "objects.yaml"
    path.write_text(yaml.safe_dump(workshop.settings), encoding="utf-8")
    return load_config(path, overrides)


# --- class weights --------------------------------------------------------------------------------------------------------


def test_class_weights_by_hand() -> None:
    counts = np.array([[40, 10, 0], [40, 10, 0]])
    weight = class_weights(counts, 0.5)
    assert weight is not None
    # Shares 0.8 and 0.2 of the classes that occur, mean 0.5; a class that never occurs takes the largest weight.
    assert weight.tolist() == pytest.approx([(0.5 / 0.8) ** 0.5, (0.5 / 0.2) ** 0.5, 5.0])
    assert weight.dtype == torch.float32


def test_class_weights_stay_in_their_range() -> None:
    weight = class_weights(np.array([[1_000_000, 1, 1]]), 1.0)
    assert weight is not None
    assert weight.tolist() == pytest.approx([1 / 3, 5.0, 5.0], abs=1e-5)
    assert class_weights(np.array([[10_000, 1, 1, 1, 1, 1, 1, 1, 1, 1]]), 1.0)[0] == pytest.approx(0.2)  # type: ignore[index]


def test_class_weights_of_exponent_0_are_none() -> None:
    assert class_weights(np.array([[3, 1]]), 0) is None


# --- data -----------------------------------------------------------------------------------------------------------------


def test_generated_scenes_are_drawn_once_and_cached_by_their_settings(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scenes = GenerateConfig(num=1, world="sim", layout="folder", size="48x64", seed=5)
    domain = DomainConfig(generate=scenes)
    first = domain_path(domain)
    assert first is not None
    assert cache in first.parents
    stamp = (first / "generation.json").stat().st_mtime_ns
    assert domain_path(domain) == first
    assert (first / "generation.json").stat().st_mtime_ns == stamp
    drawn: list[Path] = []
    monkeypatch.setattr("iccld.city.generate", lambda *arguments, **options: drawn.append(arguments[5]) or arguments[5])
    others = [
        replace(domain, generate=replace(scenes, seed=6)),
        replace(domain, generate=replace(scenes, world="camera")),
        replace(domain, generate=replace(scenes, size="48x80")),
        replace(domain, split="val"),
    ]
    folders = {domain_path(other) for other in others}
    assert len(folders) == len(drawn) == 4
    assert first not in folders
    monkeypatch.setattr("iccld.city.VERSION", -1)  # scenes drawn by other code
    assert domain_path(domain) != first


def test_domain_with_nothing_to_read_has_no_path() -> None:
    assert domain_path(DomainConfig()) is None
    assert domain_path(DomainConfig(path="somewhere")) == Path("somewhere")


def test_holdout_is_the_end_of_the_source_and_never_trained_on(workshop: Any) -> None:
    data = open_data(config(workshop))
    assert data.source_val is not None
    assert (len(data.source), len(data.source_val)) == (6, 2)
    assert not set(data.source.image_paths) & set(data.source_val.image_paths)
    assert sorted([*data.source.names, *data.source_val.names])[-2:] == data.source_val.names


def test_holdout_of_everything_is_refused(workshop: Any) -> None:
    with pytest.raises(ConfigError, match=r"source.holdout is 8 of 8 pictures"):
        open_data(config(workshop, "--source.holdout", "8"))


def test_target_is_opened_without_its_masks(workshop: Any) -> None:
    data = open_data(config(workshop))
    assert data.target.label_paths == [None] * 6
    assert data.val is not None
    assert data.val.has_labels


def test_ranks_share_a_batch(workshop: Any) -> None:
    made = config(workshop, "--sampling.rare_class", "false")
    data = open_data(made)
    whole = pair_dataset(made, data)[4]
    parts = [pair_dataset(made, data, rank, 2)[4] for rank in range(2)]
    assert [len(part.source_image) for part in parts] == [1, 1]
    assert torch.equal(torch.cat([part.source_index for part in parts]), whole.source_index)


# --- methods --------------------------------------------------------------------------------------------------------------


def test_settings_take_their_types_from_the_method(workshop: Any) -> None:
    settings = method_settings(config(workshop, "--settings.threshold", "0.5", "--settings.train_decoder", "false"))
    assert (settings.threshold, settings.train_decoder) == (0.5, False)
    assert method_settings(config(workshop)).threshold == 0.968


@pytest.mark.parametrize("method", ["daformer", "hrda", "cluda", "mic"])
def test_features_are_never_held_to_layers_that_nothing_has_trained(method: str) -> None:
    """Latents of an EfficientNet and of the compact encoder are projections; MiT-B5's is the network's own coarsest map."""
    words = ["--method", method, "--settings.reference", "initial"]
    with pytest.raises(ConfigError, match=r"settings\.reference is initial.*efficientnet-lite0.*begin at random.*use source"):
        check_method(load_config("demo", words))
    with pytest.raises(ConfigError, match=r"network\.preset compact begins at random"):
        check_method(load_config("demo_scratch", words))
    check_method(load_config("demo", words[:2]))
    check_method(load_config(f"gta5_to_cityscapes_{method}"))


def test_settings_of_earlier_releases_are_refused_with_what_took_their_place_and_passed_over_in_old_runs(workshop: Any) -> None:
    earlier = config(workshop, "--settings.condition_mask", "0.3", "--settings.threshold", "0.5")
    for refusing in (method_settings, check_method):
        with pytest.raises(ConfigError, match=r"settings\.condition_mask of method iccld is gone; settings\.mask_ratio took its place"):
            refusing(earlier)
    read = method_settings(earlier, of_earlier_run=True)
    assert (read.threshold, read.mask_ratio) == (0.5, 0.4)


def test_optimisation_counts_warmup_in_iterations(workshop: Any) -> None:
    made = optimisations(config(workshop, "--stages.step1.iterations", "200", "--stages.step1.warmup", "0.1"))
    assert list(made) == ["source", "step1", "step2"]
    assert (made["step1"].iterations, made["step1"].warmup_steps) == (200, 20)


def test_networks_have_the_configured_widths(workshop: Any) -> None:
    parts = make_parts(config(workshop), CITYSCAPES19)
    segmenter = parts.make_segmenter()
    assert segmenter.encoder.pyramid_channels[-1] == 16
    with torch.no_grad():
        assert segmenter(torch.zeros(1, 3, 64, 96)).shape[:2] == (1, 19)


@pytest.mark.parametrize("widths", ["8", "16,24", "32,48"])
def test_denoisers_narrower_than_an_attention_head_can_be_built(workshop: Any, widths: str) -> None:
    made = config(workshop, "--network.denoiser_widths", f"[{widths}]")
    latent, timestep = torch.zeros(1, 8, 4, 4), torch.zeros(1, dtype=torch.int64)
    with torch.no_grad():
        assert make_parts(made, CITYSCAPES19).make_denoiser(True)(latent, timestep, latent).shape == latent.shape


# --- predictors -----------------------------------------------------------------------------------------------------------


def test_predictors_of_a_run_differ_by_stage_and_weights(finished: Path) -> None:
    image = torch.randint(0, 256, (1, 3, 64, 96), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = {
            (stage, weights): load_predictor(finished, stage, weights, device="cpu")(image)
            for stage in ("source", "step1", "step2")
            for weights in ("ema", "model")
        }
        default = load_predictor(finished, device="cpu")(image)
    assert torch.equal(default, logits["step2", "ema"])
    answers = list(logits.values())
    assert all(one.shape == (1, 19, 64, 96) for one in answers)
    assert all(differ(one, other) for i, one in enumerate(answers) for other in answers[:i])


def test_predictor_takes_sampler_steps_of_step_2_alone(finished: Path) -> None:
    image = torch.randint(0, 256, (1, 3, 64, 96), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        without, once = (load_predictor(finished, sampler_steps=steps, device="cpu")(image) for steps in (None, 1))
    assert differ(without, once, share=1e-4)
    with pytest.raises(ConfigError, match="sampler_steps is 5, but this step 2 calls its denoiser once"):
        load_predictor(finished, sampler_steps=5, device="cpu")
    with pytest.raises(ConfigError, match="stage step1"):
        load_predictor(finished, "step1", sampler_steps=5)


def test_folder_that_is_no_run_is_refused(tmp_path: Path, finished: Path) -> None:
    with pytest.raises(CheckpointError, match=r"is not a run: no config\.yaml"):
        load_predictor(tmp_path)
    (tmp_path / "config.yaml").write_bytes((finished / "config.yaml").read_bytes())
    with pytest.raises(CheckpointError, match="checkpoint"):
        load_predictor(tmp_path)
    with pytest.raises(CheckpointError, match="no checkpoint of stage 'step3'"):
        load_predictor(finished, "step3")
    assert (CheckpointError.exit_code, ConfigError.exit_code) == (4, 2)


def test_predictor_refuses_flipped_bits(tmp_path: Path, finished: Path) -> None:
    """The manifest's digests are checked before a weight is used (fault 7)."""
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    weights = run / "checkpoints" / "step2" / "00000003" / "ema.safetensors"
    content = bytearray(weights.read_bytes())
    content[-5] ^= 1
    weights.write_bytes(content)
    for earlier in ("source", "step1"):
        shutil.rmtree(run / "checkpoints" / earlier)
    with pytest.raises(CheckpointError, match="damaged"):
        load_predictor(run)


def test_predictor_belongs_to_the_stages_of_its_configuration(tmp_path: Path, finished: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    text = (run / "config.yaml").read_text().replace("method: iccld", "method: source_only")
    (run / "config.yaml").write_text(text)
    with pytest.raises(CheckpointError, match=r"checkpoint of stage 'step2', but config\.yaml names"):
        load_predictor(run)
    assert json.loads((finished / "summary.json").read_text())["method"] == "iccld"


# --- stages and needs of a method -----------------------------------------------------------------------------------------


def register(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    monkeypatch.setitem(METHODS, "other", replace(METHODS["source_only"], **changes))


def test_a_method_without_iterations_of_its_own_shares_out_the_recipes_budget(workshop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, shares={"warmup": 0.25, "stage1": 0.75})
    arguments = (
        "--method",
        "other",
        "--stages.step1.iterations",
        "9",
        "--stages.step2.iterations",
        "3",
        "--stages.step1.learning_rate",
        "0.02",
    )
    made = optimisations(config(workshop, *arguments))
    assert {name: stage.iterations for name, stage in made.items()} == {"source": 3, "warmup": 3, "stage1": 9}
    assert [stage.learning_rate for stage in made.values()] == [0.001, 0.02, 0.02]


def test_iterations_of_its_own_are_taken_as_they_are(workshop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, shares={"warmup": 0.25, "stage1": 0.75})
    made = optimisations(config(workshop, "--method", "other", "--stages.stage1.iterations", "5"))
    assert {name: stage.iterations for name, stage in made.items()} == {"source": 3, "warmup": 0, "stage1": 5}


def test_a_method_that_needs_depth_is_refused_without(workshop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, needs=frozenset({"depth"}))
    assert open_data(config(workshop, "--method", "other")).target.has_depth  # generated scenes have it
    monkeypatch.setattr(FileDataset, "has_depth", property(lambda self: False))
    with pytest.raises(ConfigError, match=r"method other needs depth, and (source|target) \(.*\) has none"):
        open_data(config(workshop, "--method", "other"))


def test_networks_are_compiled_where_asked_for_and_not_on_a_cpu() -> None:
    assert make_engine(load_config("demo", ["--runtime.device", "cpu"])).compiler is None
    with pytest.raises(ConfigError, match=r"runtime\.compile is true, but on a CPU it takes minutes and gains nothing"):
        make_engine(load_config("demo", ["--runtime.device", "cpu", "--runtime.compile", "true"]))
