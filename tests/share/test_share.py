"""A model as a folder: bit for bit there and back, read by other programs, and nothing hostile in it believed."""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from huggingface_hub.repocard import metadata_load
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import iccld
from iccld.cli import main
from iccld.errors import CheckpointError, ConfigError
from iccld.files import read_json
from iccld.runs import load_predictor
from iccld.share.card import TERMS, _public_command
from iccld.share.names import FILES, public_name


@pytest.fixture
def picture() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (61, 83, 3), dtype=np.uint8)


@pytest.fixture
def copy(shared: Path, tmp_path: Path) -> Path:
    """A shared model to be damaged."""
    return Path(shutil.copytree(shared, tmp_path / "copy"))


def change(folder: Path, edit: Any) -> Path:
    """config.json with a change made to it."""
    file = folder / "config.json"
    content = json.loads(file.read_text())
    edit(content)
    file.write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize("choices", [{}, {"stage": "source", "weights": "model"}, {"stage": "step1", "precision": "bf16"}])
def test_a_model_comes_back_bit_for_bit(choices: dict[str, str], finished: Path, picture: np.ndarray, tmp_path: Path) -> None:
    model = iccld.load(finished, **choices)
    again = iccld.load(model.save_pretrained(tmp_path / "street"))
    before, after = model.predictor.network.state_dict(), again.predictor.network.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[key], after[key]) and before[key].dtype == after[key].dtype for key in before)
    one, other = model.segment(picture), again.segment(picture)
    np.testing.assert_array_equal(one.labels, other.labels)
    np.testing.assert_array_equal(one.confidence, other.confidence)
    assert (again.standing, again.wide, again.names) == (model.standing, model.wide, model.names)
    assert iccld.load(again.save_pretrained(tmp_path / "third")).segment(picture).confidence.tobytes() == one.confidence.tobytes()


def test_what_somebody_asked_of_the_model_is_shared_too(finished: Path, picture: np.ndarray, tmp_path: Path) -> None:
    asked = ["--window", "32x64", "--stride", "16", "--scales", "0.5,1", "--flip", "--size", "64x64", "--sampler_steps", "1"]
    assert main(["share", str(finished), "--out", str(tmp_path / "m"), *asked, "--quiet"]) == 0
    predictor = iccld.load(tmp_path / "m").predictor
    assert (predictor.window, predictor.stride, predictor.scales, predictor.flip) == ((32, 64), 16, (0.5, 1.0), True)
    assert predictor.working_size == (64, 64)
    assert predictor.network.sampler.num_steps == 1  # which the stage's own predictor does not sample in


def test_commands_take_the_folder_as_they_take_the_run(finished: Path, shared: Path, workshop: Any, tmp_path: Path) -> None:
    for name, model in (("run", finished), ("shared", shared)):
        assert main(["predict", str(model), str(workshop.data.val), "--out", str(tmp_path / name), "--write", "train_ids", "--quiet"]) == 0
        assert main(["evaluate", str(model), "--data", str(workshop.data.val), "--json", str(tmp_path / f"{name}.json"), "--quiet"]) == 0
    masks = sorted((tmp_path / "run" / "train_ids").rglob("*.png"))
    assert len(masks) == 2
    for mask in masks:
        other = tmp_path / "shared" / mask.relative_to(tmp_path / "run")
        assert mask.read_bytes() == other.read_bytes()
    run, other = (read_json(tmp_path / f"{name}.json") for name in ("run", "shared"))
    assert {k: v for k, v in run.items() if k != "run"} == {k: v for k, v in other.items() if k != "run"}


def test_safetensors_own_reader_finds_the_weights(finished: Path, shared: Path) -> None:
    expected = load_predictor(finished).network.state_dict()
    with safe_open(shared / "model.safetensors", framework="np") as stored:
        assert stored.metadata() == {"format": "pt"}
        assert sorted(stored.keys()) == sorted(expected)
        for key in stored.keys():  # noqa: SIM118 - it is no mapping
            np.testing.assert_array_equal(stored.get_tensor(key), expected[key].numpy())


def test_transformers_reads_the_classes(finished: Path, shared: Path) -> None:
    from transformers import PretrainedConfig

    config = PretrainedConfig.from_pretrained(shared)
    names = load_predictor(finished).label_space.names
    assert config.id2label == dict(enumerate(names))
    assert config.label2id == {name: number for number, name in enumerate(names)}
    assert config.num_labels == len(names)
    model = iccld.load(shared)
    assert model.id2label == config.id2label
    assert model.label2id == config.label2id
    raw = json.loads((shared / "config.json").read_text())["id2label"]
    assert all(isinstance(key, str) for key in raw)  # JSON has no other keys; `model.id2label` has numbers again


def test_preprocessing_says_what_the_predictor_does(shared: Path) -> None:
    told, predictor = read_json(shared / "preprocessor_config.json"), iccld.load(shared).predictor
    assert (told["image_mean"], told["image_std"]) == (list(predictor.mean), list(predictor.std))
    assert told["rescale_factor"] == pytest.approx(1 / 255)
    assert (told["size_rule"]["area"], told["size_rule"]["multiple"]) == (list(predictor.working_size), predictor.size_multiple)


def test_the_card_is_read_by_the_hubs_reader_and_tells_the_run(finished: Path, shared: Path, workshop: Any) -> None:
    card, summary = ModelCard.load(shared / "README.md"), read_json(finished / "summary.json")
    assert (card.data.library_name, card.data.pipeline_tag) == ("iccld", "image-segmentation")
    assert (card.data.license, card.data.license_name) == ("other", "terms-of-data-and-weights")
    result = card.data.eval_results[0]
    assert (result.metric_type, result.dataset_split) == ("mean_iou", "val")
    assert result.metric_value == round(summary["headline"]["miou"], 2)
    assert metadata_load(shared / "README.md")["model-index"][0]["results"]
    text = card.text
    known = {name: value for name, value in summary["stages"]["step2"]["iou"].items() if value is not None}
    worst = min(known, key=lambda name: known[name])
    for said in (
        *("## Data and weights", "## Scores", "## What fails", "## How it was made"),
        *(TERMS["gta5"], TERMS["cityscapes"], "random weights", "one run, so nothing is known here of the spread", "Seed 0"),
        *(f"{summary['headline']['miou']:.2f}", f"The worst classes are {worst}", "iccld predict FOLDER", "ground truth of 64x96"),
    ):
        assert said in text, said
    if commit := summary["commit"]:
        assert commit in text
    for file in FILES:  # where the data lie is nobody's business
        if (shared / file).suffix in (".json", ".md"):
            content = (shared / file).read_text() if (shared / file).is_file() else ""
            assert str(workshop.root) not in content
            assert str(finished.parent) not in content


def test_a_ceiling_is_marked_wherever_it_is_told(workshop: Any, tmp_path: Path) -> None:
    target = {**workshop.settings["target"], "truth": True}
    assert workshop.adapt("ceiling", {"target": target, "settings": {"labels": "truth"}}, "--no_estimate") == 0
    run = workshop.runs / "ceiling"
    assert read_json(run / "summary.json")["protocol"]["ceiling"] == "learnt from the target's labels"
    text = ModelCard.load(iccld.load(run).save_pretrained(tmp_path / "card") / "README.md").text
    assert "A ceiling, which learnt from the target's own labels" in text
    assert "target, with labels" in text
    assert "without labels" not in text


def test_the_card_of_drawn_scenes_needs_nobodys_leave(finished: Path, tmp_path: Path) -> None:
    import yaml

    run = Path(shutil.copytree(finished, tmp_path / "run"))
    config = yaml.safe_load((run / "config.yaml").read_text())
    for domain in ("source", "target"):
        config[domain] |= {"path": None, "format": "auto", "generate": {**config[domain]["generate"], "num": 4}}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    model = iccld.load(run)
    assert ModelCard.load(model.save_pretrained(tmp_path / "a") / "README.md").data.license == "apache-2.0"
    assert ModelCard.load(model.save_pretrained(tmp_path / "b", licence="cc-by-4.0") / "README.md").data.license == "cc-by-4.0"
    summary = read_json(run / "summary.json")
    for stage in summary["stages"].values():
        stage |= {"miou": None, "iou": None}
    (run / "summary.json").write_text(json.dumps(summary))
    card = ModelCard.load(iccld.load(run).save_pretrained(tmp_path / "c") / "README.md")
    assert card.data.eval_results is None
    assert "no score of the target is known" in card.text
    assert "Which classes fail is not known" in card.text


def test_names_and_commands_lose_this_machines_folders(tmp_path: Path) -> None:
    assert public_name("nvidia/mit-b0@v1") == "nvidia/mit-b0@v1"
    assert public_name("efficientnet-lite0") == "efficientnet-lite0"
    assert public_name(str(tmp_path / "secret" / "mit-b0")) == "mit-b0"
    told = _public_command("iccld adapt --recipe demo --target.path /home/me/pics --val.path=/home/me/labelled --seed 1")
    assert told == "iccld adapt --recipe demo --target.path .../pics --val.path=.../labelled --seed 1"


def test_a_folder_of_other_files_is_refused_and_an_earlier_model_replaced(finished: Path, tmp_path: Path) -> None:
    model = iccld.load(finished)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("mine")
    with pytest.raises(ConfigError, match="holds other files"):
        model.save_pretrained(tmp_path / "notes")
    with pytest.raises(ConfigError, match="is a file"):
        model.save_pretrained(tmp_path / "notes" / "a.txt")
    folder = model.save_pretrained(tmp_path / "m")
    iccld.load(finished, stage="source").save_pretrained(folder)
    assert iccld.load(folder).standing.stage == "source"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m", "notes"]  # nothing half-written beside


class Evil:
    """Unpickling it makes a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return (Path.touch, (self.file,))


def test_a_pickle_is_never_read(copy: Path, tmp_path: Path) -> None:
    (copy / "model.safetensors").unlink()
    (copy / "pytorch_model.bin").write_bytes(pickle.dumps(Evil(tmp_path / "ran")))
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin is a pickle"):
        iccld.load(copy)
    (copy / "model.safetensors").write_bytes((copy / "pytorch_model.bin").read_bytes())
    with pytest.raises(CheckpointError, match="SHA-256"):
        iccld.load(copy)
    digest = hashlib.sha256((copy / "model.safetensors").read_bytes()).hexdigest()
    with pytest.raises(CheckpointError, match="is no safetensors file"):
        iccld.load(change(copy, lambda content: content["iccld"].update(sha256=digest)))
    assert not (tmp_path / "ran").exists()


def larger(content: dict[str, Any]) -> None:
    content["iccld"]["run"]["network"]["decoder_width"] = 4096


HOSTILE = {
    "a method that is code": (lambda c: c["iccld"]["run"].update(method="os.path:join"), "is of method 'os.path:join'"),
    "an unknown setting": (lambda c: c["iccld"]["run"]["settings"].update(evil=1), "evil"),
    "another section": (lambda c: c["iccld"]["run"].update(runtime={"out": "/"}), "does not say how its networks are made"),
    "a huge network": (larger, "describes a network of"),
    "other classes": (lambda c: c["id2label"].update({"0": "sky"}), "name other classes"),
    "a class too many": (lambda c: c["id2label"].update({"19": "moon"}), "name other classes"),
    "no number": (lambda c: c["id2label"].update({"one": "sky"}), "is no config that iccld share wrote"),
    "another format": (lambda c: c["iccld"].update(format=2), "has format 2"),
    "a huge picture": (lambda c: c["iccld"]["predictor"].update(working_size=[10**6, 10**6]), "settings are damaged"),
    "a window of nothing": (lambda c: c["iccld"]["predictor"].update(window=[0, 3]), "settings are damaged"),
    "an unknown stage": (lambda c: c["iccld"]["standing"].update(stage="../../x"), "no network can be made of it"),
    "no standing": (lambda c: c["iccld"].pop("standing"), "is no config that iccld share wrote"),
    "classes that are none": (lambda c: c["iccld"].update(label_space={"name": "x", "classes": 3}), "label space is damaged"),
    "a list": (lambda c: c.update(iccld=[]), "is no config that iccld share wrote"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_config_is_one_line(what: str, copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit, says = HOSTILE[what]
    change(copy, edit)
    with pytest.raises(CheckpointError, match=says.replace(".", r"\.")) as refusal:
        iccld.load(copy)
    assert "\n" not in str(refusal.value)
    before = sorted(tmp_path.rglob("*"))
    assert main(["predict", str(copy), str(copy), "--out", str(tmp_path / "out")]) == 4
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert says in errors[0]
    assert sorted(tmp_path.rglob("*")) == before


def test_weights_of_another_network_are_refused(copy: Path) -> None:
    state = load_file(copy / "model.safetensors")
    key = next(iter(state))
    save_file({**state, "moon": state[key].clone()}, copy / "model.safetensors")
    digest = hashlib.sha256((copy / "model.safetensors").read_bytes()).hexdigest()
    change(copy, lambda content: content["iccld"].update(sha256=digest))
    with pytest.raises(CheckpointError, match="does not fit the network"):
        iccld.load(copy)


@pytest.mark.parametrize("broken", ["", "{", "[" * 20000, '{"iccld": {}}', "\x00"])
def test_a_broken_config_is_one_line(broken: str, copy: Path) -> None:
    (copy / "config.json").write_text(broken)
    with pytest.raises(CheckpointError) as refusal:
        iccld.load(copy)
    assert "\n" not in str(refusal.value)
    (copy / "config.json").write_text("{" + " " * 2**20 + "}")
    with pytest.raises(CheckpointError):
        iccld.load(copy)


def test_other_weights_than_those_that_were_shared_are_refused(shared: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="shared model of stage step2 alone"):
        iccld.load(shared, stage="source")
    with pytest.raises(ConfigError, match="shared model of weights ema alone"):
        iccld.load(shared, weights="model")
    assert main(["predict", str(shared), str(shared), "--out", str(tmp_path / "o"), "--sampler_steps", "2"]) == 2
    assert "whose steps are fixed" in capsys.readouterr().err


def test_a_method_of_another_package_is_refused_before_anything_is_written(finished: Path, tmp_path: Path) -> None:
    model = iccld.load(finished)
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    text = (run / "config.yaml").read_text().replace("method: iccld\n", "method: some.package:NAME\n")
    (run / "config.yaml").write_text(text)
    model.run = run
    with pytest.raises(ConfigError, match="has no name that others could load"):
        model.save_pretrained(tmp_path / "m")
    assert not (tmp_path / "m").exists()
