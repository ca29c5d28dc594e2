"""Every command of README.md and docs/: all of them are understood by the parser; the slow tests run those in ```sh fences.

Commands run in one folder, in the order of the page.  Training runs at a few iterations on a few scenes: what is tested is that the
command works as printed, not what it scores.  A command that names a run uses the one of that name in this checkout's `runs/`.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from iccld.city import render_scene
from iccld.cli.parser import parse
from iccld.config import load_config

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
CAMVID = ROOT.parent / "shared" / "data" / "camvid"

NOT_RUN = ("make", "git", "pip", "torchrun")
"""Programs that install, fetch, or need several devices: run by hand."""

SHORT = [
    *("--stages.source.iterations", "2", "--stages.step1.iterations", "2", "--stages.step2.iterations", "2"),
    *("--evaluation.compare_images", "1", "--runtime.threads", "1"),
]
SCENES = {"source": ["--source.generate.num", "6", "--source.holdout", "2"], "target": ["--target.generate.num", "4"]}
VAL = ["--val.generate.num", "2"]


def fences(page: Path) -> Iterator[tuple[str, str]]:
    """(language, text) of every fenced block."""
    for match in re.finditer(r"^```(\w*)\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL):
        yield match[1], match[2]


def commands(page: Path, languages: tuple[str, ...]) -> list[str]:
    """The commands of a page's fences, comments cut off and continued lines joined."""
    found = []
    for language, text in fences(page):
        if language in languages:
            lines = (re.sub(r"(^|\s)#.*", "", line).strip() for line in text.replace("\\\n", " ").splitlines())
            found += [line for line in lines if line]
    return found


DOCUMENTED = [(page.name, command) for page in PAGES for command in commands(page, ("", "sh")) if command.startswith("iccld ")]
RUN = [(page.name, command) for page in PAGES for command in commands(page, ("sh",))]


def test_commands_are_found() -> None:
    """Were the fences read wrongly, everything below would pass."""
    assert [command.split()[1] for name, command in DOCUMENTED if name == "README.md"] == ["adapt", "predict"]
    assert len(DOCUMENTED) > 40
    assert any("adapt" in command for _, command in RUN)


@pytest.mark.parametrize(("page", "command"), DOCUMENTED)
def test_documented_command_is_understood(page: str, command: str) -> None:
    """Flags and dotted keys exist and take the values shown; nothing is run."""
    words = shlex.split(re.split(r"\s(?:\||>|&&)\s", command)[0])[1:]
    if {"--help", "--version"} & set(words):
        return
    _, arguments, rest = parse(words)
    if arguments.takes_overrides:
        usual = "city_to_folder" if "--from" in words else "demo"  # an adapter's settings go on top of a run of one's own pictures
        load_config(getattr(arguments, "recipe", None) or usual, rest)


def shortened(command: str) -> str:
    """A training command with a few iterations, and a few scenes in place of the recipe's."""
    words = shlex.split(command)
    if words[:2] not in (["iccld", "adapt"], ["iccld", "demo"]) or any(word in words for word in ("--print_config", "--help_settings")):
        return command
    extra = [*SHORT]
    for domain, options in SCENES.items():
        extra += [] if f"--{domain}.path" in words else options
    extra += [] if "--val.path" in words or {"city_to_camvid", "city_to_folder"} & set(words) else VAL
    return f"{command} {' '.join(extra)}"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `pictures/`, and the YAML files that the pages show: those in ```yaml fences that begin with `# NAME.yaml`.

    No dataset.yaml: that one lies in the data it describes, and here would speak for the pictures.
    """
    folder = tmp_path_factory.mktemp("commands")
    (folder / "pictures").mkdir()
    for seed in range(3):
        Image.fromarray(render_scene("camera", seed, (240, 320)).image).save(folder / "pictures" / f"{seed}.png")
    for page in PAGES:
        for language, text in fences(page):
            if language == "yaml" and (name := re.match(r"# (?!dataset\.)([\w-]+\.yaml)\n", text)):
                (folder / name[1]).write_text(text, encoding="utf-8")
    return folder


def forget_run(command: str, place: Path) -> None:
    """Several pages train a run of one name: each of them begins anew, without the run and the files of the page before."""
    words = shlex.split(command)
    if words[:2] == ["iccld", "adapt"] and "--name" in words and not {"--from", "--resume"} & set(words):
        shutil.rmtree(place / "runs" / words[words.index("--name") + 1], ignore_errors=True)


@pytest.mark.slow
@pytest.mark.parametrize(("page", "command"), RUN)
def test_command_runs(page: str, command: str, place: Path) -> None:
    program = next(word for word in shlex.split(command) if not re.match(r"\w+=", word))  # behind NAME=value
    if program in NOT_RUN:
        pytest.skip(f"{program} is run by hand")
    assert program == "iccld", "a program that this test does not know: add it to NOT_RUN, or run it"
    if "$CAMVID" in command and not CAMVID.is_dir():
        pytest.skip(f"needs the CamVid folder at {CAMVID}")
    if command.split()[1] != "adapt":
        for name in re.findall(r"\bruns/([\w.-]+)", command):
            if not (place / "runs" / name).is_dir():
                if not (ROOT / "runs" / name / "config.yaml").is_file():
                    pytest.skip(f"needs the trained run runs/{name}")
                shutil.copytree(ROOT / "runs" / name, place / "runs" / name)
    forget_run(command, place)
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "CAMVID": str(CAMVID),
        "ICCLD_CACHE": str(place / "cache"),
    }
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", shortened(command)],
        cwd=place, env=environment, capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
