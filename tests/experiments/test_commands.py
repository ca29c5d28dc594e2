"""`iccld ablate` and `iccld compare` on tiny runs: shared sources, tables, an isolated failure, going on, an interruption."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from iccld import measure
from iccld.cli import main
from iccld.config import read_config
from iccld.errors import NumericError


def table(out: Path, name: str) -> dict[str, Any]:
    rows = json.loads((out / f"{name}.json").read_text())["rows"]
    return {row["row"]: row for row in rows}


def test_the_plan_of_an_ablation_shares_sources_and_trains_nothing(recipe: Path, here: list[str], tmp_path: Path, capsys: Any) -> None:
    words = ["ablate", "--config", str(recipe), "--seeds", "3,4", "--out", str(tmp_path), "--no_estimate", "--plan"]
    assert main([*words, "--jobs", "3"]) == 0
    assert capsys.readouterr().err.splitlines()[-1] == "plan: 18 runs, 18 to train, 3 at a time"
    assert main([*words, "--jobs", "1"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1] == "plan: 18 runs, 18 to train"  # three networks, two seeds: source, both steps, control
    assert "  control, with connection, seed 4: step1 3 iterations" in lines
    assert "  step 1 & 2, without connection, wider, seed 3: step1 2 + step2 1 iterations" in lines
    assert main([*words, "--jobs", "1", "--networks", "with,without"]) == 0
    assert capsys.readouterr().err.splitlines()[-1] == "plan: 12 runs, 12 to train"
    assert not here
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_ablate_shares_sources_and_writes_table1(recipe: Path, here: list[str], tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "ablation"
    words = ["ablate", "--config", str(recipe), "--seeds", "3", "--out", str(out), "--no_estimate"]
    assert main(words) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(out / "table1.html")
    assert sorted(name for name in here if not name.startswith("source")) == [
        f"{network}-3{ending}" for network in ("matched", "with", "without") for ending in ("", "-control")
    ]
    assert len(list((out / "source").iterdir())) == 3  # one a network, shared by its two runs
    rows = table(out, "table1")
    assert {name: row["cells"]["iterations"] for name, row in rows.items() if row["group"].startswith("With the")} == {
        "with/source": 2,
        "with/step1": 4,
        "with/control": 5,
        "with/step2": 5,
    }
    sizes = {name: row["cells"]["parameters"] for name, row in rows.items()}
    assert sizes["matched/step1"] == pytest.approx(sizes["with/step1"], rel=0.02)
    assert sizes["without/step1"] < 0.95 * sizes["with/step1"]
    step2, control = (json.loads((out / "runs" / name / "summary.json").read_text()) for name in ("with-3", "with-3-control"))
    expected = step2["stages"]["step2"]["miou"] - control["stages"]["step1"]["miou"]
    assert rows["with/step2"]["cells"]["over_control"]["mean"] == pytest.approx(expected)
    assert step2["source_checkpoint"] == control["source_checkpoint"]
    assert (out / "figures" / "figure4.png").is_file()
    for ending in ("csv", "md", "tex", "html"):
        assert (out / f"table1.{ending}").is_file()
    # The same call finds everything finished and writes the same bytes.
    here.clear()
    before = {path.name: path.read_bytes() for path in out.glob("table1.*")}
    assert main(words) == 0
    assert here == []
    assert {path.name: path.read_bytes() for path in out.glob("table1.*")} == before
    # Another recipe in the same folder is refused, and named.
    capsys.readouterr()
    assert main([*words, "--stages.step1.iterations", "9"]) == 2
    assert "stages.step1.iterations: 2 there, 9 now" in capsys.readouterr().err


def test_compare_lends_iccld_s_colours_to_every_method(recipe: Path, here: list[str], tmp_path: Path, capsys: Any) -> None:
    words = ["compare", "--config", str(recipe), "--methods", "source_only,iccld", "--seeds", "0", "--out", str(tmp_path), "--no_estimate"]
    assert main([*words, "--lend", "style", "--settings.style_probability", "0.75"]) == 0
    for method in ("source_only", "iccld"):
        config = read_config(tmp_path / "runs" / f"{method}-0" / "config.yaml")
        assert config.augmentation.style_probability == 0.75
    assert "augmentation.style_probability 0.75" in (tmp_path / "table2.md").read_text()
    capsys.readouterr()
    assert main([*words, "--settings.style_probability", "0.75"]) == 2  # another table, another folder
    assert "augmentation.style_probability" in capsys.readouterr().err
    assert main([*words, "--lend", "stile"]) == 2


def test_compare_isolates_a_failing_method_and_trains_it_again(recipe: Path, here: list[str], tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "comparison"
    words = ["compare", "--config", str(recipe), "--methods", "iccld,source_only", "--seeds", "0", "--out", str(out)]

    def broken(*arguments: Any) -> Any:
        raise NumericError("a fault of this method alone")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("iccld.methods.iccld.stages", broken)
        assert main(words) == 1
    told = capsys.readouterr().err
    assert "1 of the runs failed, first iccld-0" in told
    rows = table(out, "table2")
    assert (rows["iccld"]["kind"], rows["iccld"]["cells"]["miou"]) == ("missing", "failed")
    assert rows["source_only"]["cells"]["iterations"] == 3  # as many as step 1 and 2 together
    here.clear()
    assert main(words) == 0
    assert here == ["iccld-0"]
    rows = table(out, "table2")
    assert [row["kind"] for row in rows.values() if "reported" not in row["row"]] == ["measured"] * 3
    assert rows["iccld"]["cells"]["iterations"] == 3
    assert rows["iccld"]["cells"]["over_source_only"]["mean"] == pytest.approx(
        rows["iccld"]["cells"]["miou"]["mean"] - rows["source_only"]["cells"]["miou"]["mean"]
    )
    assert (out / "figures" / "figure5.png").is_file()


def test_a_budget_of_seconds_is_timed_once(recipe: Path, here: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    timed = []

    def seconds_per_step(config: Any, steps: int) -> dict[str, float]:
        timed.append((config.method, steps))
        return {"adapt": 2.0}

    monkeypatch.setattr(measure, "seconds_per_step", seconds_per_step)
    words = ["compare", "--config", str(recipe), "--methods", "source_only", "--seeds", "0", "--out", str(tmp_path), "--no_estimate"]
    for _ in range(2):
        assert main([*words, "--budget_seconds", "5"]) == 0
    assert timed == [("source_only", 20)]
    assert table(tmp_path, "table2")["source_only"]["cells"]["iterations"] == 2
    assert main([*words, "--budget", "7"]) == 2  # the folder holds the other budget


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("compare --recipe demo --methods dasc --out x", "did you mean dacs?"),
        ("compare --recipe demo --methods dacs,dacs --out x", "twice"),
        ("compare --recipe demo --budget 0 --out x", "at least 1"),
        ("compare --recipe demo --stages.step1.iterations 0 --stages.step2.iterations 0 --out x", "--budget ITERATIONS"),
        ("ablate --recipe demo --method source_only --out x", "needs step1 and step2"),
        ("ablate --recipe demo --stages.step2.iterations 0 --out x", "needs step1 and step2: add --stages.step2.iterations N"),
        ("ablate --recipe demo --target.truth true --settings.labels truth --out x", "no row of a table may see them"),
        ("compare --recipe demo --target.truth true --settings.labels truth --out x", "no row of a table may see them"),
        ("ablate --recipe demo --seeds 1,1 --out x", "twice"),
        ("ablate --recipe demo --networks with,witout --out x", "did you mean without?"),
        ("ablate --recipe demo --networks with,with --out x", "twice"),
        ("ablate --recipe gta5_to_cityscapes --source.path . --target.path . --val.path . --network.preset daformer --out x", "daformer"),
        ("ablate --recipe demo --val.generate.num 0 --out x", "val.path"),
    ],
)
def test_mistakes_are_one_line(arguments: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments.split()) == 2
    assert says in capsys.readouterr().err
    assert not list(tmp_path.glob("x/runs"))


@pytest.mark.slow
def test_compare_in_processes_is_interrupted_and_goes_on(recipe: Path, tmp_path: Path) -> None:
    """SIGTERM to the command while a run trains: exit code 75, then the same command ends with the digests of an uninterrupted one."""
    words = [sys.executable, "-m", "iccld", "compare", "--config", str(recipe), "--methods", "source_only,iccld", "--seeds", "0"]
    words += ["--no_estimate", "--stages.step1.iterations", "40", "--runtime.checkpoint_every", "1000"]
    process = subprocess.Popen([*words, "--out", str(tmp_path / "halved")])
    metrics = tmp_path / "halved" / "runs" / "source_only-0" / "metrics.jsonl"
    for _ in range(3000):
        if metrics.is_file() and metrics.stat().st_size:
            break
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(120) == 75
    assert not (tmp_path / "halved" / "table2.json").exists()
    assert subprocess.run([*words, "--out", str(tmp_path / "halved")], timeout=300).returncode == 0
    assert subprocess.run([*words, "--out", str(tmp_path / "straight")], timeout=300).returncode == 0
    halved, straight = table(tmp_path / "halved", "table2"), table(tmp_path / "straight", "table2")
    for method in ("source_only", "iccld"):
        assert halved[method]["cells"]["miou"] == straight[method]["cells"]["miou"]
        folders = [tmp_path / out / "runs" / f"{method}-0" / "checkpoints" for out in ("halved", "straight")]
        weights = [max(folder.rglob("ema.safetensors")) for folder in folders]
        assert weights[0].read_bytes() == weights[1].read_bytes()
        assert straight[method]["cells"]["peak_memory_gib"] > 0
