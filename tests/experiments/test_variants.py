"""Configurations of an experiment's runs: budgets shared out exactly, schedules and settings taken over, sources shared."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from iccld.assembly.chosen import method_settings
from iccld.assembly.networks import build_networks
from iccld.config import NetworkConfig, dump_config, load_config
from iccld.errors import ConfigError
from iccld.experiments.plan import Planned, units_of
from iccld.experiments.state import State
from iccld.experiments.units import is_finished
from iccld.experiments.variants import (
    MATCH,
    adaptation_run,
    after_source,
    matched_network,
    shared_out,
    source_run,
    to_train,
    with_iterations,
    with_method,
)
from iccld.files import write_json
from iccld.labels import get_label_space
from iccld.methods import METHODS


def test_shares_sum_to_the_total() -> None:
    assert shared_out(360, {"step1": 300.0, "step2": 60.0}) == {"step1": 300, "step2": 60}
    assert shared_out(10, {"a": 1.0, "b": 1.0, "c": 1.0}) == {"a": 4, "b": 3, "c": 3}
    assert shared_out(7, {"a": 0.8, "b": 0.2}) == {"a": 6, "b": 1}
    assert shared_out(1, {"a": 0.5, "b": 0.5}) == {"a": 1, "b": 0}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("budget", [7, 360, 1001])
def test_every_method_gets_the_whole_budget(method: str, budget: int) -> None:
    config = with_method(load_config("demo"), method, budget)
    assert sum(after_source(config).values()) == budget
    assert config.total_iterations == budget + config.stages["source"].iterations
    assert config.stages["source"] == load_config("demo").stages["source"]


def test_the_recipes_own_method_keeps_proportions_schedules_and_settings() -> None:
    recipe = load_config("demo")
    own = after_source(recipe)
    assert with_method(recipe, "iccld", sum(own.values())) == recipe
    twice = with_method(recipe, "iccld", 2 * sum(own.values()))
    assert after_source(twice) == {name: 2 * iterations for name, iterations in own.items()}
    assert twice.stages["step2"].learning_rate == recipe.stages["step2"].learning_rate


@pytest.mark.parametrize("method", ["hrda", "cluda"])
def test_hrdas_context_has_the_working_resolution_on_recipes_made_for_others(method: str) -> None:
    config = with_method(load_config("demo"), method, 360)
    assert config.settings == {"enlarge": 2}
    assert method_settings(config).enlarge == 2
    own = load_config(f"gta5_to_cityscapes_{method}")  # its pictures have the pixels: 1024x2048
    assert with_method(own, method, 40_000).settings == own.settings
    assert method_settings(own).enlarge == 1


def test_another_method_takes_the_first_schedule_and_keeps_its_own_settings() -> None:
    recipe = replace(load_config("demo"), settings={"threshold": 0.7, "sampler_steps": 5})
    config = with_method(recipe, "dacs", 360)
    assert config.stages["adapt"] == replace(recipe.stages["step1"], iterations=360)
    assert config.settings == {}
    assert method_settings(config).threshold == 0.968
    with pytest.raises(ConfigError, match="at least 1"):
        with_method(recipe, "source_only", 0)


def test_runs_of_one_recipe_share_the_source_of_their_network_and_seed(tmp_path: Path) -> None:
    recipe = load_config("demo")
    source = source_run(recipe, tmp_path / "source")
    assert (source.method, source.settings, after_source(source)) == ("source_only", {}, {})
    assert source_run(with_method(recipe, "source_only", 99), tmp_path / "source") == source
    longer = with_iterations(recipe, {"step1": 360})
    assert source_run(longer, tmp_path / "source") == source
    assert after_source(longer) == {"step1": 360}
    assert source_run(replace(recipe, seed=1), tmp_path / "source").name != source.name
    run = adaptation_run(longer, tmp_path / "runs", "with-0", tmp_path / "source" / source.name)
    assert (run.name, run.runtime.out, run.runtime.resume) == ("with-0", str(tmp_path / "runs"), "auto")
    assert run.source_checkpoint == str(tmp_path / "source" / source.name)


@pytest.mark.parametrize("classes", ["cityscapes19", "camvid11"])
def test_the_matched_network_has_the_parameters_and_no_connection(classes: str) -> None:
    recipe = replace(load_config("demo"), label_space=classes)
    num_classes = get_label_space(classes).num_classes

    def num_parameters(network: NetworkConfig) -> int:
        return sum(parameter.numel() for parameter in build_networks(network, num_classes).make_segmenter().parameters())

    wanted = num_parameters(recipe.network)
    matched = matched_network(recipe)
    assert not matched.inter_coder
    assert matched == replace(recipe.network, inter_coder=False, decoder_width=matched.decoder_width)
    off = abs(num_parameters(matched) - wanted)
    assert off <= MATCH * wanted
    for width in (matched.decoder_width - 1, matched.decoder_width + 1):  # neighbours are no nearer
        assert abs(num_parameters(replace(matched, decoder_width=width)) - wanted) >= off
    assert matched_network(replace(recipe, network=matched)) == matched_network(replace(recipe, network=replace(matched, inter_coder=True)))


def test_a_decoder_without_a_width_cannot_be_matched() -> None:
    recipe = replace(load_config("demo"), network=NetworkConfig(preset="ldm"))
    with pytest.raises(ConfigError, match="use --networks without,with"):
        matched_network(recipe)


def test_a_finished_run_of_other_settings_is_no_row_of_this_experiment(tmp_path: Path) -> None:
    """As HRDA's runs were before `compare` gave it a larger context: their score under today's name would be wrong in silence."""
    config = replace(with_method(load_config("demo"), "hrda", 6), name="hrda-0")
    config = replace(config, runtime=replace(config.runtime, out=str(tmp_path)))
    run, planned = tmp_path / "hrda-0", Planned(config, "hrda, seed 0", "hrda")
    state = State(tmp_path, "compare", config, {})
    write_json(run / "summary.json", {"stages": {stage: {"iterations": count} for stage, count in to_train(config).items()}})
    (run / "config.yaml").write_text(dump_config(replace(config, settings={})))
    with pytest.raises(ConfigError, match=r"hrda-0 was trained with another settings\.enlarge: None there, 2 now; remove that folder"):
        units_of([planned], state, False, 1)
    (run / "config.yaml").write_text(dump_config(config))
    assert is_finished(*units_of([planned], state, False, 1))
    (run / "config.yaml").write_text(dump_config(replace(config, settings={})))
    (run / "summary.json").unlink()  # one that is not finished is asked by `iccld adapt --resume auto`, which compares everything
    assert len(units_of([planned], state, False, 1)) == 1
