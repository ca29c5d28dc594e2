"""`iccld ablate --grid step2`: one start, the same batches, paired differences, ceilings that are marked, pictures, going on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from iccld.assembly.chosen import method_settings
from iccld.cli import main
from iccld.config import load_config, read_config
from iccld.errors import ConfigError, DataError
from iccld.experiments.figures import Shown
from iccld.experiments.formulations import FORMULATIONS, START, Formulation, chosen_rows
from iccld.experiments.grid_table import Cell, Grid, read_cells, tables
from iccld.experiments.mended import MENDED, SPOILED, mended_map, shares, write_mended
from iccld.experiments.table import as_markdown, is_best
from iccld.methods.common import iccld_views
from iccld.report.gallery import palette_image
from iccld.training.loop import _StageLoop

HITS = {"start": [(6, 6), (8, 8)], "continued": [(7, 7), (8, 8)], "decoder": [(7, 8), (9, 8)], "ceiling_decoder": [(10, 10), (10, 10)]}


def words(recipe: Path, out: Path, *more: str) -> list[str]:
    base = ["ablate", "--grid", "step2", "--config", str(recipe), "--seeds", "3", "--iterations", "2", "--out", str(out), "--no_estimate"]
    return [*base, *more]


def table(out: Path) -> dict[str, Any]:
    return {row["row"]: row for row in json.loads((out / "step2.json").read_text())["rows"]}


def sha256(run: Path, stage: str, name: str) -> str:
    return hashlib.sha256((max((run / "checkpoints" / stage).iterdir()) / name).read_bytes()).hexdigest()


# --- rows -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMULATIONS)
def test_every_row_is_settings_that_iccld_takes(name: str) -> None:
    demo, row = load_config("demo", ["--settings.threshold", "0.7"]), FORMULATIONS[name]
    target = replace(demo.target, truth=row.kind == "ceiling")
    config = replace(demo, settings={**demo.settings, **row.settings}, target=target)
    assert method_settings(config).threshold == 0.7  # what a row does not name is the recipe's


def test_rows_are_chosen_by_name_and_begin_with_the_start(tmp_path: Path) -> None:
    assert list(chosen_rows(None)) == list(FORMULATIONS)
    assert list(chosen_rows(["r1a", "decoder"])) == [START, "decoder", "r1a"]
    file = tmp_path / "half.yaml"
    file.write_text("title: Half of it\nsettings: {mask_ratio: 0.2}\nstage: {learning_rate: 1.0e-4}\n")
    rows = chosen_rows(["decoder"], [f"half={file}"])
    assert list(rows) == [START, "decoder", "half"]
    assert rows["half"] == Formulation("Half of it", "method", {"mask_ratio": 0.2}, {"learning_rate": 1e-4})
    file.write_text("settings: {labels: truth}\n")
    assert chosen_rows([], [f"half={file}"])["half"].kind == "ceiling"  # whatever learns from the truth, by whatever name


@pytest.mark.parametrize(
    ("content", "argument", "says"),
    [
        ("settings: {}\nstages: {}\n", "half={}", "did you mean stage?"),
        ("- 1\n", "half={}", "mapping with settings"),
        ("settings: {}\n", "{}", "NAME=FILE"),
        ("settings: {}\n", "r1a={}", "there is"),
        ("settings: {\n", "half={}", "YAML"),
    ],
)
def test_a_file_that_is_no_row_is_refused(content: str, argument: str, says: str, tmp_path: Path) -> None:
    file = tmp_path / "row.yaml"
    file.write_text(content)
    with pytest.raises(ConfigError, match=says) as caught:
        chosen_rows([], [argument.format(file)])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("--grid step2 --recipe demo --rows r1b", "did you mean r1a?"),
        ("--grid step2 --recipe demo --rows r1a,r1a", "twice"),
        ("--grid step3 --recipe demo", "step2"),
        ("--recipe demo --rows r1a", "--rows goes with --grid step2"),
        ("--recipe demo --iterations 5", "--iterations goes with --grid step2"),
        ("--grid step2 --recipe demo --method dacs", "settings of iccld"),
        ("--grid step2 --recipe demo --stages.step1.iterations 0", "no step 1"),
        ("--grid step2 --recipe demo --networks wth", "did you mean with?"),
        ("--grid step2 --recipe demo --from nowhere", "is no run"),
        ("--grid step2 --recipe demo --row bad=bad.yaml", "mask_ration"),
        ("--grid step2 --recipe demo --row bad=worse.yaml", "unknown key stage.rate"),
    ],
)
def test_mistakes_are_one_line(arguments: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bad.yaml").write_text("settings: {mask_ration: 0.1}\n")
    Path("worse.yaml").write_text("settings: {}\nstage: {rate: 0.1}\n")
    assert main(["ablate", *arguments.split(), "--seeds", "0", "--out", "x", "--no_estimate"]) == 2
    told = capsys.readouterr().err.strip().splitlines()
    assert says in told[-1]
    assert not list(tmp_path.glob("x/runs"))


# --- tables ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def grid_by_hand(by_hand: Any, tmp_path: Path) -> Callable[..., tuple[Grid, dict[Any, Cell]]]:
    """Finished runs of a start and three rows, and where they lie."""

    def made(**missing: str) -> tuple[Grid, dict[Any, Cell]]:
        start = by_hand.write_run(tmp_path / "start", {"source": HITS["start"], "step1": HITS["start"]})
        checkpoint = start / "checkpoints" / "step1" / "00000010"
        checkpoint.mkdir(parents=True)
        (checkpoint / "manifest.json").write_text(json.dumps({"files": {"ema.safetensors": {"sha256": "abc"}}}))
        cells = {("with", START, 0): Cell(start, "step1")}
        for number, name in enumerate(("continued", "decoder", "ceiling_decoder")):
            if name in missing:
                continue
            run = by_hand.write_run(
                tmp_path / name, {"step1": HITS["start"], "step2": HITS[name]}, processor_seconds=30.0 + number, scoring=None
            )
            summary = json.loads((run / "summary.json").read_text())
            summary["source_checkpoint"] = {"path": str(checkpoint), "sha256": {"ema.safetensors": "abc"}}
            (run / "summary.json").write_text(json.dumps(summary))
            cells["with", name, 0] = Cell(run, "step2")
        rows = {name: row for name, row in FORMULATIONS.items() if name in HITS}
        return Grid(rows, ["with"], [0], 10, missing), cells

    return made


def test_differences_are_paired_and_a_ceiling_is_never_the_best(grid_by_hand: Any, by_hand: Any) -> None:
    grid, cells = grid_by_hand()
    outcomes = read_cells(cells)
    scores, _, costs = tables(grid, outcomes, {}, block=1)
    rows = {row.key: row for row in scores.rows}
    assert list(rows) == ["with/start", "with/continued", "with/decoder", "with/ceiling_decoder"]
    gain = rows["with/decoder"].cells["over_start"]
    assert gain.mean == pytest.approx(by_hand.miou(HITS["decoder"]) - by_hand.miou(HITS["start"]))
    assert gain.low <= gain.mean <= gain.high
    assert rows["with/decoder"].cells["over_continued"].mean == pytest.approx(
        by_hand.miou(HITS["decoder"]) - by_hand.miou(HITS["continued"])
    )
    assert rows["with/continued"].cells["over_continued"] is None
    # The ceiling has the highest score, is marked, and is not bold.
    best = {scores.rows[i].key for i, key in is_best(scores) if key == "miou"}
    assert best == {"with/decoder"}
    assert {key for _, key in is_best(costs)} <= {"peak_memory_gib", "parameters"}  # no time
    assert "True labels, decoder alone (ceiling)" in as_markdown(scores)
    # A row's costs are its own: step 1's are not among them.
    own = {row.key: row for row in costs.rows}["with/decoder"].cells
    assert own["iterations"] == 10
    assert own["seconds"].mean == 60
    assert own["of_continued"] == pytest.approx(31 / 30)


def test_a_row_that_is_not_there_says_why(grid_by_hand: Any) -> None:
    grid, cells = grid_by_hand(ceiling_decoder="the target has no labels")
    outcomes = read_cells(cells)
    outcomes["with", "decoder"] = {}
    scores = tables(grid, outcomes, {"decoder-with-0": "the moon was not in range"}, block=1)[0]
    rows = {row.key: row for row in scores.rows}
    assert (rows["with/ceiling_decoder"].kind, rows["with/ceiling_decoder"].cells["miou"]) == ("missing", "n/a")
    assert "the target has no labels" in rows["with/ceiling_decoder"].note
    assert rows["with/decoder"].note == "seed 0: the moon was not in range"
    assert rows["with/continued"].cells["over_decoder"] is None


def test_a_row_from_other_weights_or_under_another_ruler_is_refused(grid_by_hand: Any) -> None:
    _, cells = grid_by_hand()
    run = cells["with", "decoder", 0].run
    before = (run / "summary.json").read_text()
    (run / "summary.json").write_text(before.replace('"abc"', '"abd"'))
    with pytest.raises(DataError, match="did not start from"):
        read_cells(cells)
    (run / "summary.json").write_text(before.replace('"scoring": null', '"scoring": {"flip": true}'))
    with pytest.raises(DataError, match="score both alike"):
        read_cells(cells)


# --- pictures -------------------------------------------------------------------------------------------------------------


def test_mended_is_green_spoiled_is_red_and_the_rest_is_grey() -> None:
    truth = np.array([[0, 0, 1, 1, 255, 1]], dtype=np.uint8)
    before = np.array([[0, 1, 1, 0, 1, 0]], dtype=np.uint8)
    after = np.array([[0, 0, 0, 1, 0, 2]], dtype=np.uint8)
    grey = np.full((1, 6, 3), 100, dtype=np.uint8)
    shown = mended_map(grey, truth, before, after)
    green, red = ((0.12 * 100 + 0.88 * colour).astype(np.uint8) for colour in (MENDED, SPOILED))
    kept, ignored = round(150 + 100 * 95 / 255), 35
    expected = [[kept] * 3, green, red, green, [ignored] * 3, [kept] * 3]  # right, mended, spoiled, mended, unlabelled, wrong either way
    np.testing.assert_allclose(shown[0], expected, atol=1)
    assert shares(truth, before, after) == (40.0, 20.0)
    assert shares(np.full_like(truth, 255), before, after) == (0.0, 0.0)


@pytest.fixture
def kept(tmp_path: Path) -> Callable[..., Shown]:
    """A run that kept these pictures: name -> (truth, what it predicts), (2, 4) train ids each."""

    def made(run: str, stage: str, **pictures: tuple[Any, Any]) -> Shown:
        folder = tmp_path / run / "pictures"
        folder.mkdir(parents=True)
        (tmp_path / run / "config.yaml").write_text("method: iccld\n")
        palette = [[200, 0, 0], [0, 0, 200]]
        index = {"names": list(pictures), "stages": [stage], "label_space": {"names": ["road", "sky"], "palette": palette}}
        (folder / "index.json").write_text(json.dumps(index))
        for number, (truth, prediction) in enumerate(pictures.values()):
            Image.new("RGB", (4, 2), (100, 100, 100)).save(folder / f"{number}_image.jpg")
            for name, mask in (("truth", truth), (stage, prediction)):
                palette_image(np.asarray(mask, dtype=np.uint8), palette).save(folder / f"{number}_{name}.png")
        return Shown(run, tmp_path / run, stage)

    return made


def test_a_sheet_finds_each_picture_by_its_name(kept: Callable[..., Shown], tmp_path: Path) -> None:
    """The rows kept their pictures in another order, and one of them kept one alone."""
    zeros, ones = [[0] * 4] * 2, [[1] * 4] * 2
    start = kept("start", "step1", first=(zeros, ones), second=(ones, ones))
    row = kept("row", "step2", second=(ones, zeros), first=(zeros, zeros))  # mends all of the first, spoils all of the second
    alone = kept("alone", "step2", first=(zeros, ones))
    path = write_mended(tmp_path / "sheet.png", start, [row, alone], width=40)
    assert path is not None
    with Image.open(path) as opened:
        sheet = np.asarray(opened.convert("RGB"), dtype=np.float32)
    green, red = (np.abs(sheet - (12 + 0.88 * colour)).max(axis=2) < 3 for colour in (MENDED, SPOILED))
    assert green.sum() == red.sum() == 40 * 20
    (columns_green, columns_red) = (np.flatnonzero(where.any(axis=0)) for where in (green, red))
    assert columns_green.max() < columns_red.min()  # the first picture is left of the second
    assert write_mended(tmp_path / "none.png", Shown("nothing", tmp_path / "alone", "step1"), [row]) is None


# --- the whole ------------------------------------------------------------------------------------------------------------


def test_the_plan_shares_source_and_step_1(recipe: Path, here: list[str], tmp_path: Path, capsys: Any) -> None:
    assert main(words(recipe, tmp_path, "--plan", "--jobs", "1", "--rows", "decoder,r1a", "--networks", "with,without")) == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1] == "plan: 8 runs, 8 to train"  # of each network: source, step 1 and two rows
    assert "  Decoder alone, without connection, seed 3: step2 2 iterations" in lines
    assert "  step 1, with connection, seed 3: step1 2 iterations" in lines
    assert not here


def first_of(tensor: torch.Tensor) -> str:
    return hashlib.sha256(tensor.contiguous().numpy().tobytes()).hexdigest()[:12]


class Witness:
    """What every step of a stage step2 was given: its pictures, and the windows that it cut from them, by run."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.given: dict[str, list[Any]] = {}
        step, source, target = _StageLoop._step, iccld_views.crop_source, iccld_views.crop_target

        def stepped(loop: _StageLoop, batch: Any) -> None:
            if loop.stage.name == "step2":
                self.now = self.given.setdefault(loop.run.name, [])
                self.now.append((batch.source_index.tolist(), batch.target_index.tolist()))
            step(loop, batch)
            self.now = []

        def cut(crop: Any) -> Any:
            def noted(*arguments: Any) -> Any:
                made = crop(*arguments)
                self.now.append(first_of(made.image))
                return made

            return noted

        self.now: list[Any] = []
        patch.setattr(_StageLoop, "_step", stepped)
        patch.setattr(iccld_views, "crop_source", cut(source))
        patch.setattr(iccld_views, "crop_target", cut(target))


def require_one_start(out: Path, rows: Sequence[str], seed: int = 3) -> None:
    """Every row's summary names the weights of its seed's step 1, as they lie on the disk."""
    run = out / "runs" / f"step1-with-{seed}"
    start = {name: sha256(run, "step1", name) for name in ("model.safetensors", "ema.safetensors")}
    for row in rows:
        told = json.loads((out / "runs" / f"{row}-with-{seed}" / "summary.json").read_text())
        assert told["source_checkpoint"]["sha256"] == start
        assert list(told["stages"]) == ["source", "step1", "step2"]


def test_a_grid_trains_every_row_alike(recipe: Path, here: list[str], tmp_path: Path) -> None:
    rows = ["continued", "ceiling_decoder"]
    with pytest.MonkeyPatch.context() as patch:
        witness = Witness(patch)
        assert main(words(recipe, tmp_path, "--rows", ",".join(rows), "--iterations", "1")) == 0
    assert here[1:] == ["step1-with-3", *(f"{row}-with-3" for row in rows)]
    # The same pictures in the same order, and the same windows of them.
    assert list(witness.given) == here[2:]
    first = witness.given["continued-with-3"]
    assert len(first) == 3  # one iteration: pictures, a window of the source's, one of the target's
    assert all(given == first for given in witness.given.values())
    require_one_start(tmp_path, rows)
    # Ceilings alone are given labels of the target.
    truth = {row: read_config(tmp_path / "runs" / f"{row}-with-3" / "config.yaml").target.truth for row in rows}
    assert truth == {"continued": False, "ceiling_decoder": True}
    told = table(tmp_path)
    assert [told[f"with/{row}"]["kind"] for row in rows] == ["measured", "ceiling"]
    assert told["with/ceiling_decoder"]["group"].startswith("Ceilings")
    score = {row: told[f"with/{row}"]["cells"]["miou"]["mean"] for row in rows}
    gain = told["with/ceiling_decoder"]["cells"]["over_continued"]["mean"]
    assert gain == pytest.approx(score["ceiling_decoder"] - score["continued"])
    assert told["with/continued"]["cells"]["processor_seconds"]["mean"] > 0
    for name in ("step2.csv", "step2.md", "step2.tex", "step2.html", "figures/mended-with.png"):
        assert (tmp_path / name).is_file()


@pytest.mark.slow
def test_a_grid_goes_on_and_takes_rows_and_seeds(recipe: Path, here: list[str], tmp_path: Path, capsys: Any) -> None:
    names = [name for name in FORMULATIONS if name != START]
    out = tmp_path / "grid"
    with pytest.MonkeyPatch.context() as patch:
        witness = Witness(patch)
        assert main(words(recipe, out)) == 0
    first = witness.given["continued-with-3"]
    assert list(witness.given) == [f"{name}-with-3" for name in names]
    assert all(given == first for given in witness.given.values())
    require_one_start(out, names)
    # Another call trains nothing and writes the same bytes; one with a row or a seed more trains that alone.
    before = {path.name: path.read_bytes() for path in out.glob("step2.*")}
    here.clear()
    assert main(words(recipe, out)) == 0
    assert here == []
    assert {path.name: path.read_bytes() for path in out.glob("step2.*")} == before
    file = tmp_path / "half.yaml"
    file.write_text("settings: {mask_ratio: 0.2}\n")
    assert main(words(recipe, out, "--rows", "decoder", "--row", f"half={file}")) == 0
    assert here == ["half-with-3"]
    here.clear()
    assert main(words(recipe, out, "--rows", "decoder,half", "--row", f"half={file}", "--seeds", "3,4")) == 0
    assert here[1:] == ["step1-with-4", "decoder-with-4", "half-with-4"]
    require_one_start(out, ["decoder", "half"], seed=4)
    told = table(out)["with/half"]["cells"]
    assert told["over_decoder"]["count"] == 2
    assert told["over_decoder"]["seeds_low"] <= told["over_decoder"]["mean"] <= told["over_decoder"]["seeds_high"]
    # What would make another table of it is refused, and named.
    file.write_text("settings: {mask_ratio: 0.3}\n")
    for more, says in (
        (["--row", f"half={file}"], "row half with other settings"),
        (["--iterations", "3"], "iterations: 2 there, 3 now"),
        (["--from", str(out / "runs" / "step1-with-4")], "is of seed 4"),
    ):
        capsys.readouterr()
        assert main(words(recipe, out, "--rows", "decoder", *more)) == 2
        assert says in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.slow
def test_a_finished_run_is_the_start_of_its_seed(recipe: Path, here: list[str], tmp_path: Path, capsys: Any) -> None:
    assert main(["adapt", "--config", str(recipe), "--runtime.out", str(tmp_path), "--name", "mine", "--seed", "3", "--no_estimate"]) == 0
    out, start = tmp_path / "grid", str(tmp_path / "mine")
    assert main(words(recipe, out, "--rows", "decoder", "--from", start)) == 0
    assert here == ["decoder-with-3"]
    told = table(out)
    assert (
        told["with/start"]["cells"]["miou"]["mean"]
        == json.loads((tmp_path / "mine" / "summary.json").read_text())["stages"]["step1"]["miou"]
    )
    here.clear()
    assert main(words(recipe, out, "--rows", "decoder,mean")) == 0  # the folder knows where it began
    assert here == ["mean-with-3"]
    here.clear()  # a denoiser of its own does not make the run another start
    assert main(words(recipe, tmp_path / "squares", "--rows", "r1a", "--from", start, "--network.denoiser_patch", "2")) == 0
    assert here == ["r1a-with-3"]
    assert table(tmp_path / "squares")["with/start"]["cells"]["miou"] == told["with/start"]["cells"]["miou"]
    for more, says in (
        (["--from", start, "--seeds", "4"], "is of seed 3"),
        (["--from", start, "--networks", "without"], "another network"),
        (["--from", f"{start},{start}"], "one run for each"),
        (["--from", start, "--evaluation.flip", "true"], "score both alike"),
        (["--from", start, "--val.path", str(recipe.parent / "data2"), "--val.split", "train"], "other pictures"),
    ):
        capsys.readouterr()
        assert main(words(recipe, tmp_path / "other", "--rows", "decoder", *more)) == 2
        assert says in capsys.readouterr().err.splitlines()[-1]
