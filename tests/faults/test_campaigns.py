"""Many kills, signals, damaged files, configurations and pictures.  Small by default; FAULTS=full is what docs/reliability.md reports."""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from iccld.assembly.chosen import method_settings, registered_method
from iccld.assembly.objects import make_parts, optimisations
from iccld.config import Config, dump_config, known_keys, load_config
from iccld.data import open_dataset
from iccld.data.check import check_dataset
from iccld.errors import CheckpointError, ConfigError
from iccld.labels import LabelClass, LabelSpace, get_label_space
from iccld.training import checkpoint
from iccld.training.checkpoint import Payload

Scale = Callable[[int, int], int]
Record = Callable[[str, object], None]


def campaign(kind: str, count: int, folder: Path) -> dict[str, int]:
    """Run campaigns.py in a fresh process; returns what it counted."""
    script = Path(__file__).with_name("campaigns.py")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(script.parents[2] / "src")}
    command = [sys.executable, str(script), kind, str(count), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=3600, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    told: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return told


@pytest.mark.slow
def test_fault_01_every_run_killed_while_saving_goes_on_to_the_same_end(tmp_path: Path, scale: Scale, record_property: Record) -> None:
    told = campaign("kill", scale(200, 6), tmp_path)
    record_property("figure", f"{told['resumed']}/{told['kills']} resumed")
    assert told["kills"] >= scale(200, 6)
    assert told["resumed"] == told["kills"]
    assert (told["lost_saves"], told["wrong_ends"]) == (0, 0)
    assert told["finished_runs"] >= 1


@pytest.mark.slow
def test_fault_04_every_signal_saves_the_step_at_hand(tmp_path: Path, scale: Scale, record_property: Record) -> None:
    told = campaign("signal", scale(50, 4), tmp_path)
    record_property("figure", f"{told['saved']}/{told['signals']} saved, at most {told['most_steps_lost']} steps lost")
    assert told["signals"] >= scale(50, 4)
    assert told["saved"] == told["signals"]
    assert told["most_steps_lost"] <= 1
    assert (told["other_exits"], told["wrong_ends"]) == (0, 0)


# --- damaged checkpoints --------------------------------------------------------------------------------------------------

DAMAGES: dict[str, Callable[[bytes, random.Random, bytes], bytes | None]] = {
    "truncated": lambda content, draw, other: content[: draw.randrange(len(content))],
    "flipped": lambda content, draw, other: _flipped(content, draw),
    "zeroed": lambda content, draw, other: _block(content, draw, lambda size: bytes(size)),
    "scrambled": lambda content, draw, other: _block(content, draw, draw.randbytes),
    "extended": lambda content, draw, other: content + draw.randbytes(draw.randint(1, 64)),
    "missing": lambda content, draw, other: None,
    "of another checkpoint": lambda content, draw, other: other,
}


def _flipped(content: bytes, draw: random.Random) -> bytes:
    damaged = bytearray(content)
    damaged[draw.randrange(len(damaged))] ^= 1 << draw.randrange(8)
    return bytes(damaged)


def _block(content: bytes, draw: random.Random, fill: Callable[[int], bytes]) -> bytes:
    """Up to 4 KiB overwritten, as by a disk's lost block."""
    start = draw.randrange(len(content))
    size = min(draw.randint(1, 4096), len(content) - start)
    return content[:start] + fill(size) + content[start + size :]


def payload(value: float) -> Payload:
    weight = torch.full((4, 3, 3, 3), value)
    state = {"optimizers": {"net": {"state": {0: {"exp_avg": weight * value}}}}, "progress": {"iteration": value}}
    return Payload({"net.weight": weight}, {"net.weight": weight / 2}, state)


def test_fault_07_every_damage_is_seen_and_the_checkpoint_before_is_taken(tmp_path: Path, scale: Scale, record_property: Record) -> None:
    stage = checkpoint.stage_directory(tmp_path / "run", "step1")
    older, newer = (checkpoint.save(stage, iteration, payload(float(iteration))) for iteration in (4, 8))
    whole = {name: (newer / name).read_bytes() for name in (*checkpoint.FILES, checkpoint.MANIFEST)}
    draw, tried, detected, wrong = random.Random(0), 0, 0, 0
    for repetition in range(scale(350, 70) // (len(DAMAGES) * len(whole))):
        for kind, damage in DAMAGES.items():
            for name, content in whole.items():
                damaged = damage(content, draw, (older / name).read_bytes())
                if damaged == content:  # the same state of another iteration, or zeros over zeros
                    damaged = _flipped(content, draw)
                (newer / name).unlink()
                if damaged is not None:
                    (newer / name).write_bytes(damaged)
                tried += 1
                try:
                    checkpoint.load(newer)
                except CheckpointError:
                    detected += 1
                else:
                    wrong += 1
                fallback = checkpoint.load_latest(stage)
                assert fallback is not None, (repetition, kind, name)
                wrong += float(fallback.model["net.weight"].mean()) != 4.0
                (newer / name).write_bytes(content)
    record_property("figure", f"{detected}/{tried} detected, {wrong} wrong loads")
    assert (detected, wrong) == (tried, 0)
    assert checkpoint.load(newer).iteration == 8  # put back byte by byte, it is whole again


# --- configurations -------------------------------------------------------------------------------------------------------

NASTY: list[str] = [
    *("0", "-1", "1", "2", "3", "7", "8", "16", "100", "0.5", "1.5", "-0.0", "1e-3", "1e30", "1e400", "99999999999999999999"),
    *(".nan", "nan", ".inf", "-.inf", "null", "true", "no", "''", "{}", "[]", "[1, 2]", "{a: 1}", "1,2,3", "8,16", "a,b"),
    *("cpu", "cuda", "auto", "bf16", "whole", "0x0", "64x96", "32x64", "128x192", "99999999x1", "24,48,96,160,224"),
    *("x", "ä ö", "../..", "/", "a b", "*", "!!x", "%s", "${x}", "\t", "\x00", "cityscapes19", "camvid11", "folder", "gta5"),
    *("iccld", "source_only", "step1", "compact", "sample", "epsilon"),
]


def plain_values() -> dict[str, str]:
    """Dotted key -> the demo's own value, as one would write it: what keeps a share of the configurations usable."""
    values: dict[str, str] = {}

    def collect(tree: dict[str, Any], prefix: str) -> None:
        for key, value in tree.items():
            if isinstance(value, dict) and prefix + key != "settings":
                collect(value, f"{prefix}{key}.")
            else:
                values[prefix + key] = yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("...\n").strip()

    collect(yaml.safe_load(dump_config(load_config("demo"))), "")
    return values


def random_overrides(draw: random.Random, keys: list[str], plain: dict[str, str]) -> list[str]:
    """One to four settings; now and then a key is misspelt, or a word is out of place."""
    words: list[str] = []
    for _ in range(draw.randint(1, 4)):
        key = draw.choice(keys)
        value = plain[key] if key in plain and draw.random() < 0.6 else draw.choice(NASTY)
        if draw.random() < 0.1:
            position = draw.randrange(len(key))
            key = key[:position] + draw.choice("abc._-") + key[position + 1 :]
        words += [f"--{key}", value] if draw.random() < 0.6 else [f"--{key}={value}"]
    if draw.random() < 0.05:
        words.insert(draw.randrange(len(words) + 1), draw.choice(NASTY))
    return words


def random_file(draw: random.Random, keys: list[str], plain: dict[str, str]) -> str:
    """A YAML file of nested settings whose values are of any kind; now and then cut off."""
    values: dict[str, Any] = {}
    for _ in range(draw.randint(1, 5)):
        key = draw.choice(keys)
        *groups, leaf = key.split(".")
        inner = values
        for group in groups:
            step = inner.setdefault(group, {})
            inner = step if isinstance(step, dict) else {}
        word = plain[key] if key in plain and draw.random() < 0.6 else draw.choice(NASTY)
        try:
            inner[leaf] = yaml.safe_load(word) if draw.random() < 0.7 else word
        except yaml.YAMLError:
            inner[leaf] = word
    text: str = yaml.safe_dump(values, allow_unicode=True)
    return text[: draw.randrange(len(text))] if draw.random() < 0.1 else text


def use(config: Config) -> None:
    """Everything that is done with a configuration before data are read; networks of moderate size are laid out without memory."""
    registered_method(config.method)
    method_settings(config)
    optimisations(config)
    space = get_label_space(config.label_space)
    network = config.network
    if (
        network.preset == "compact"
        and max(*network.widths, *network.denoiser_widths, network.decoder_width, network.latent_channels) <= 256
    ):
        made = make_parts(config, space)
        with torch.device("meta"):
            made.make_segmenter()


def test_fault_38_random_configurations_are_used_or_refused_in_one_line(tmp_path: Path, scale: Scale, record_property: Record) -> None:
    keys = [*known_keys(), *(f"settings.{name}" for name in ("threshold", "sampler_steps", "train_at", "prediction", "unknown"))]
    used = refused = 0
    count, plain = scale(10_000, 150), plain_values()
    for number in range(count):
        draw = random.Random(number)
        try:
            if number % 3 == 2:
                file = tmp_path / "config.yaml"
                file.write_text(random_file(draw, keys, plain), encoding="utf-8")
                config = load_config(file)
            else:
                config = load_config("demo", random_overrides(draw, keys, plain))
            if number % 10 == 0:
                file = tmp_path / "dumped.yaml"
                file.write_text(dump_config(config), encoding="utf-8")
                assert load_config(file) == config, number
            use(config)
            used += 1
        except ConfigError as error:
            refused += 1
            if not str(error).strip():
                pytest.fail(f"configuration {number} is refused without a word")
        except Exception as error:
            pytest.fail(f"configuration {number}: {type(error).__name__}: {error}")
    record_property("figure", f"{count} configurations: {used} used, {refused} refused")
    assert min(used, refused) > count // 20


# --- pictures -------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_fault_25_a_hundred_thousand_pictures_are_read_clean(
    tmp_path: Path, scale: Scale, record_property: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hard links to a few pictures, in folders of 10,000: every one is opened, none is doubted, and memory stays."""
    monkeypatch.setenv("ICCLD_CACHE", str(tmp_path / "cache"))
    count, generator = scale(100_000, 1_000), np.random.default_rng(0)
    originals = []
    for number in range(4):  # a file takes 65,000 links on ext4
        picture, mask = tmp_path / f"{number}.png", tmp_path / f"{number}m.png"
        Image.fromarray(generator.integers(0, 255, (8, 12, 3), dtype=np.uint8)).save(picture)
        Image.fromarray(generator.integers(0, 2, (8, 12), dtype=np.uint8)).save(mask)
        originals.append((picture, mask))
    for number in range(count):
        for kind, original in zip(("images", "masks"), originals[number % 4], strict=True):
            place = tmp_path / "data" / kind / f"{number // 10_000}" / f"{number:06d}.png"
            if number % 10_000 == 0:
                place.parent.mkdir(parents=True)
            os.link(original, place)
    space = LabelSpace("two", (LabelClass("road", (0, 0, 0)), LabelClass("sky", (1, 1, 1))))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    report = check_dataset(open_dataset(tmp_path / "data", "folder", label_space=space), workers=1)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**10
    record_property("figure", f"{report.num_labelled}/{count} clean, {grown:.0f} MiB more")
    assert report.problems == []
    assert (report.num_images, report.num_labelled) == (count, count)
    assert grown < 1024
    shutil.rmtree(tmp_path / "data")
