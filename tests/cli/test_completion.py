"""Completion scripts: what bash, zsh and fish themselves make of them."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from iccld.cli import main
from iccld.cli.completion import completed_parser
from iccld.cli.parser import build_parser
from iccld.config import known_keys, recipe_names

BASH = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
_shtab_iccld
printf '%s\\n' "${COMPREPLY[@]}"
"""

FISH = 'source $argv[1]; complete --do-complete "$argv[2]"'

ZSH = "PS1= ; fpath=({folder} $fpath); autoload -U compinit; compinit -u -D; print rea''dy\n"
"""Sent to an interactive zsh, which says ready when it knows the script: a file `_iccld` in a folder of fpath."""

needs_bash, needs_zsh, needs_fish = (
    pytest.mark.skipif(shutil.which(shell) is None, reason=f"needs {shell}") for shell in ("bash", "zsh", "fish")
)


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the script of every shell, as `iccld completion` prints it."""
    folder = tmp_path_factory.mktemp("completion")
    for shell in ("bash", "zsh", "fish"):
        with (folder / shell).open("w", encoding="utf-8") as file, contextlib.redirect_stdout(file):
            assert main(["completion", shell]) == 0
    return folder


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where somebody types: a run, a recipe, a folder of pictures."""
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    (tmp_path / "rush hour").mkdir()
    (tmp_path / "rules.yaml").touch()
    return tmp_path


def asked(words: list[str], cwd: Path) -> set[str]:
    """Lines that a shell prints."""
    done = subprocess.run(words, cwd=cwd, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return {line for line in done.stdout.splitlines() if line}


CASES = [
    ("ad", {"adapt", "adapters"}),
    ("data ", {"generate", "check"}),
    ("checkpoint ver", {"verify"}),
    ("adapt --rec", {"--recipe"}),
    ("adapt --recipe gta5_to_cityscapes_d", {"gta5_to_cityscapes_dacs", "gta5_to_cityscapes_daformer"}),
    ("adapt --recipe demo --method da", {"dacs", "daformer"}),
    ("adapt --stages.step1.it", {"--stages.step1.iterations"}),
    ("adapt --recipe demo --settings.thresh", {"--settings.threshold"}),
    ("adapt --recipe demo --settings.nonsense", set()),
    ("adapt --network.inter_coder ", {"true", "false"}),
    ("compare --methods adap", {"adaptsegnet"}),
    ("predict ru", {"runs", "rush hour"}),
    ("predict runs/", {"runs/mine"}),
    ("adapt --config ru", {"runs", "rush hour", "rules.yaml"}),
    ("adapt --target.path ru", {"runs", "rush hour", "rules.yaml"}),
    ("predict runs/mine rules.yaml --weights ", {"ema", "model"}),
    ("evaluate --label_space cam", {"camvid11"}),
    ("completion ", {"bash", "zsh", "fish"}),
]
"""What is typed behind `iccld`, and what may follow."""


@needs_bash
@pytest.mark.parametrize(("typed", "expected"), CASES)
def test_bash_completes(typed: str, expected: set[str], scripts: Path, place: Path) -> None:
    assert asked(["bash", "-c", BASH, "bash", str(scripts / "bash"), "iccld", *typed.split(" ")], place) == expected


@needs_fish
@pytest.mark.parametrize(("typed", "expected"), CASES)
def test_fish_completes(typed: str, expected: set[str], scripts: Path, place: Path) -> None:
    lines = asked(["fish", "--no-config", "-c", FISH, str(scripts / "fish"), f"iccld {typed}"], place)
    assert {line.split("\t")[0].rstrip("/") for line in lines} == {word.rstrip("/") for word in expected}


def read_until(terminal: int, words: set[str], seconds: float) -> str:
    """What a terminal shows until all of the words are there, or no longer."""
    shown, end = "", time.monotonic() + seconds
    while not all(word in shown for word in words) and time.monotonic() < end:
        if select.select([terminal], [], [], 0.1)[0]:
            shown += os.read(terminal, 4096).decode(errors="replace")
    return shown


@needs_zsh
@pytest.mark.parametrize(("typed", "expected"), [CASES[1], CASES[5]])
def test_zsh_completes(typed: str, expected: set[str], scripts: Path, place: Path) -> None:
    """In a terminal, since zsh completes nothing without one."""
    terminal, end = pty.openpty()
    environment = {**os.environ, "TERM": "dumb", "HOME": str(place)}
    shell = subprocess.Popen(["zsh", "-f", "-i"], stdin=end, stdout=end, stderr=end, cwd=place, env=environment, start_new_session=True)
    try:
        (place / "functions").mkdir()
        shutil.copy(scripts / "zsh", place / "functions" / "_iccld")
        os.write(terminal, ZSH.format(folder=place / "functions").encode())
        assert "ready" in read_until(terminal, {"ready"}, 30)
        os.write(terminal, f"iccld {typed}\t\t".encode())
        shown = read_until(terminal, expected, 15)
        assert all(word in shown for word in expected), shown
    finally:
        shell.kill()
        shell.wait()
        os.close(terminal)
        os.close(end)


@needs_bash
@needs_zsh
@needs_fish
@pytest.mark.parametrize("words", [["bash", "-n"], ["zsh", "-n"], ["fish", "--no-execute"]], ids=lambda words: words[0])
def test_scripts_are_valid(words: list[str], scripts: Path) -> None:
    done = subprocess.run([*words, str(scripts / words[0])], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@needs_bash
def test_bash_knows_every_recipe(scripts: Path, place: Path) -> None:
    words = ["bash", "-c", BASH, "bash", str(scripts / "bash"), "iccld", "adapt", "--recipe", ""]
    assert asked(words, place) == set(recipe_names())


def test_every_setting_is_a_flag_where_settings_are_taken() -> None:
    grown, (_, leaves) = completed_parser(), build_parser()
    (commands,) = [action for action in grown._actions if action.dest == "==SUPPRESS=="]
    for name, leaf in leaves.items():
        if leaf.get_default("takes_overrides"):
            flags = {flag for action in commands.choices[name]._actions for flag in action.option_strings}
            assert {f"--{key}" for key in known_keys()} - {"--recipe", "--settings"} <= flags


def test_what_parses_is_left_as_it_was() -> None:
    """Suggestions are no restrictions: stages of methods from elsewhere, and label spaces in files, are still taken."""
    completed_parser()
    _, leaves = build_parser()
    by_name = {action.dest: action for action in leaves["evaluate"]._actions}
    assert by_name["stage"].choices is None
    assert by_name["label_space"].choices is None


def test_another_shell_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "csh"]) == 2
    assert "bash" in capsys.readouterr().err
