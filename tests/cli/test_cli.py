"""The command: parsing, exit codes, what it prints, and that it starts without PyTorch."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from importlib.metadata import version
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from iccld import __version__, cli
from iccld.cli import main
from iccld.cli import parser as cli_parser
from iccld.cli.evaluate import fold
from iccld.config import dump_config, load_config
from iccld.errors import CheckpointError, ConfigError, DataError, NumericError, Preempted
from iccld.evaluation import Confusion
from iccld.labels import CAMVID11, CITYSCAPES19, LabelClass, LabelSpace

COMMANDS = ("demo", "adapt", "ablate", "compare", "evaluate", "predict", "report", "data", "doctor")


def run_python(code, *arguments):
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    "code",
    [
        "import iccld",
        "import iccld.config, iccld.labels, iccld.progress",
        "from iccld.cli import main; main(['adapt', '--recipe', 'demo', '--print_config'])",
        "from iccld.cli import main; main(['data', 'check', '--data', sys.argv[1], '--label_space', 'camvid11'])",
        "from iccld.cli import main; main('data generate --world sim --layout gta5 --num 1 --size 48x64 --out'.split() + [sys.argv[2]])",
        "from iccld.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass",
    ],
)
def test_starts_without_torch(code, tmp_path):
    (tmp_path / "images").mkdir()
    Image.fromarray(np.zeros((16, 16, 3), dtype=np.uint8)).save(tmp_path / "images" / "a.png")
    told = run_python(f"import sys\n{code}\nprint('torch is', 'torch' in sys.modules)", str(tmp_path), str(tmp_path / "scenes"))
    assert told.stdout.splitlines()[-1:] == ["torch is False"], told.stderr


@pytest.mark.parametrize("command", [(), *((name,) for name in COMMANDS), ("data", "generate"), ("data", "check")])
def test_help_is_shown(command, capsys):
    with pytest.raises(SystemExit) as ended:
        main([*command, "--help"])
    assert ended.value.code == 0
    assert "usage: iccld" in capsys.readouterr().out


def test_help_names_every_command(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    shown = capsys.readouterr().out
    assert all(name in shown for name in COMMANDS)


def test_version(capsys):
    with pytest.raises(SystemExit):
        main(["--version"])
    first, second, third = capsys.readouterr().out.splitlines()
    assert first == f"iccld {__version__}"
    assert f"Python {platform.python_version()}" in second
    assert f"torch {version('torch')}" in second
    assert "iccld doctor --markdown" in third


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("adap", "did you mean adapt?"),
        ("", "COMMAND"),
        ("doctor --jsn x", "did you mean --json?"),
        ("data check --dta x", "did you mean --data?"),
        ("data generate --world simm", "sim"),
        ("data generate --world sim --layout gta5 --num 0 --out x", "at least 1"),
        ("data generate --world sim --layout gta5 --num 2 --size 5 --out x", "192x256"),
        ("report a b", "unexpected argument 'b'"),
        ("adapt", "--recipe"),
        ("adapt --recipe demo --config x.yaml", "not allowed"),
        ("evaluate --data x", "--predictions"),
        ("evaluate run --predictions masks --data x", "not both"),
        ("evaluate --predictions masks", "with --data PATH"),
        ("evaluate --predictions masks --data x --stage step1", "--stage"),
    ],
)
def test_wrong_arguments_are_one_line_and_exit_2(arguments, says, capsys):
    assert main(arguments.split()) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert says in lines[0]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("x"), 2),
        (DataError("x"), 3),
        (CheckpointError("x"), 4),
        (NumericError("two\n  lines"), 5),
        (Preempted("x"), 75),
        (KeyboardInterrupt(), 130),
        (OSError(28, "No space left on device", "/x"), 3),
    ],
)
def test_faults_have_their_exit_codes(error, code, capsys, monkeypatch):
    def fail(arguments, rest):
        raise error

    monkeypatch.setattr(cli_parser, "parse", lambda argv: (fail, SimpleNamespace(), []))
    assert main([]) == code
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_unforeseen_faults_keep_their_traceback(monkeypatch):
    def fail(arguments, rest):
        raise RuntimeError("a bug")

    monkeypatch.setattr(cli_parser, "parse", lambda argv: (fail, SimpleNamespace(), []))
    with pytest.raises(RuntimeError, match="a bug"):
        main([])


def test_mismatched_torchvision_is_one_line(capsys, monkeypatch):
    def fail(arguments, rest):
        try:
            raise RuntimeError("operator torchvision::nms does not exist")
        except RuntimeError as error:
            raise ImportError("Failed to import diffusers.models") from error

    monkeypatch.setattr(cli_parser, "parse", lambda argv: (fail, SimpleNamespace(), []))
    assert main([]) == 2
    assert "pip uninstall torchvision" in capsys.readouterr().err


def test_print_config_resolves_the_overrides(capsys, tmp_path):
    assert main(["demo", "--out", str(tmp_path / "runs" / "mine"), "--seed", "5", "--print_config"]) == 0
    told = capsys.readouterr().out
    own = ["--runtime.out", str(tmp_path / "runs"), "--name", "mine", "--runtime.resume", "auto", "--seed", "5"]
    assert told == dump_config(load_config("demo", own))


def test_print_config_can_be_read_back(capsys, tmp_path):
    main(["adapt", "--recipe", "demo", "--name", "other", "--print_config"])
    path = tmp_path / "told.yaml"
    path.write_text(capsys.readouterr().out)
    assert load_config(path) == load_config("demo", ["--name", "other"])


def test_help_settings_lists_the_keys(capsys):
    assert main(["adapt", "--help_settings"]) == 0
    assert "--stages.step1.learning_rate" in capsys.readouterr().out


def test_adapt_estimates_then_trains_then_reports(capsys, monkeypatch, tmp_path):
    calls = []
    told = {"seconds": 300.0, "memory_gib": 1.5, "disk_gib": 0.25}
    measure = SimpleNamespace(estimate=lambda config: calls.append("estimate") or told)
    runs = SimpleNamespace(adapt=lambda config, on_stage: calls.append("adapt") or tmp_path / config.runtime.out / config.name)
    report = SimpleNamespace(write_report=lambda run: calls.append("report") or run / "report.html")
    for name, room in {"measure": measure, "runs": runs}.items():
        monkeypatch.setattr(f"iccld.{name}", room, raising=False)
        monkeypatch.setitem(sys.modules, f"iccld.{name}", room)
    monkeypatch.setitem(sys.modules, "iccld.report", report)
    assert main(["adapt", "--recipe", "demo", "--name", "r", "--runtime.out", str(tmp_path)]) == 0
    told = capsys.readouterr()
    assert calls == ["estimate", "adapt", "report"]
    assert told.out.strip() == str(tmp_path / "r" / "report.html")
    assert "5m00s" in told.err
    assert "1.5 GiB of memory" in told.err


def test_fold_absorbs_rows_and_columns():
    """Against a brute-force confusion of absorbed labels."""
    rng = np.random.default_rng(0)
    truth, prediction = rng.integers(0, 19, (2, 40, 50), dtype=np.uint8)
    truth[:5] = 255
    fine, coarse = Confusion(19), Confusion(11)
    fine.update(truth, prediction)
    table, _ = CAMVID11.absorption(CITYSCAPES19.names)
    coarse.update(table[truth], table[prediction])
    folded = fold(fine, CITYSCAPES19, CAMVID11)
    np.testing.assert_array_equal(folded.matrix, coarse.matrix)
    assert folded.num_images == 1


def test_fold_counts_predictions_that_nobody_absorbs_as_errors():
    finer = LabelSpace("three", (LabelClass("a", (0, 0, 0)), LabelClass("b", (1, 1, 1)), LabelClass("c", (2, 2, 2))))
    coarser = LabelSpace("two", finer.classes[:2])
    confusion = Confusion(3)
    confusion.update(np.array([[0, 0, 1, 2]], dtype=np.uint8), np.array([[0, 2, 1, 0]], dtype=np.uint8))
    np.testing.assert_array_equal(fold(confusion, finer, coarser).matrix, [[1, 0, 1], [0, 1, 0]])


def test_evaluate_predictions_writes_scores_and_protocol(tmp_path, capsys):
    for name in ("images", "masks"):
        (tmp_path / "data" / name).mkdir(parents=True)
    (tmp_path / "predicted").mkdir()
    truth = np.array([[0, 0, 1, 1]] * 4, dtype=np.uint8)
    Image.fromarray(np.zeros((4, 4, 3), dtype=np.uint8)).save(tmp_path / "data" / "images" / "a.png")
    Image.fromarray(truth).save(tmp_path / "data" / "masks" / "a.png")
    Image.fromarray(np.where(np.arange(4)[:, None] < 2, truth, 0).astype(np.uint8)).save(tmp_path / "predicted" / "a.png")
    space = tmp_path / "space.yaml"
    space.write_text("name: two\nclasses: [{name: road}, {name: sky}]\n")
    arguments = ["evaluate", "--predictions", tmp_path / "predicted", "--data", tmp_path / "data", "--label_space", space]
    assert main([str(a) for a in [*arguments, "--json", tmp_path / "out" / "scores.json", "--quiet"]]) == 0
    told = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert told["iou"] == pytest.approx({"road": 100 * 8 / 12, "sky": 50.0})
    assert told["miou"] == pytest.approx((100 * 8 / 12 + 50) / 2)
    assert told["protocol"]["num_images"] == 1
    assert "58.3" in capsys.readouterr().out


def test_evaluate_shows_19_16_and_13_classes_side_by_side(tmp_path, capsys):
    """Road half right, the other half called truck, and truck right where it is: the conventions part over truck alone."""
    for name in ("images", "masks"):
        (tmp_path / "data" / name).mkdir(parents=True)
    (tmp_path / "predicted").mkdir()
    truth = np.array([[0, 0, 0, 0, 14, 14, 3, 3]], dtype=np.uint8)
    Image.fromarray(np.zeros((1, 8, 3), dtype=np.uint8)).save(tmp_path / "data" / "images" / "a.png")
    Image.fromarray(truth).save(tmp_path / "data" / "masks" / "a.png")
    Image.fromarray(np.array([[0, 0, 14, 14, 14, 0, 3, 3]], dtype=np.uint8)).save(tmp_path / "predicted" / "a.png")
    arguments = ["evaluate", "--predictions", tmp_path / "predicted", "--data", tmp_path / "data", "--json", tmp_path / "scores.json"]
    assert main([str(a) for a in [*arguments, "--quiet"]]) == 0
    told = json.loads((tmp_path / "scores.json").read_text())
    road_a, road_b, truck = 100 * 2 / 5, 100 * 2 / 4, 100 * 1 / 4
    assert told["protocol"]["convention"] == "a"
    assert told["means"]["a"] == pytest.approx({"19": (road_a + truck + 100) / 3, "16": (road_a + 100) / 2, "13": road_a})
    assert told["means"]["b"] == pytest.approx({"16": (road_b + 100) / 2, "13": road_b})
    shown = capsys.readouterr().out
    assert [line.split()[-2] for line in shown.splitlines() if "mIoU1" in line] == ["55.0", "70.0", "40.0", "75.0", "50.0"]
    assert "convention a" in shown
    Image.fromarray(np.array([[0, 0, 0, 0, 255, 255, 3, 3]], dtype=np.uint8)).save(tmp_path / "data" / "masks" / "a.png")
    Image.fromarray(np.array([[0, 0, 13, 13, 13, 0, 3, 3]], dtype=np.uint8)).save(tmp_path / "predicted" / "a.png")
    assert main([str(a) for a in [*arguments, "--label_space", "cityscapes16", "--quiet"]]) == 0
    told = json.loads((tmp_path / "scores.json").read_text())
    assert told["protocol"]["convention"] == "b"
    assert told["means"].keys() == {"b"}


def test_main_is_the_console_script():
    assert cli.main is main
