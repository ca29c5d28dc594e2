"""Loading, checking and writing a run's configuration."""

from __future__ import annotations

import ast
import inspect
import re
from importlib.resources import files

import pytest
import yaml

from iccld.config import (
    Config,
    config_parser,
    domains,
    dump_config,
    known_keys,
    load_config,
    parse_size,
    read_config,
    recipe_names,
    require_data,
    schema,
)
from iccld.errors import ConfigError

DATA = ["--source.path", "a", "--source.generate.num", "0", "--target.path", "b", "--target.generate.num", "0"]


def refusal(*overrides: str, recipe: str = "demo") -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(recipe, overrides)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("name", recipe_names())
def test_recipe_loads(name):
    config = load_config(name, DATA)
    assert config.recipe == config.name == name
    require_data(config)


@pytest.mark.parametrize("name", recipe_names())
def test_recipe_opens_with_command_hardware_time_and_score(name):
    text = (files("iccld") / "recipes" / f"{name}.yaml").read_text(encoding="utf-8")
    comment = "".join(line for line in text.splitlines(keepends=True) if line.startswith("#"))
    assert text.startswith("#")
    for word in ("command", "hardware", "time", "score"):
        assert re.search(rf"^# {word}\s+\S", comment, re.MULTILINE), f"{name} does not state its {word}"


def test_the_target_s_truth_goes_with_a_ceiling_and_a_ceiling_with_the_truth():
    assert "ceilings alone" in refusal("--target.truth", "true")
    assert "target.truth true" in refusal("--settings.labels", "truth")
    assert "belongs to target" in refusal("--source.truth", "true")
    assert load_config("demo", ["--target.truth", "true", "--settings.labels", "truth"]).target.truth


@pytest.mark.parametrize("name", recipe_names())
def test_dump_and_load_give_the_same_configuration(name, tmp_path):
    config = load_config(name, [*DATA, "--settings.x", "0.5", "--network.denoiser_widths", "32,64", "--name", "run 7"])
    (tmp_path / "config.yaml").write_text(dump_config(config), encoding="utf-8")
    assert read_config(tmp_path / "config.yaml") == config


def test_dump_holds_every_key():
    def flatten(values, prefix=""):
        nested = {key: value for key, value in values.items() if isinstance(value, dict) and prefix + key != "settings"}
        leaves = [prefix + key for key in values if key not in nested]
        return leaves + [key for name, value in nested.items() for key in flatten(value, f"{prefix}{name}.")]

    assert sorted(flatten(yaml.safe_load(dump_config(load_config("demo"))))) == sorted(known_keys())


def test_a_recipes_settings_are_its_own_methods():
    assert load_config("demo").settings
    assert load_config("demo", ["--method", "iccld"]).settings == load_config("demo").settings
    assert load_config("demo", ["--method", "dacs"]).settings == {}
    assert load_config("demo", ["--method", "dacs", "--settings.threshold", "0.9"]).settings == {"threshold": 0.9}


def test_override_wins_over_recipe_and_only_there():
    plain, changed = load_config("demo"), load_config("demo", ["--stages.step1.iterations=7", "--seed", "3"])
    assert changed.stages["step1"].iterations == 7
    assert changed.seed == 3
    assert changed.stages["source"] == plain.stages["source"]
    assert changed.stages["step1"].learning_rate == plain.stages["step1"].learning_rate


def test_lists_are_comma_separated():
    assert load_config("demo", ["--network.denoiser_widths", "8,16"]).network.denoiser_widths == (8, 16)
    assert load_config("demo", ["--network.denoiser_widths=[8, 16]"]).network.denoiser_widths == (8, 16)


def test_settings_are_left_to_the_method():
    assert load_config("demo", ["--settings.sampler_steps", "5"]).settings["sampler_steps"] == 5


def test_file_with_other_name_is_its_own_recipe(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("seed: 4\n")
    config = load_config(path)
    assert (config.recipe, config.name, config.seed) == ("mine", "mine", 4)


def test_every_key_has_an_option_and_an_explanation():
    actions = {option: action for action in config_parser()._actions for option in action.option_strings}
    for key in known_keys():
        assert actions[f"--{key}"].help, key


def test_every_field_has_a_docstring_under_it():
    for module in (schema, domains):
        for node in ast.parse(inspect.getsource(module)).body:
            if isinstance(node, ast.ClassDef):
                for field, following in zip(node.body, [*node.body[1:], None], strict=True):
                    if isinstance(field, ast.AnnAssign):
                        is_text = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
                        assert is_text, f"{node.name}.{field.target.id} has no docstring"


@pytest.mark.parametrize(("text", "size"), [("192x256", (192, 256)), (" 1 x 2 ", (1, 2)), ("360×480", (360, 480))])
def test_parse_size_reads_height_first(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "192", "192x", "x256", "0x5", "-1x5", "1.5x2", "192x256x3", "192,256"])
def test_parse_size_refuses(text):
    with pytest.raises(ConfigError, match="192x256"):
        parse_size(text)


def test_fault_37_unknown_key_suggests_the_nearest():
    assert "did you mean seed?" in refusal("--sede", "1")
    assert "did you mean stages.step1.learning_rate?" in refusal("--stages.step1.lerning_rate", "1")
    assert "did you mean stages.source.learning_rate?" in refusal("--learning_rates", "1")


def test_fault_37_unknown_key_in_a_file_suggests_the_nearest(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("target: {pth: x}\n")
    message = refusal(recipe=str(path))
    assert "target.pth" in message
    assert "did you mean target.path?" in message
    assert "mine.yaml" in message


def test_fault_37_group_is_no_value():
    assert "source.generate.world" in refusal("--source.generate", "sim")


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("seed", "x", "int"),
        ("seed", "-1", "at least 0"),
        ("seed", "null", "int"),
        ("batch_size", "0", "at least 1"),
        ("stages.step1.iterations", "1.5", "int"),
        ("stages.source.learning_rate", "0", "above 0"),
        ("stages.source.warmup", "5", "0 to 1"),
        ("stages.source.ema_decay", "1.01", "0 to 1"),
        ("augmentation.flip", "2", "0 to 1"),
        ("augmentation.scale_min", ".nan", "above 0"),
        ("augmentation.target_scale_min", "0", "above 0"),
        ("sampling.temperature", "0", "above 0"),
        ("evaluation.compare_steps", "1,7", "divisors of 1000"),
        ("evaluation.window", "half", "192x256"),
        ("evaluation.scales", "0,1", "numbers above 0"),
        ("network.inter_coder", "maybe", "bool"),
        ("network.inter_coder_at", "layer", "level, block"),
        ("network.inter_coder_at", "block", "compact decoder has no second residual block a level, use level"),
        ("network.conditioning", "film", "concat, attention"),
        ("network.preset", "huge", "compact"),
        ("network.denoiser_widths", "12,20", "multiples of 8"),
        ("network.denoiser_patch", "0", "at least 1"),
        ("source.format", "gta", "gta5"),
        ("source.generate.world", "dream", "camera"),
        ("runtime.device", "tpu", "cuda"),
        ("runtime.clip_norm", "0", "above 0"),
        ("size.crop", "big", "192x256"),
        ("name", "a/b", "folder name"),
    ],
)
def test_fault_38_wrong_type_or_range_names_key_value_and_remedy(key, value, says):
    message = refusal(f"--{key}", value)
    assert key in message
    assert says in message


@pytest.mark.parametrize("text", ["source: {generate: {num: null}}", "stages: {step1: {power: }}", "augmentation: {blur_sigma_max: ~}"])
def test_fault_38_null_in_a_file_is_refused_where_a_value_is_needed(text, tmp_path):
    (tmp_path / "mine.yaml").write_text(text)
    message = refusal(recipe=str(tmp_path / "mine.yaml"))
    assert "is null; expected" in message
    (tmp_path / "mine.yaml").write_text("target: {path: null}")
    assert load_config(tmp_path / "mine.yaml").target.path is None


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["--size.crop", "1024x1024"], "larger than source"),
        (["--size.crop", "100x100"], "multiples of 8"),
        (["--target.path", "x"], "target.generate.num"),
        (["--batch_size", "3", "--runtime.devices", "2"], "runtime.devices"),
        (["--augmentation.scale_min", "3"], "scale_max"),
        (["--augmentation.target_scale_max", "0.5"], "target_scale_min"),
        (["--source.holdout", "100000"], "holdout"),
        ([f"--stages.{stage}.iterations=0" for stage in ("source", "step1", "step2")], "0 iterations"),
    ],
)
def test_fault_39_inconsistent_pair_names_both(overrides, says):
    message = refusal(*overrides)
    if says == "target.generate.num":
        assert message.startswith("target.")
        says = "generate.num"
    assert says in message


def test_unknown_recipe_suggests_and_lists():
    message = refusal(recipe="dmo")
    assert "did you mean demo?" in message
    for name in recipe_names():
        assert name in message


@pytest.mark.parametrize("text", ["a: [1", "- 1\n- 2", "just words"])
def test_file_that_is_no_mapping_is_refused(text, tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    assert "bad.yaml" in refusal(recipe=str(path))


def test_missing_data_is_named():
    with pytest.raises(ConfigError, match=r"--target\.path"):
        require_data(load_config("city_to_camvid"))
    with pytest.raises(ConfigError, match=r"--source\.path"):
        require_data(Config(recipe="x", name="x"))


def test_stray_words_and_missing_values_are_refused():
    assert "unexpected argument 'loud'" in refusal("loud")
    assert "no value" in refusal("--seed")


def test_fault_51_a_section_val_without_split_means_val(tmp_path):
    file = tmp_path / "own.yaml"
    file.write_text("val: {path: somewhere}\n")
    assert load_config(file).val.split == "val"
    assert load_config(file, ["--val.split", "train"]).val.split == "train"


def test_one_number_is_a_list_of_one_and_paths_with_commas_stay(tmp_path):
    assert load_config("demo", ["--evaluation.compare_steps", "1"]).evaluation.compare_steps == (1,)
    assert load_config("demo", ["--evaluation.compare_steps=1,50"]).evaluation.compare_steps == (1, 50)
    assert load_config("gta5_to_cityscapes", ["--source.path", "a,b"]).source.path == "a,b"
