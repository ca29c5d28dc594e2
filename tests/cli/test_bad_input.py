"""Bad input through the command: one clear line each, the exit code of its kind, and never a traceback."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from iccld.cli import main


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ICCLD_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path):
    """A sound dataset of three labelled pictures in folder layout."""
    root = tmp_path / "data"
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(3):
        Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)).save(root / "images" / f"{i}.png")
        Image.fromarray(rng.integers(0, 2, (24, 32), dtype=np.uint8)).save(root / "masks" / f"{i}.png")
    (root / "dataset.yaml").write_text("classes: [{name: road, ids: [0]}, {name: sky, ids: [1]}]\nignore_ids: [255]\n")
    return root


def refused(capsys, *arguments):
    """Exit code and the one error line of a command."""
    code = main([str(argument) for argument in arguments])
    lines = capsys.readouterr().err.splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    assert not any("Traceback" in line for line in lines)
    assert len(errors) == 1, lines
    return code, errors[0]


def checked(capsys, root):
    return refused(capsys, "data", "check", "--data", root, "--format", "folder", "--quiet")


def test_sound_folder_passes(capsys, folder):
    assert main(["data", "check", "--data", str(folder), "--format", "folder"]) == 0
    assert "error" not in capsys.readouterr().err


def test_missing_folder(capsys, tmp_path):
    code, line = checked(capsys, tmp_path / "nowhere")
    assert code == 3
    assert "nowhere" in line


def test_fault_28_empty_folder(capsys, tmp_path):
    (tmp_path / "void").mkdir()
    code, line = checked(capsys, tmp_path / "void")
    assert code == 3
    assert "void" in line


@pytest.mark.parametrize("lonely", ["images/lonely.png", "masks/lonely.png"])
def test_fault_28_unpaired_file(capsys, folder, lonely):
    (folder / lonely).write_bytes((folder / lonely).with_name("0.png").read_bytes())
    code, line = checked(capsys, folder)
    assert code == 3
    assert "lonely" in line


def test_fault_27_wrong_id(capsys, folder):
    Image.fromarray(np.full((24, 32), 77, dtype=np.uint8)).save(folder / "masks" / "1.png")
    code, line = checked(capsys, folder)
    assert code == 3
    assert "77" in line
    assert "1.png" in line


@pytest.mark.parametrize("kind", ["images", "masks"])
def test_fault_25_truncated_png(capsys, folder, kind):
    path = folder / kind / "2.png"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    code, line = checked(capsys, folder)
    assert code == 3
    assert str(path) in line


def test_noise_named_png(capsys, folder):
    path = folder / "images" / "0.png"
    path.write_bytes(np.random.default_rng(1).bytes(500))
    code, line = checked(capsys, folder)
    assert code == 3
    assert str(path) in line


def test_fault_29_wrong_mapping_shows_unknown_ids_and_absent_classes(capsys, folder):
    """Ids of the data that the YAML does not know, and classes of the YAML that the data does not have."""
    (folder / "dataset.yaml").write_text("classes: [{name: road, ids: [0]}, {name: sky, ids: [10]}, {name: car, ids: [26]}]\n")
    assert main(["data", "check", "--data", str(folder), "--quiet"]) == 3
    told = capsys.readouterr()
    assert sum("unknown label value 1 (" in line and "known here are 0, 10, 26" in line for line in told.err.splitlines()) == 3
    (folder / "dataset.yaml").write_text("classes: [{name: road, ids: [0, 1]}, {name: sky, ids: [10]}, {name: car, ids: [26]}]\n")
    assert main(["data", "check", "--data", str(folder), "--quiet"]) == 0
    assert "in no picture: sky, car" in " ".join(capsys.readouterr().out.split())


def test_every_problem_is_told(capsys, folder):
    for i in range(2):
        (folder / "images" / f"{i}.png").write_bytes(b"noise")
    assert main(["data", "check", "--data", str(folder), "--quiet"]) == 3
    assert sum(line.startswith("error: ") for line in capsys.readouterr().err.splitlines()) == 2


def test_key_typo(capsys):
    code, line = refused(capsys, "adapt", "--recipe", "demo", "--stages.step1.iteration", "5")
    assert code == 2
    assert "did you mean stages.step1.iterations?" in line


def test_unknown_recipe(capsys):
    code, line = refused(capsys, "adapt", "--recipe", "city_to_camvit")
    assert code == 2
    assert "did you mean city_to_camvid?" in line


def test_folder_that_is_no_run(capsys, folder, tmp_path):
    code, line = refused(capsys, "evaluate", tmp_path, "--data", folder)
    assert code == 4
    assert "no run" in line


@pytest.mark.parametrize("command", ["evaluate", "predict"])
def test_run_without_checkpoint(capsys, folder, tmp_path, command):
    run = tmp_path / "run"
    (run / "checkpoints" / "source" / "00000010").mkdir(parents=True)
    (run / "config.yaml").write_text("seed: 0\n")
    rest = ["--data", folder] if command == "evaluate" else [folder, "--out", tmp_path / "out"]
    code, line = refused(capsys, command, run, *rest)
    assert code == 4
    assert "no complete checkpoint" in line


def test_report_of_no_run(capsys, tmp_path):
    code, line = refused(capsys, "report", tmp_path)
    assert code == 4
    assert str(tmp_path) in line


def test_existing_run_is_refused(capsys, tmp_path, folder):
    (tmp_path / "runs" / "demo").mkdir(parents=True)
    (tmp_path / "runs" / "demo" / "config.yaml").write_text("seed: 0\n")
    code, line = refused(capsys, "adapt", "--recipe", "demo", "--runtime.out", tmp_path / "runs")
    assert code == 2
    assert "--resume auto" in line


def test_fault_11_unwritable_output(capsys, tmp_path):
    (tmp_path / "file").write_text("")
    code, line = refused(capsys, "adapt", "--recipe", "demo", "--runtime.out", tmp_path / "file" / "runs")
    assert code == 2
    assert "writable" in line


def test_missing_target(capsys):
    code, line = refused(capsys, "adapt", "--recipe", "city_to_camvid")
    assert code == 2
    assert "--target.path" in line


def test_predictions_of_another_size(capsys, folder, tmp_path):
    masks = tmp_path / "predicted"
    masks.mkdir()
    for i in range(3):
        Image.fromarray(np.ones((5, 7), dtype=np.uint8)).save(masks / f"{i}.png")
    space = tmp_path / "space.yaml"
    space.write_text("name: two\nclasses: [{name: road}, {name: sky}]\n")
    code, line = refused(capsys, "evaluate", "--predictions", masks, "--data", folder, "--label_space", space, "--quiet")
    assert code == 3
    assert "0.png" in line


def test_no_recipe_lists_the_three_that_matter_first(capsys):
    code, line = refused(capsys, "adapt")
    assert code == 2
    assert line.startswith("error: name a recipe: --recipe demo or --recipe own_to_own or --recipe gta5_to_cityscapes (")
