"""Adapters beside a run: the run stays bit for bit, they do not disturb each other, and half of one is never found."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import Dinov2Config, Dinov2Model

import iccld
from iccld.city import generate
from iccld.cli import main
from iccld.errors import CheckpointError, IccldError
from iccld.methods.common.without_encoder import WithoutEncoder, without_encoder
from iccld.runs import load_predictor, load_with_standing
from iccld.runs.adapter_folder import adapter_names, find_adapter, unfinished_names

QUICK = ("--stages.step2.iterations", "2")


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of a new target."""
    return generate("night", "folder", 4, (64, 96), 7, tmp_path_factory.mktemp("night") / "night", 1)


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A run of one's own, and beside it nothing."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


@pytest.fixture(scope="module")
def adapted(finished: Path, night: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with the adapter `night`, scored on its own target; nothing may be trained into it."""
    run = Path(shutil.copytree(finished, tmp_path_factory.mktemp("adapted") / "run"))
    assert adapt(run, "night", night, "--val.path", str(night)) == 0
    return run


def adapt(run: Path, name: str, target: Path, *more: str) -> int:
    return main(["adapt", "--from", str(run), "--adapter", name, "--target.path", str(target), "--stages", "step2", *QUICK, *more])


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of a folder, adapters left out."""
    files = [path for path in folder.rglob("*") if path.is_file() and "adapters" not in path.relative_to(folder).parts]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def picture() -> torch.Tensor:
    return torch.randint(0, 256, (1, 3, 64, 96), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_the_run_stays_as_it_is_and_the_adapter_answers_otherwise(finished: Path, adapted: Path) -> None:
    assert digests(adapted) == digests(finished)
    with torch.no_grad():
        before, after = (load_predictor(each, device="cpu")(picture()) for each in (finished, adapted))
        other = iccld.load(adapted, adapter="night", device="cpu").predictor
        assert torch.equal(before, after)
        assert not torch.equal(after, other(picture()))
    own = load_predictor(adapted, device="cpu").network.state_dict()
    for key, tensor in other.network.state_dict().items():
        if key.startswith("encoder."):
            assert torch.equal(tensor, own[key])
    moved = [key for key, tensor in other.network.state_dict().items() if key.startswith("decoder.") and not torch.equal(tensor, own[key])]
    assert moved


def test_an_adapter_holds_no_encoder_and_says_what_it_belongs_to(adapted: Path, night: Path) -> None:
    folder = adapted / "adapters" / "night"
    assert not [key for key in load_file(folder / "adapter.safetensors") if key.startswith("encoder.")]
    about = json.loads((folder / "adapter.json").read_text())
    manifest = json.loads((max((adapted / "checkpoints" / "step2").iterdir()) / "manifest.json").read_text())
    assert about["base"] == {"stage": "step2", "iteration": 3, "weights": "ema", "sha256": manifest["files"]["ema.safetensors"]["sha256"]}
    assert about["target"] == str(night)
    assert about["iterations"] == 2
    assert sorted(path.name for path in (adapted / "adapters").iterdir()) == ["night"]


def test_what_is_scored_is_what_is_read_back(adapted: Path, night: Path, tmp_path: Path) -> None:
    summary = json.loads((adapted / "adapters" / "night" / "summary.json").read_text())
    for adapter, stage, expected in (("night", None, summary["headline"]["miou"]), (None, "step2", summary["base"]["miou"])):
        flags = ["--adapter", adapter] if adapter else ["--stage", str(stage)]
        out = tmp_path / f"{adapter}.json"
        assert main(["evaluate", str(adapted), "--data", str(night), "--json", str(out), *flags]) == 0
        told = json.loads(out.read_text())
        assert told["miou"] == pytest.approx(expected, abs=1e-9)
        assert told.get("adapter") == adapter
    assert main(["predict", str(adapted), str(night / "images"), "--out", str(tmp_path / "masks"), "--adapter", "night"]) == 0
    assert len(list((tmp_path / "masks").rglob("*.png"))) > 0


def test_predictions_of_the_run_are_not_taken_for_the_adapters(
    adapted: Path, night: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = sorted((night / "images").iterdir())[0]
    command = ["predict", str(adapted), str(first), "--out", str(tmp_path / "masks")]
    for flags, done in (([], 1), ([], 0), (["--adapter", "night"], 1), (["--adapter", "night"], 0)):
        capsys.readouterr()
        assert main([*command, *flags]) == 0
        assert f"{done} predicted, {1 - done} done before" in capsys.readouterr().err


def test_several_adapters_leave_each_other_alone(adapted: Path, night: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Path(shutil.copytree(adapted, tmp_path / "run"))
    before = digests(run / "adapters" / "night")
    assert adapt(run, "fog", night, "--seed", "3") == 0
    assert digests(run / "adapters" / "night") == before
    names = iccld.Run(run).adapters
    assert names == ["fog", "night"]
    answers = [load_with_standing(run, device="cpu", adapter=name)[0](picture()) for name in names]
    assert not torch.equal(*answers)
    capsys.readouterr()
    assert main(["adapters", str(run), "--json", "-"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [(each["name"], each["iterations"], each["target"]) for each in listed] == [(name, 2, str(night)) for name in names]
    assert listed[0]["miou"] is None
    assert listed[1]["miou"] > 0
    assert main(["adapters", str(run), "--remove", "fog"]) == 0
    assert iccld.Run(run).adapters == ["night"]
    assert digests(run / "adapters" / "night") == before
    assert main(["adapters", str(run), "--remove", "night"]) == 0
    assert not (run / "adapters").exists()


def test_an_interrupted_training_leaves_no_adapter_and_goes_on_bit_for_bit(
    run: Path, night: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert adapt(run, "straight", night) == 0
    plain = WithoutEncoder.step

    def step(self: WithoutEncoder, batch: Any, iteration: int, draw: Any) -> Any:
        if iteration == 1:
            raise IccldError("struck by lightning")
        return plain(self, batch, iteration, draw)

    with monkeypatch.context() as patch:
        patch.setattr(WithoutEncoder, "step", step)
        assert adapt(run, "night", night, "--runtime.checkpoint_every", "1") == 1
    assert adapter_names(run) == ["straight"]
    assert unfinished_names(run) == ["night"]
    with pytest.raises(CheckpointError, match="not finished; go on"):
        find_adapter(run, "night")
    capsys.readouterr()
    assert adapt(run, "night", night) == 2
    assert "was begun; go on with --resume auto" in capsys.readouterr().err
    assert adapt(run, "night", night, "--resume", "auto", "--runtime.checkpoint_every", "1") == 0
    assert unfinished_names(run) == []
    one, two = (load_file(run / "adapters" / name / "adapter.safetensors") for name in ("straight", "night"))
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert adapt(run, "night", night, "--resume", "auto") == 0  # nothing is left to do
    assert "adapter night is finished" in capsys.readouterr().err


def test_an_adapter_is_replaced_only_by_a_whole_one(run: Path, night: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert adapt(run, "night", night) == 0
    before = digests(run / "adapters" / "night")
    assert adapt(run, "night", night) == 2
    with monkeypatch.context() as patch:
        patch.setattr("iccld.runs.adapter.save_file", _fail)
        with pytest.raises(RuntimeError):
            adapt(run, "night", night, "--overwrite", "--seed", "1")
    assert digests(run / "adapters" / "night") == before
    assert adapt(run, "night", night, "--overwrite", "--seed", "1") == 0
    assert digests(run / "adapters" / "night")["adapter.safetensors"] != before["adapter.safetensors"]
    assert sorted(path.name for path in (run / "adapters").iterdir()) == ["night"]


def _fail(*_: Any) -> None:
    raise RuntimeError("the disk is on fire")


def test_an_adapter_of_other_weights_is_refused(adapted: Path, workshop: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stages = {"stages": {"source": {"iterations": 1}, "step1": {"iterations": 1}, "step2": {"iterations": 3}}, "seed": 5}
    assert workshop.adapt("retrained", stages, "--no_estimate") == 0
    shutil.copytree(adapted / "adapters", workshop.runs / "retrained" / "adapters")
    capsys.readouterr()
    assert (
        main(["predict", str(workshop.runs / "retrained"), str(workshop.data.val), "--out", str(tmp_path / "x"), "--adapter", "night"]) == 4
    )
    assert "adapter 'night'" in (told := capsys.readouterr().err)
    assert "belongs to other weights" in told
    assert not (tmp_path / "x").exists()


def test_a_damaged_adapter_is_told_and_leaves_the_others_usable(adapted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Path(shutil.copytree(adapted, tmp_path / "run"))
    shutil.copytree(run / "adapters" / "night", run / "adapters" / "bad")
    weights = bytearray((run / "adapters" / "bad" / "adapter.safetensors").read_bytes())
    weights[-1] ^= 1
    (run / "adapters" / "bad" / "adapter.safetensors").write_bytes(weights)
    with pytest.raises(CheckpointError, match="SHA-256"):
        iccld.load(run, adapter="bad")
    iccld.load(run, adapter="night")
    (run / "adapters" / "bad" / "adapter.json").write_text("{")
    capsys.readouterr()
    assert main(["adapters", str(run)]) == 4
    told = capsys.readouterr()
    assert "night" in told.out
    assert "--remove bad" in told.err
    assert main(["adapters", str(run), "--remove", "bad"]) == 0
    assert iccld.Run(run).adapters == ["night"]


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (["--adapter", "../night", "--target.path", "NIGHT"], 2, "no plain file name"),
        (["--adapter", "night"], 2, "an adapter needs pictures of the new target: add --target.path"),
        (["--target.path", "NIGHT"], 2, "name the adapter"),
        (["--adapter", "night", "--target.path", "nowhere"], 3, "nowhere"),
        (["--adapter", "night", "--target.path", "EMPTY"], 3, "EMPTY"),
        (["--adapter", "night", "--target.path", "NIGHT", "--stages", "step1"], 2, "trained by step2"),
        (["--adapter", "night", "--target.path", "NIGHT", "--stages.step1.iterations", "5"], 2, "stage step2 alone"),
        (
            ["--adapter", "night", "--target.path", "NIGHT", "--network.decoder_width", "8"],
            2,
            "network.decoder_width belongs to the weights",
        ),
        (["--adapter", "night", "--target.path", "NIGHT", "--method", "dacs"], 2, "leave --method out"),
        (["--adapter", "night", "--target.path", "NIGHT", "--name", "x"], 2, "--name belongs to a run of its own"),
        (["--adapter", "night", "--target.path", "NIGHT", "--stage", "step3"], 4, "no checkpoint of stage 'step3'"),
        (["--adapter", "night", "--target.path", "NIGHT", "--settings.train_encoder", "true"], 2, "train_encoder"),
        (["--adapter", "night", "--target.path", "NIGHT", "--target.truth", "true", "--settings.labels", "truth"], 2, "target.truth would"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line_and_leaves_nothing(
    arguments: list[str], code: int, line: str, finished: Path, night: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "EMPTY").mkdir()
    words = [str(night) if word == "NIGHT" else str(tmp_path / word) if word == "EMPTY" else word for word in arguments]
    assert main(["adapt", "--from", str(finished), *words, "--quiet"]) == code
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert line in told
    assert not (finished / "adapters").exists()


def test_an_unknown_adapter_names_the_known(adapted: Path, finished: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no adapter 'nigt' \(did you mean night\?\); it has night"):
        iccld.load(adapted, adapter="nigt")
    with pytest.raises(CheckpointError, match="it has none"):
        iccld.load(finished, adapter="night")
    with pytest.raises(IccldError, match="names its stage itself; leave step1 out"):
        iccld.load(adapted, adapter="night", stage="step1")
    assert main(["adapters", str(adapted), "--remove", "fog"]) == 4
    assert main(["adapters", str(tmp_path)]) == 4
    assert main(["adapt", "--adapter", "night", "--recipe", "demo"]) == 2


@pytest.mark.usefixtures("no_estimate")
def test_runs_of_other_methods_take_adapters_and_two_resolutions_do_not(
    workshop: Any, night: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stages = {"stages": {"source": {"iterations": 1}, "adapt": {"iterations": 1}}, "evaluation": {"num_pictures": 0}, "val": {}}
    for method in ("source_only", "dacs", "hrda"):
        own = {"settings": {"enlarge": 1}} if method == "hrda" else {}
        assert workshop.adapt(f"from_{method}", {"method": method, **stages, **own}) == 0
    for method in ("source_only", "dacs"):
        run = workshop.runs / f"from_{method}"
        assert adapt(run, "night", night) == 0
        assert iccld.load(run, adapter="night").predictor(picture()).shape == (1, 19, 64, 96)
    capsys.readouterr()
    assert adapt(workshop.runs / "from_hrda", "night", night) == 4
    assert "which stage adapt (TwoResolutions) lacks; start from another with --stage, of source" in capsys.readouterr().err


@pytest.mark.usefixtures("no_estimate")
def test_a_foundation_encoder_stays_as_it_came_and_is_read_without_its_folder(workshop: Any, night: Path, tmp_path: Path) -> None:
    folder = tmp_path / "dino"
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "mlp_ratio": 2}
    Dinov2Model(Dinov2Config(**sizes, image_size=56, patch_size=14)).save_pretrained(folder)
    changes = {
        "method": "source_only",
        "network": {**workshop.settings["network"], "encoder": str(folder), "encoder_training": "frozen"},
        "stages": {"source": {"iterations": 2}},
        "evaluation": {"num_pictures": 0},
        "val": {},
    }
    assert workshop.adapt("foundation", changes) == 0
    given = load_file(folder / "model.safetensors")
    shutil.rmtree(folder)
    run = workshop.runs / "foundation"
    assert adapt(run, "night", night) == 0
    state = iccld.load(run, adapter="night", device="cpu").predictor.network.state_dict()
    key = "encoder.layer.1.mlp.fc1.weight"
    assert torch.equal(state[f"encoder.backbone.model.{key}"], given[key])
    assert find_adapter(run, "night").num_bytes < 70e3


def test_from_python(run: Path, night: Path) -> None:
    model = iccld.Run(run).adapt("night", night, stages={"step2": {"iterations": 2}})
    assert model.segment(sorted((night / "images").iterdir())[0]).labels.shape == (64, 96)
    assert iccld.Run(run).adapters == ["night"]


def test_parts_that_would_be_lost_are_refused() -> None:
    network = nn.Module()
    network.encoder, network.decoder = nn.Linear(1, 1), nn.Linear(1, 1)
    assert without_encoder({"segmenter": network, "judge": nn.Linear(2, 2)}).keys() == {"decoder", "judge"}
    with pytest.raises(TypeError, match="share a name"):
        without_encoder({"segmenter": network, "decoder": nn.Linear(2, 2)})
    network.loose = nn.Parameter(torch.zeros(1))
    with pytest.raises(TypeError, match="segmenter holds loose outside"):
        without_encoder({"segmenter": network})
