"""Parts of many pictures: who predicts what, what is skipped, what is merged, archives, and a million lines."""

from __future__ import annotations

import io
import json
import os
import tarfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from iccld.cli import main
from iccld.errors import ConfigError, DataError
from iccld.labels import LabelSpace, get_label_space
from iccld.predict import predict_paths
from iccld.predict.journal import MERGED, Journal, merge
from iccld.predict.many import predict_many
from iccld.predict.shards import Shard, shard_of, walk
from iccld.predictor import Predictor

SLURM = {"SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_COUNT": "4", "SLURM_ARRAY_TASK_MIN": "1", "SLURM_ARRAY_TASK_STEP": "2"}
"""Of `--array=1-7:2`."""


class Brightness(nn.Module):
    """Bright pixels are class 0, dark ones class 1."""

    def forward(self, images: Tensor, noise: Tensor | None) -> Tensor:
        grey = images.mean(1, keepdim=True)
        return torch.cat([grey, -grey] + [torch.full_like(grey, -9.0)] * 9, 1)


def a_predictor() -> Predictor:
    space: LabelSpace = get_label_space("camvid11")
    return Predictor(Brightness(), space, working_size=None, size_multiple=1, mean=(0.5,) * 3, std=(0.5,) * 3)


def picture(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 12, 3), dtype=np.uint8))


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    for number in range(20):
        path = folder / f"camera{number % 3}" / f"{number:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(number).save(path)
    return folder


def masks(out: Path) -> dict[str, bytes]:
    return {path.relative_to(out / "train_ids").as_posix(): path.read_bytes() for path in (out / "train_ids").rglob("*.png")}


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_shards_together_are_the_whole(pictures: Path, tmp_path: Path) -> None:
    whole, split = tmp_path / "whole", tmp_path / "split"
    predict_paths(a_predictor(), [pictures], whole)
    counts = [predict_many(a_predictor(), [pictures], split, Shard(index, 3)) for index in range(3)]
    assert sum(each.done for each in counts) == 20
    assert all(each.done > 0 for each in counts)
    assert masks(split) == masks(whole)
    assert merge(split) == (20, 0)
    merged = [each for each in lines(split / MERGED) if "picture" in each]
    assert {each["picture"] for each in merged} == {str(path) for path in pictures.rglob("*.png")}
    assert all((split / each["outputs"]["train_ids"]).is_file() for each in merged)  # type: ignore[index]


def test_a_second_start_does_what_is_missing_or_changed(pictures: Path, tmp_path: Path) -> None:
    out, shard = tmp_path / "out", Shard(0, 1)
    assert predict_many(a_predictor(), [pictures], out, shard).done == 20
    (out / "train_ids" / "camera0" / "000.png").unlink()
    changed = pictures / "camera1" / "001.png"
    Image.fromarray(np.zeros((8, 12, 3), np.uint8)).save(changed)
    os.utime(changed, ns=(1, 1))
    counts = predict_many(a_predictor(), [pictures], out, shard)
    assert (counts.done, counts.skipped) == (2, 18)
    assert merge(out) == (20, 0)
    [line] = [each for each in lines(out / MERGED) if each.get("picture") == str(changed)]
    assert line["mtime_ns"] == 1
    assert predict_many(a_predictor(), [pictures], out, shard, model="another").skipped == 0


def test_a_killed_start_leaves_a_torn_line_that_is_taken_away(pictures: Path, tmp_path: Path) -> None:
    out, shard = tmp_path / "out", Shard(0, 1)
    predict_many(a_predictor(), [pictures], out, shard)
    journal = out / "predictions-0-of-1.jsonl"
    journal.write_bytes(journal.read_bytes()[:-7])
    counts = predict_many(a_predictor(), [pictures], out, shard)
    assert (counts.done, counts.skipped) == (1, 19)
    assert merge(out) == (20, 0)


def test_bad_pictures_are_noted_and_told_when_merged(pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (pictures / "camera0" / "bad.png").write_bytes(b"none")
    counts = predict_many(a_predictor(), [pictures], out, Shard(0, 1))
    assert (counts.done, counts.failed) == (20, 1)
    assert "bad.png" in counts.first_failure
    assert merge(out) == (21, 1)
    assert main(["predict", "--merge", str(out)]) == 3
    (pictures / "camera0" / "bad.png").unlink()
    picture(99).save(pictures / "camera0" / "bad.png")
    assert predict_many(a_predictor(), [pictures], out, Shard(0, 1)).done == 1
    assert main(["predict", "--merge", str(out)]) == 0


def test_merge_refuses_what_is_not_whole(pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(DataError, match="no journal of a shard"):
        merge(out)
    predict_many(a_predictor(), [pictures], out, Shard(1, 3))
    with pytest.raises(DataError, match=r"no journal of shard 0 \(2 missing\)"):
        merge(out)
    predict_many(a_predictor(), [pictures], out, Shard(0, 2))
    with pytest.raises(DataError, match="2 and 3 shards"):
        merge(out)
    assert not (out / MERGED).exists()
    assert main(["predict", "--merge", str(tmp_path / "nowhere")]) == 3
    assert main(["predict", "run", "--merge", str(out)]) == 2
    capsys.readouterr()
    assert main(["predict"]) == 2
    assert "required" in capsys.readouterr().err


def test_archives_are_predicted_whole_by_one_shard(tmp_path: Path) -> None:
    archives = []
    for number in range(4):
        archives.append(tmp_path / f"shard-{number:06}.tar")
        with tarfile.open(archives[-1], "w") as tar:
            for member in range(5):
                for suffix, content in ((".png", _png(10 * number + member)), (".json", b"{}")):
                    entry = tarfile.TarInfo(f"{member:04}{suffix}")
                    entry.size = len(content)
                    tar.addfile(entry, io.BytesIO(content))
    out = tmp_path / "out"
    counts = [predict_many(a_predictor(), archives, out, Shard(index, 2)) for index in range(2)]
    assert sum(each.done for each in counts) == 20
    assert all(each.done % 5 == 0 for each in counts)
    assert len(masks(out)) == 20
    with Image.open(out / "train_ids" / "shard-000001" / "0003.png.png") as mask:
        assert mask.size == (12, 8)
    assert predict_many(a_predictor(), archives, out, Shard(0, 2)).done == 0
    assert [path for path in out.iterdir() if path.name.startswith(".")] == []
    merge(out)
    assert any(each.get("picture") == f"{archives[1]}!0003.png" for each in lines(out / MERGED))
    cut = tmp_path / "cut.tar"
    cut.write_bytes(archives[0].read_bytes()[:1300])
    bad = predict_many(a_predictor(), [cut], tmp_path / "bad", Shard(0, 1))
    assert (bad.done, bad.failed) == (1, 1)
    assert "no whole tar archive" in bad.first_failure


def test_webdatasets_own_shards_are_predicted(tmp_path: Path) -> None:
    """Shards that webdataset's writer made, compressed and not, with text and numbers beside the pictures."""
    webdataset = pytest.importorskip("webdataset")
    for name in ("shard-000000.tar", "shard-000001.tar.gz"):
        with webdataset.TarWriter(str(tmp_path / name)) as shard:
            for number in range(3):
                shard.write({"__key__": f"{number:04}", "png": _png(number), "txt": "a street", "cls": number})
    paths = sorted(tmp_path.glob("*.tar*"))
    out = tmp_path / "out"
    counts = predict_many(a_predictor(), paths, out, Shard(0, 1))
    assert (counts.done, counts.failed) == (6, 0)
    folders = sorted({name.rpartition("/")[0] for name in masks(out)})
    assert len(folders) == 2
    assert sorted(masks(out)) == [f"{folder}/{number:04}.png.png" for folder in folders for number in range(3)]


def _png(seed: int) -> bytes:
    data = io.BytesIO()
    picture(seed).save(data, format="PNG")
    return data.getvalue()


@pytest.mark.parametrize(
    ("text", "environment", "expected"),
    [
        ("3/16", {}, (3, 16)),
        (
            "auto",
            {"SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_COUNT": "4", "SLURM_ARRAY_TASK_MIN": "1", "SLURM_ARRAY_TASK_STEP": "2"},
            (3, 4),
        ),
        ("auto/8", {"JOB_COMPLETION_INDEX": "5"}, (5, 8)),
        ("auto", {"RANK": "1", "WORLD_SIZE": "2"}, (1, 2)),
    ],
)
def test_shard_is_found(text: str, environment: dict[str, str], expected: tuple[int, int]) -> None:
    assert shard_of(text, environment) == Shard(*expected)


@pytest.mark.parametrize(
    ("text", "environment", "words"),
    [
        ("16/16", {}, "does not exist"),
        ("0/0", {}, "does not exist"),
        ("3", {}, "write 3/16"),
        ("three", {}, "write 3/16"),
        ("auto", {}, "no SLURM_ARRAY_TASK_ID"),
        ("auto", {"JOB_COMPLETION_INDEX": "5"}, "no number of completions"),
        ("auto/4", {"RANK": "1", "WORLD_SIZE": "2"}, "runs 2 processes"),
        ("auto", {"RANK": "x", "WORLD_SIZE": "2"}, "cannot be read"),
        ("auto", {"SLURM_ARRAY_TASK_ID": "3"}, "cannot be read"),
    ],
)
def test_shard_that_cannot_be_is_refused(text: str, environment: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        shard_of(text, environment)


def test_walk_names_pictures_once_and_leaves_out_what_is_none(pictures: Path) -> None:
    picture(0).save(pictures / "camera0" / "000.jpg")
    (pictures / "camera0" / ".hidden.png").write_bytes(b"")
    (pictures / "camera0" / "note.txt").write_text("")
    (pictures / "loop").symlink_to(pictures)
    names = [name for _, name in walk(pictures, pictures / "out")]
    assert len(names) == len(set(names)) == 21
    assert {"camera0/000.jpg", "camera0/000.png", "camera1/001"} <= set(names)
    (pictures / "gtFine").mkdir()
    picture(1).save(pictures / "gtFine" / "a.png")
    with pytest.raises(DataError, match="masks or depth maps by its name"):
        list(walk(pictures, pictures / "out"))


def test_folder_without_pictures_and_twins_are_refused(tmp_path: Path, pictures: Path) -> None:
    empty = tmp_path / "a" / "pictures"
    empty.mkdir(parents=True)
    with pytest.raises(DataError, match="no pictures found"):
        predict_many(a_predictor(), [empty], tmp_path / "out", Shard(0, 1))
    with pytest.raises(ConfigError, match="two of the paths are called 'pictures'"):
        predict_many(a_predictor(), [empty, pictures], tmp_path / "out", Shard(0, 1))
    with pytest.raises(DataError, match="no such file"):
        predict_many(a_predictor(), [tmp_path / "nowhere"], tmp_path / "out", Shard(0, 1))


@pytest.mark.slow
def test_a_million_lines_are_merged_and_skipped_in_little_memory(tmp_path: Path) -> None:
    journal, count = tmp_path / "predictions-0-of-1.jsonl", 1_000_000
    key = Journal(tmp_path, {}, Shard(0, 1)).key
    with journal.open("a") as file:
        for number in range(count):
            file.write(f'{{"picture": "/p/{number}", "bytes": 1, "mtime_ns": {number}, "settings": "{key}", "outputs": {{}}}}\n')
    tracemalloc.start()
    opened = Journal(tmp_path, {}, Shard(0, 1))
    assert opened.is_done("/p/999999", [1, 999_999], [])
    assert not opened.is_done("/p/999999", [1, 5], [])
    assert merge(tmp_path) == (count, 0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 * 2**20
    with (tmp_path / MERGED).open() as merged:
        assert sum(1 for _ in merged) == count + 1
