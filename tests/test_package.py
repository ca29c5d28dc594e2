"""The package as it is installed: what is there, what is absent, what the files promise."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import entry_points, version
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from iccld import __version__

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
OWN = [path for folder in ("src", "tests") for path in sorted((ROOT / folder).rglob("*.py"))]


def constraints():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def test_torchvision_is_absent():
    assert find_spec("torchvision") is None


CONFIGURED = {"config", "assembly", "measure", "runs", "cli", "__main__"}
"""Rooms that may read the run's configuration."""


def test_version_is_the_installed_one():
    assert version("iccld") == __version__


def test_command_is_installed():
    assert [entry.value for entry in entry_points(group="console_scripts", name="iccld")] == ["iccld.cli:main"]


def test_package_is_typed():
    assert (files("iccld") / "py.typed").is_file()


def test_constraints_pin_exactly_and_once():
    pins = constraints()
    assert all(re.fullmatch(r"==[\w.]+", str(pin.specifier)) for pin in pins)
    names = [canonicalize_name(pin.name) for pin in pins]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("extra", [None, "report", "dev"])
def test_constraints_cover_the_dependencies_within_their_ranges(extra):
    pinned = {canonicalize_name(pin.name): next(iter(pin.specifier)).version for pin in constraints()}
    project = PROJECT["project"]
    lines = project["dependencies"] if extra is None else project["optional-dependencies"][extra]
    for requirement in map(Requirement, lines):
        name = canonicalize_name(requirement.name)
        if name != "iccld":
            assert requirement.specifier.contains(pinned[name]), requirement


def test_torch_is_recent_enough_to_load_weights_safely():
    torch = next(Requirement(line) for line in PROJECT["project"]["dependencies"] if line.startswith("torch"))
    assert not torch.specifier.contains("2.9.1")


def test_rooms_are_all_on_a_floor():
    """A new room has to be placed: import-linter's layers are exhaustive."""
    floors = next(contract for contract in PROJECT["tool"]["importlinter"]["contracts"] if contract["type"] == "layers")
    assert floors["exhaustive"] is True
    placed = set(re.findall(r"\w+", " ".join(floors["layers"])))
    package = ROOT / "src" / "iccld"
    rooms = {path.stem for path in package.glob("*.py")} | {path.parent.name for path in package.glob("*/__init__.py")}
    assert rooms - {"__init__"} <= placed


def test_rooms_below_assembly_are_kept_from_the_configuration():
    contracts = PROJECT["tool"]["importlinter"]["contracts"]
    floors = next(contract for contract in contracts if contract["type"] == "layers")
    kept = next(contract for contract in contracts if contract["type"] == "forbidden")
    placed = set(re.findall(r"\w+", " ".join(floors["layers"])))
    assert {name.removeprefix("iccld.") for name in kept["source_modules"]} == placed - CONFIGURED


def test_test_modules_have_names_of_their_own():
    names = [path.stem for path in (ROOT / "tests").rglob("test_*.py")]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("word", ["TO" + "DO", "FIX" + "ME"])
def test_sources_hold_no_leftovers(word):
    assert [str(path) for path in OWN if word in path.read_text(encoding="utf-8")] == []
