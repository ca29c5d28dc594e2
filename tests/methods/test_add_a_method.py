"""docs/add-a-method.md: its example is taken from the page, registered by the line shown there, and trained."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from iccld import methods
from iccld.methods import METHODS, Registered
from iccld.methods.common.protocol import Method

ROOT = Path(__file__).parents[2]
FILE, LINE, OUTSIDE = re.findall(
    r"^```python\n(.*?)^```", (ROOT / "docs" / "add-a-method.md").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
)


@pytest.fixture
def minent(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The page's file as a module of the package, and the page's line carried out."""
    module = ModuleType("iccld.methods.minent")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(FILE, "docs/add-a-method.md", "exec"), module.__dict__)
    for name, registered in eval(f"{{{LINE}}}", {"Registered": Registered}).items():
        monkeypatch.setitem(METHODS, name, registered)
    return module


def ready(tiny: ModuleType, registered: Registered, settings: Any = None, **changes: Any) -> Method:
    optimisation = {stage: tiny.optimisation() for stage in registered.stage_names}
    stage = registered.stages(tiny.parts(**changes), settings or registered.settings(), optimisation)[-1]
    method: Method = tiny.ready(stage.make_method(None))
    return method


def test_the_line_registers_a_method_with_the_stages_of_others(minent: ModuleType, tiny: ModuleType) -> None:
    registered = METHODS["minent"]
    stages = registered.stages(tiny.parts(), registered.settings(), {name: tiny.optimisation() for name in ("source", "adapt")})
    assert tuple(stage.name for stage in stages) == registered.stage_names == ("source", "adapt")
    previous = tiny.ready(stages[0].make_method(None))
    tiny.step(previous, 0)
    method = tiny.ready(stages[1].make_method(previous))
    assert torch.equal(tiny.values(method.networks()["segmenter"]), tiny.values(previous.ema_networks()["segmenter"]))


def test_it_learns_the_source_and_grows_certain_on_the_target(minent: ModuleType, tiny: ModuleType) -> None:
    data = tiny.batch(size=(32, 32))
    method = ready(tiny, METHODS["minent"], minent.Settings(entropy_weight=0.5), views=tiny.STILL)
    losses = [tiny.step(method, iteration, data, seed=3) for iteration in range(12)]
    for name, share in (("source", 0.9), ("target_entropy", 0.95)):
        assert float(losses[-1][name]) < share * float(losses[0][name]), [float(one[name]) for one in losses]
    with torch.no_grad():
        assert method.predictor()(data.target_image).shape == (2, 4, 32, 32)


def test_the_example_imports_no_other_method() -> None:
    contract = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
    (independence,) = [each for each in contract if each["id"] == "methods"]
    assert {entry.rpartition(" ")[2] for entry in independence["ignore_imports"]} == {"iccld.methods.common", "iccld.methods.common.*"}
    assert set(re.findall(r"^from iccld\.methods\.(\w+)", FILE, re.MULTILINE)) == {"common"}
    assert "minent" not in dir(methods)  # the page's, not the package's
