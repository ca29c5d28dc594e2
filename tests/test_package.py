"""The package as it is installed: what is there, what is absent, what the files promise."""

from __future__ import annotations

import ast
import re
import tomllib
from importlib.metadata import entry_points, version
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from iccld import __version__
from iccld.models.efficientnet import KINDS

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
OWN = [path for folder in ("src", "tests") for path in sorted((ROOT / folder).rglob("*.py"))]


def constraints():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def test_torchvision_is_absent():
    assert find_spec("torchvision") is None


CONFIGURED = {"adapting", "front", "config", "assembly", "measure", "runs", "share", "experiments", "cli", "__main__"}
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


@pytest.mark.parametrize("extra", [None, "report", "docs", "dev"])
def test_constraints_cover_the_dependencies_within_their_ranges(extra):
    pinned = {canonicalize_name(pin.name): next(iter(pin.specifier)).version for pin in constraints()}
    project = PROJECT["project"]
    lines = project["dependencies"] if extra is None else project["optional-dependencies"][extra]
    for requirement in map(Requirement, lines):
        name = canonicalize_name(requirement.name)
        if name != "iccld":
            assert requirement.specifier.contains(pinned[name]), requirement


def test_what_is_declared_is_imported():
    """A dependency, and an extra, exists when something uses it."""
    project = PROJECT["project"]
    extras = [line for name, lines in project["optional-dependencies"].items() if name not in ("dev", "docs") for line in lines]
    modules = {"pillow": "PIL", "opencv-python-headless": "cv2", "lightning-fabric": "lightning_fabric", "pyyaml": "yaml"}
    modules["pillow-heif"] = "pillow_heif"
    modules["tensorboard"] = "torch.utils.tensorboard"  # the same
    modules["python-multipart"] = "starlette.formparsers"  # which cannot do without it
    users = (*(ROOT / "src").rglob("*.py"), *(ROOT / "docs").rglob("*.py"))  # docs/ray has a script for clusters
    sources = "\n".join(path.read_text(encoding="utf-8") for path in users)
    for requirement in map(Requirement, [*project["dependencies"], *extras]):
        encoder = requirement.name.removesuffix("-pytorch-model")
        if encoder != requirement.name:  # a file of weights, whose package is imported by the encoder's name
            assert encoder in KINDS
            continue
        module = modules.get(requirement.name, requirement.name)
        assert re.search(rf"^\s*(?:import|from) {module}\b", sources, re.MULTILINE), requirement.name


CITED = {"cff-version", "message", "title", "authors"}
CITABLE = {"type", "license", "preferred-citation", "version", "date-released", "abstract", "keywords", "repository-code", "url", "doi"}
REFERENCE = {"type", "title", "authors", "collection-title", "conference", "year", "notes", "doi", "url"}


def test_citation_file_has_what_its_format_wants():
    """Keys that Citation File Format 1.2.0 requires, and no key that it does not know; the paper's authors are people."""
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert cited["cff-version"] == "1.2.0"
    assert set(cited) >= CITED
    assert set(cited) <= CITED | CITABLE
    assert cited["license"] == PROJECT["project"]["license"]
    paper = cited["preferred-citation"]
    assert {"type", "title", "authors"} <= set(paper) <= REFERENCE
    assert all(set(author) == {"family-names", "given-names"} for author in paper["authors"])
    assert isinstance(paper["year"], int)


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
    named = {name.removeprefix("iccld.") for name in kept["source_modules"]}
    folders = {name for name in placed if (ROOT / "src" / "iccld" / name).is_dir()}
    assert named == {*(placed - CONFIGURED), *(f"{name}.**" for name in folders - CONFIGURED)}
    settings = {f"iccld.config.{path.stem}" for path in (ROOT / "src" / "iccld" / "config").glob("[!_]*.py")}
    assert set(kept["forbidden_modules"]) == {"iccld.config", *settings} - {"iccld.config.views", "iccld.config.optimisation"}


def num_arguments(function: ast.FunctionDef) -> int:
    arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    return len([argument for argument in arguments if argument.arg not in ("self", "cls")])


def long_functions(tree: ast.AST, prefix: str = "") -> set[str]:
    """Names of the functions in it that take more than ten arguments, with those of the classes around them."""
    found = set()
    for node in ast.iter_child_nodes(tree):
        name = f"{prefix}{node.name}" if isinstance(node, ast.ClassDef | ast.FunctionDef) else ""
        if isinstance(node, ast.FunctionDef) and num_arguments(node) > 10:
            found.add(name)
        found |= long_functions(node, f"{name}." if name else prefix)
    return found


def test_functions_take_at_most_ten_arguments():
    package = ROOT / "src" / "iccld"
    found = {str(path.relative_to(package)): long_functions(ast.parse(path.read_text(encoding="utf-8"))) for path in package.rglob("*.py")}
    assert {path: names for path, names in found.items() if names} == {}


def test_test_modules_have_names_of_their_own():
    names = [path.stem for path in (ROOT / "tests").rglob("test_*.py")]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("word", ["TO" + "DO", "FIX" + "ME"])
def test_sources_hold_no_leftovers(word):
    assert [str(path) for path in OWN if word in path.read_text(encoding="utf-8")] == []
