"""A method from a package of somebody else's, by `package.module:NAME` and by an entry point: trained, resumed, evaluated, told."""

from __future__ import annotations

import json
import re
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml

from iccld import adapting
from iccld.assembly.chosen import check_method
from iccld.cli import main
from iccld.config import load_config
from iccld.errors import ConfigError, Preempted
from iccld.methods import METHODS, Registered, find_method, method_names

ROOT = Path(__file__).parents[2]
FILE, _, LINE = re.findall(
    r"^```python\n(.*?)^```", (ROOT / "docs" / "add-a-method.md").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
)
STAGES = '''

def stages(parts, settings, optimisation):
    """Two stages, each from the averaged weights of the one before."""

    def named(name):
        return lambda previous: MinEnt(parts, settings, optimisation[name], averaged_segmenter(previous, parts))

    return source_then(parts, optimisation, warm=named("warm"), press=named("press"))


from iccld.methods import Registered

'''
NAME = "outside_iccld.minent:METHOD"
ENTRY = "minent_of_another"
TRAINED = ("source", "warm", "press")


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The page's example as a package of its own, with two stages and an entry point, as `pip install` leaves them."""
    folder = tmp_path / "site"
    (folder / "outside_iccld").mkdir(parents=True)
    (folder / "outside_iccld" / "__init__.py").write_text("NUMBER = 1\n")
    (folder / "outside_iccld" / "minent.py").write_text(FILE + STAGES + LINE, encoding="utf-8")
    told = folder / "outside_iccld-1.0.dist-info"
    told.mkdir()
    (told / "METADATA").write_text("Metadata-Version: 2.1\nName: outside-iccld\nVersion: 1.0\n")
    (told / "entry_points.txt").write_text(f"[iccld.methods]\n{ENTRY} = {NAME}\niccld = {NAME}\n")
    monkeypatch.syspath_prepend(folder)
    for name in ("outside_iccld", "outside_iccld.minent"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return folder


def read(run: Path, name: str) -> Any:
    return json.loads((run / name).read_text(encoding="utf-8"))


@pytest.mark.usefixtures("no_estimate", "package")
@pytest.mark.parametrize("name", [NAME, ENTRY], ids=["module", "entry point"])
def test_it_is_trained_resumed_evaluated_and_told(
    name: str, workshop: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run = f"outside-{'module' if ':' in name else 'entry'}"
    own = ["--method", name, "--settings.entropy_weight", "0.01", "--stages.source.iterations", "2"]
    own += ["--stages.warm.iterations", "2", "--stages.press.iterations", "2", "--stages.press.learning_rate", "0.002"]
    with monkeypatch.context() as patch:

        def stop(num_pictures: int, run: Path, stage: str, *rest: Any) -> None:
            if stage == "warm":
                raise Preempted("stopped after warm")

        patch.setattr(adapting, "save_stage_pictures", stop)
        assert workshop.adapt(run, None, *own) == 75
    folder = workshop.runs / run
    assert not (folder / "checkpoints" / "press").exists()
    assert workshop.adapt(run, None, *own, "--resume", "auto") == 0
    assert workshop.adapt(f"{run}-straight", None, *own) == 0
    assert workshop.digests(run, TRAINED) == workshop.digests(f"{run}-straight", TRAINED)
    summary = read(folder, "summary.json")
    assert (summary["method"], list(summary["stages"]), summary["headline"]["stage"]) == (name, list(TRAINED), "press")
    assert yaml.safe_load((folder / "config.yaml").read_text())["stages"]["press"]["learning_rate"] == 0.002
    assert ">Press<" in (folder / "report.html").read_text(encoding="utf-8")
    capsys.readouterr()
    told = ["--data", str(workshop.data.val), "--format", "cityscapes", "--json", str(tmp_path / "scores.json"), "--quiet"]
    assert main(["evaluate", str(folder), *told]) == 0
    assert read(tmp_path, "scores.json")["miou"] == pytest.approx(summary["headline"]["miou"])


@pytest.mark.usefixtures("no_estimate", "package")
def test_without_iterations_of_its_own_it_shares_out_the_recipes(workshop: Any) -> None:
    """The workshop's recipe gives 3 iterations each to step1 and step2: a quarter of 6 is 2, three quarters are 4."""
    assert workshop.adapt("outside-shares", None, "--method", NAME) == 0
    stages = read(workshop.runs / "outside-shares", "summary.json")["stages"]
    assert {name: told["iterations"] for name, told in stages.items()} == {"source": 3, "warm": 2, "press": 4}


@pytest.mark.usefixtures("package")
def test_an_entry_point_is_a_name_among_the_others_and_never_replaces_one() -> None:
    assert method_names() == (*METHODS, ENTRY)
    assert find_method(ENTRY) is find_method(NAME) is import_module("outside_iccld.minent").METHOD
    assert find_method("iccld") is METHODS["iccld"]


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("minent_of_anothr", "did you mean minent_of_another?"),
        ("nowhere.at.all:METHOD", "there is no module nowhere; install it"),
        ("outside_iccld.missing:METHOD", "there is no module outside_iccld.missing"),
        ("outside_iccld.minent:METHD", "did you mean METHOD?"),
        ("outside_iccld:NUMBER", "NUMBER of outside_iccld is a int, not a Registered"),
        ("outside_iccld:", "no package.module:NAME"),
        (":METHOD", "no package.module:NAME"),
        ("os.path:join", "join of os.path is a function"),
    ],
)
def test_a_name_that_leads_nowhere_is_one_line(name: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        find_method(name)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("package")
def test_stages_and_settings_are_checked_against_the_method() -> None:
    def refusal(*overrides: str) -> str:
        with pytest.raises(ConfigError) as caught:
            check_method(load_config("demo", ["--method", NAME, *overrides]))
        return str(caught.value)

    check_method(load_config("demo", ["--method", NAME, "--stages.warm.iterations", "5", "--settings.entropy_weight", "1"]))
    assert "did you mean press?" in refusal("--stages.pres.iterations", "5")
    assert "its stages are source, warm, press" in refusal("--stages.pres.iterations", "5")
    assert "did you mean entropy_weight?" in refusal("--settings.entropy_wieght", "1")
    assert "expected float" in refusal("--settings.entropy_weight", "much")
    with pytest.raises(ConfigError, match=r"did you mean stages\.warm\.iterations\?"):
        load_config("demo", ["--method", NAME, "--stages.warm.iteration", "5"])
    with pytest.raises(ConfigError, match=r"unknown stage stages\.warm of method iccld"):
        check_method(load_config("demo", ["--stages.warm.iterations", "5"]))


@pytest.mark.parametrize("name", ["source", "two words", "a/b", "step-1", ""])
def test_a_stage_is_called_by_a_plain_word(name: str) -> None:
    with pytest.raises(ConfigError, match="a stage is called"):
        Registered("somewhere", {name: 1.0})
