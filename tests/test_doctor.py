"""What the doctor finds, on machines that are made up and on this one."""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from iccld import __version__, doctor
from iccld.cli import main
from iccld.errors import ConfigError
from iccld.runs.provenance import commit_of


def installed(**versions):
    def version(name):
        if name not in versions:
            raise PackageNotFoundError(name)
        return versions[name]

    return version


@pytest.mark.parametrize(
    ("versions", "pins", "is_mismatched"),
    [
        ({"torch": "2.13.0"}, None, False),
        ({"torchvision": "0.28.0"}, ["torch==2.13.0"], False),
        ({"torch": "2.13.0+cpu", "torchvision": "0.28.0+cpu"}, ["numpy", "torch==2.13.0"], False),
        ({"torch": "2.13.0+cpu", "torchvision": "0.27.0"}, ["torch (==2.12.0)"], True),
        ({"torch": "2.13.0", "torchvision": "0.27.0"}, ["numpy", "torch==2.12.0"], True),
        ({"torch": "2.13.0", "torchvision": "0.27.0"}, None, False),
    ],
)
def test_torchvision_built_for_another_torch_is_found(versions, pins, is_mismatched):
    found = doctor.torchvision_mismatch(installed(**versions), lambda name: pins)
    assert (found is not None) == is_mismatched
    if found:
        assert "2.12.0" in found
        assert "2.13.0" in found
        assert "pip uninstall torchvision" in found


def test_guard_raises_one_line(monkeypatch):
    monkeypatch.setattr(doctor, "torchvision_mismatch", lambda: "mismatch; remedy")
    with pytest.raises(ConfigError, match="mismatch; remedy"):
        doctor.require_matching_torchvision()


def test_mismatch_is_found_behind_wrapped_errors():
    inner = RuntimeError("operator torchvision::nms does not exist")
    outer = ImportError("Failed to import diffusers")
    outer.__cause__ = inner
    assert "torchvision" in (doctor.mismatch_behind(outer) or "")
    assert doctor.mismatch_behind(RuntimeError("something else")) is None


def test_free_space_is_positive(tmp_path):
    assert 0 < doctor.free_memory_gib() < 1e5
    assert doctor.free_disk_gib(tmp_path / "not" / "yet" / "there") > 0


def test_probe_measures_speed():
    assert doctor.measure_gflops(torch.device("cpu"), torch.float32, seconds=0.01) > 0.01


def test_hour_plan_scales_iterations():
    plan = doctor.hour_plan({"demo": {"iterations": 1000.0, "seconds": 1800.0}})
    assert plan["demo"]["iterations_an_hour"] == pytest.approx(2000.0)


def test_examine_tells_this_machine():
    found = doctor.examine(Path("runs"), probe_seconds=0.01)
    assert found.packages["torch"] == torch.__version__
    assert found.threads == torch.get_num_threads()
    assert found.speed_gflops["fp32"] > 0
    assert json.loads(json.dumps(found.as_dict()))["python"].startswith(f"{sys.version_info[0]}.")


def test_little_memory_is_a_problem(monkeypatch):
    monkeypatch.setattr(doctor, "free_memory_gib", lambda: 0.5)
    assert any("0.5 GiB of memory" in problem for problem in doctor.examine(probe_seconds=0.01).problems)


NEEDS = [
    "torch>=2.10",
    'jinja2>=3.1; extra == "report"',
    "onnx>=1.17; extra == 'onnx'",
    'a-package-that-is-not-there>=1; extra == "onnx"',
    'iccld[onnx,report]; extra == "all"',
]


def test_extras_tell_what_they_lack():
    found = doctor.extras_found(lambda name: NEEDS, ["report", "onnx", "all", "nothing"])
    assert found["onnx"].startswith("lacks ")
    assert "a-package-that-is-not-there" in found["onnx"]
    assert "torch" not in found["onnx"]
    assert set(found) == {"report", "onnx"}


def test_a_source_that_is_not_installed_has_no_extras():
    def nothing(name):
        raise PackageNotFoundError(name)

    assert doctor.extras_found(nothing, ["report"]) == {}


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_commit_is_that_of_tracked_files_alone(tmp_path):
    """A virtual environment inside a checkout does not have the checkout's commit."""
    git = ["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=e"]
    for folder in ("own", "environment"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "file.py").write_text("pass\n")
    for words in (["init", "-q"], ["add", "own"], ["commit", "-qm", "first"]):
        subprocess.run([*git, *words], check=True)
    commit, is_dirty = commit_of(tmp_path / "own")
    assert len(commit or "") == 40
    assert is_dirty is False
    assert commit_of(tmp_path / "environment") == (None, None)


def test_bug_report_tells_the_machine_in_one_table():
    found = doctor.examine(probe_seconds=0.0)
    assert found.speed_gflops == {}
    text = doctor.bug_report(replace(found, commit="abc123", problems=["a | b"]))
    assert text.splitlines()[1] == "|---|---|"
    assert {line.count("|") for line in text.splitlines()} == {3}
    for said in (__version__, "commit abc123", platform.python_version(), f"torch {torch.__version__}", found.cpu, "a / b"):
        assert said in text


def test_command_prints_what_a_bug_report_needs(capsys, monkeypatch):
    monkeypatch.setattr("iccld.cli.doctor._estimates", lambda: pytest.fail("a bug report needs no estimates"))
    main(["doctor", "--markdown"])
    assert f"| iccld | {__version__}" in capsys.readouterr().out


def test_command_prints_json(capsys, monkeypatch):
    real = doctor.examine
    monkeypatch.setattr("iccld.cli.doctor.examine", lambda: real(probe_seconds=0.01))
    measure = SimpleNamespace(estimate=lambda config: {"seconds": 60.0, "memory_gib": 1.0, "disk_gib": 1.0})
    monkeypatch.setattr("iccld.measure", measure, raising=False)
    monkeypatch.setitem(sys.modules, "iccld.measure", measure)
    assert main(["doctor", "--json", "-"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert {"demo", "city_to_camvid"} <= set(told["recipes"])
    assert not any("_to_cityscapes_" in name for name in told["recipes"])  # for a GPU, and with weights to fetch
    iterations = told["recipes"]["demo"]["iterations"]
    assert told["recipes"]["demo"]["iterations_an_hour"] == pytest.approx(60 * iterations)
