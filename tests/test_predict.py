"""Pictures to masks on disk: one to one, resumable, and one bad file does not stop the rest."""

import errno
import json
import os
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from iccld import files, predict
from iccld.data import MaskReader
from iccld.errors import ConfigError, DataError, NumericError
from iccld.evaluation import evaluate_predictions, sliding_window
from iccld.labels import CITYSCAPES19, LabelClass, LabelSpace
from iccld.models import CompactEncoder, InterCoderDecoder, Segmenter, TwoResolutions
from iccld.predict import Wanted, label_pictures
from iccld.predict import index as index_module
from iccld.predict.names import find_pictures, name_outputs
from iccld.predictor import Predictor

SPACE = LabelSpace("three", (LabelClass("red", (255, 0, 0)), LabelClass("green", (0, 255, 0)), LabelClass("blue", (0, 0, 255))))
predict_paths = partial(predict.predict_paths, wanted=Wanted(("all",)))
FOLDERS = {"color": ".png", "train_ids": ".png", "raw_ids": ".png", "overlay": ".jpg", "confidence": ".png"}


class Brightest(nn.Module):
    """The class is the strongest channel.  Above `limit` pixels a call runs out of memory."""

    def __init__(self, limit=None):
        super().__init__()
        self.limit = limit
        self.calls = []

    def __deepcopy__(self, memo):
        return self  # one list of calls for all threads

    def forward(self, images, noise):
        self.calls.append(tuple(images.shape))
        if self.limit is not None and images.shape[0] * images.shape[2] * images.shape[3] > self.limit:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes.")
        return images * 10


def make(limit=None, space=SPACE, **settings):
    return Predictor(Brightest(limit), space, working_size=None, size_multiple=4, mean=(0, 0, 0), std=(1, 1, 1), **settings)


def save(path, color=(200, 10, 10), size=(12, 8), mode="RGB", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).convert(mode).save(path, **options)
    return path


def load(path):
    with Image.open(path) as image:
        return np.array(image)


def outputs(out):
    return sorted(p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file())


def test_predict_writes_five_pictures_and_an_index(tmp_path):
    picture = save(tmp_path / "in" / "a.png", (250, 20, 20))
    pixels = load(picture)
    pixels[:, 6:] = (20, 250, 20)
    Image.fromarray(pixels).save(picture)
    out = tmp_path / "out"
    report = predict_paths(make(), [tmp_path / "in"], out, raw_ids=np.array([7, 11, 33]), overlay_alpha=0.5)
    assert report.done == [picture]
    assert report.failed == []
    assert outputs(out) == sorted([*(f"{folder}/a{suffix}" for folder, suffix in FOLDERS.items()), "predictions.json"])
    color, ids, raw, overlay, confidence = (load(out / folder / f"a{suffix}") for folder, suffix in FOLDERS.items())
    expected = np.zeros((8, 12), np.uint8)
    expected[:, 6:] = 1
    assert np.array_equal(ids, expected)
    with Image.open(out / "train_ids/a.png") as palette:
        assert palette.mode == "P"
        assert palette.getpalette()[:9] == SPACE.palette.ravel().tolist()
    assert np.array_equal(color, SPACE.palette[expected])
    assert np.array_equal(raw, np.array([7, 11, 33])[expected])
    certain = 1 / (1 + 2 * np.exp(-10 * (250 - 20) / 255))
    assert np.abs(confidence.astype(float) - 255 * certain).max() <= 1
    assert np.abs(overlay[0, 0].astype(float) - [252, 10, 10]).max() < 30
    entry = json.loads((out / "predictions.json").read_text())["images"][str(picture)]
    assert entry["shares"] == {"red": 0.5, "green": 0.5, "blue": 0.0}
    assert entry["outputs"] == {folder: f"{folder}/a{suffix}" for folder, suffix in FOLDERS.items()}
    assert entry["size"] == [8, 12]


def test_predict_raw_ids_default_to_those_of_cityscapes(tmp_path):
    class Cars(nn.Module):
        def forward(self, images, noise):
            return nn.functional.one_hot(torch.full(images.shape[2:], 13)[None], 19).permute(0, 3, 1, 2).float()

    save(tmp_path / "a.png")
    predictor = Predictor(Cars(), CITYSCAPES19, working_size=None, size_multiple=1, mean=(0, 0, 0), std=(1, 1, 1))
    predict_paths(predictor, [tmp_path / "a.png"], tmp_path / "out")
    assert np.unique(load(tmp_path / "out/raw_ids/a.png")).tolist() == [26]
    assert np.unique(load(tmp_path / "out/train_ids/a.png")).tolist() == [13]


def test_predict_masks_are_scored_by_evaluate_predictions(tmp_path):
    """What predict writes is what `evaluate --predictions` reads."""

    class Truth:
        names = ("x/a", "x/b c")
        image_paths = (Path("x/a.png"), Path("x/b c.png"))

        def __len__(self):
            return 2

        def __getitem__(self, index):
            from iccld.batch import Sample

            return Sample(np.zeros((8, 12, 3), np.uint8), np.full((8, 12), index, np.uint8), None, self.names[index], index)

    save(tmp_path / "in/x/a.png", (200, 0, 0))
    save(tmp_path / "in/x/b c.png", (0, 200, 0))
    predict_paths(make(), [tmp_path / "in"], tmp_path / "out")
    assert evaluate_predictions(tmp_path / "out/train_ids", Truth(), SPACE, MaskReader(SPACE)).miou == 100.0


def test_fault_25_one_bad_file_does_not_stop_the_rest(tmp_path):
    folder = tmp_path / "in"
    good = [save(folder / "a.png"), save(folder / "z.png")]
    (folder / "noise.png").write_bytes(os.urandom(500))
    data = save(folder / "cut.jpg", size=(64, 64)).read_bytes()
    (folder / "cut.jpg").write_bytes(data[: len(data) // 2])
    missing = tmp_path / "nowhere.png"
    report = predict_paths(make(), [folder, missing], tmp_path / "out", batch=2)
    assert report.done == good
    assert sorted(path.name for path, _ in report.failed) == ["cut.jpg", "noise.png", "nowhere.png"]
    assert all(reason and "\n" not in reason and str(folder) not in reason for _, reason in report.failed)
    assert set(json.loads((tmp_path / "out/predictions.json").read_text())["failed"]) == {str(path) for path, _ in report.failed}


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "CMYK", "P", "1", "I;16"])
@pytest.mark.parametrize("size", [(1, 1), (13, 7)])
def test_fault_34_common_modes_and_odd_sizes(tmp_path, mode, size):
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    if mode == "I;16":
        Image.fromarray(np.full(size[::-1], 40000, np.uint16)).save(path)
    else:
        save(path, size=size, mode=mode)
    report = predict_paths(make(), [path], tmp_path / "out")
    assert report.failed == []
    for folder, suffix in FOLDERS.items():
        assert load(tmp_path / "out" / folder / f"a{suffix}").shape[:2] == size[::-1]


def test_fault_33_exif_rotation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    save(tmp_path / "a.jpg", size=(16, 8), exif=exif)
    predict_paths(make(), [tmp_path / "a.jpg"], tmp_path / "out")
    assert load(tmp_path / "out/train_ids/a.png").shape == (16, 8)


def test_fault_35_outputs_map_one_to_one(tmp_path):
    names = ["in/a.png", "in/a.jpg", "in/A.webp", "in/sub/a.png", "in/sub dir/ü ñ.png", "other/in/a.png", "other/in/deep/b.png"]
    pictures = [save(tmp_path / name) for name in names]
    (tmp_path / "in/sub/loop").symlink_to(tmp_path / "in")
    found = [tmp_path / "in", tmp_path / "other/in", tmp_path / "in/a.png", tmp_path / "other/in/deep/b.png"]
    report = predict_paths(make(), found, tmp_path / "out")
    assert sorted(report.done) == sorted(pictures)
    written = [name for name in outputs(tmp_path / "out") if name.startswith("color/")]
    assert len(written) == len({name.casefold() for name in written}) == len(pictures)
    assert {"color/sub/a.png", "color/sub dir/ü ñ.png", "color/a.jpg.png", "color/deep/b.png"} <= set(written)


def test_fault_35_names_of_one_input_stay_and_are_never_taken_by_another(tmp_path):
    first, second = save(tmp_path / "one/a.png", (200, 0, 0)), save(tmp_path / "two/a.png", (0, 200, 0))
    out = tmp_path / "out"
    predict_paths(make(), [first], out)
    predict_paths(make(), [second], out)
    index = json.loads((out / "predictions.json").read_text())["images"]
    assert {source: entry["name"] for source, entry in index.items()} == {str(first): "a", str(second): "a~2"}
    assert load(out / "train_ids/a.png").max() == 0
    assert load(out / "train_ids/a~2.png").min() == 1
    assert predict_paths(make(), [second, first], out).skipped == [second, first]


def test_fault_35_names_clash_until_numbered():
    found = [(Path(f"/{i}"), ["a", "a.png", "in/a.png"]) for i in range(3)]
    assert [job.name for job in name_outputs(found, {})] == ["in/a.png", "in/a.png~2", "in/a.png~3"]
    odd = [["a", "a.png", "r/a.png"], ["a", "a.jpg", "r/a.jpg"], ["a.png", "a.png.tif", "r/a.png.tif"]]
    odd = [(Path(f"/{i}"), names) for i, names in enumerate(odd)]
    names = [job.name for job in name_outputs(odd, {})]
    assert len(set(names)) == 3
    assert names[1] == "a.jpg"


def test_outputs_inside_the_input_folder_are_no_inputs(tmp_path):
    save(tmp_path / "a.png")
    for _ in range(2):
        predict_paths(make(), [tmp_path], tmp_path / "out")
        assert [path.name for path, _ in find_pictures([tmp_path], tmp_path / "out")[0]] == ["a.png"]


def test_fault_36_index_names_only_what_is_on_the_disk(tmp_path, monkeypatch):
    """After a power cut an index must not stand for files that never left the cache: they are synced before it is replaced."""
    for name in "ab":
        save(tmp_path / "in" / f"{name}.png")
    events = []
    real_sync, real_replace = files.sync, os.replace
    for module in (files, index_module):
        monkeypatch.setattr(module, "sync", lambda path: (events.append(path.relative_to(tmp_path).as_posix()), real_sync(path)))
    monkeypatch.setattr(files.os, "replace", lambda a, b: (events.append(f"replace {b.name}"), real_replace(a, b)))
    predict_paths(make(), [tmp_path / "in"], tmp_path / "out")
    last = len(events) - 1 - events[::-1].index("replace predictions.json")  # an empty index comes before the first picture
    synced = set(events[:last])
    assert {f"out/{folder}/{name}{suffix}" for folder, suffix in FOLDERS.items() for name in "ab"} <= synced
    assert {f"out/{folder}" for folder in FOLDERS} <= synced
    assert events[last + 1 :] == ["out"]  # the index itself was synced under its temporary name


def test_fault_36_a_rerun_does_the_rest(tmp_path):
    pictures = [save(tmp_path / f"in/{i}.png") for i in range(4)]
    out = tmp_path / "out"
    assert len(predict_paths(make(), [tmp_path / "in"], out).done) == 4
    (out / "overlay/1.jpg").unlink()
    save(pictures[2], (0, 0, 200), size=(20, 20))
    (out / "color/.0123456789abcdef.partial").write_bytes(b"left by a killed run")
    predictor = make()
    report = predict_paths(predictor, [tmp_path / "in"], out)
    assert report.done == pictures[1:3]
    assert report.skipped == [pictures[0], pictures[3]]
    assert len(predictor.network.calls) == 2
    assert load(out / "color/2.png").shape == (20, 20, 3)


def test_other_weights_or_settings_do_finished_pictures_again(tmp_path):
    picture = save(tmp_path / "a.png")
    out = tmp_path / "out"
    predict_paths(make(), [picture], out, model="first")
    assert predict_paths(make(), [picture], out, model="first").skipped == [picture]
    assert predict_paths(make(), [picture], out, model="second").done == [picture]
    assert predict_paths(make(), [picture], out, model="second", overlay_alpha=0.3).done == [picture]
    assert predict_paths(make(), [picture], out, model="second").done == [picture]


def test_fault_36_a_run_stopped_half_way_keeps_what_it_finished(tmp_path):
    pictures = [save(tmp_path / f"in/{i}.png", size=(8, 8 + i)) for i in range(4)]

    class Interrupted(Brightest):
        def forward(self, images, noise):
            if len(self.calls) == 2:
                raise KeyboardInterrupt
            return super().forward(images, noise)

    predictor = Predictor(Interrupted(), SPACE, working_size=None, size_multiple=1, mean=(0, 0, 0), std=(1, 1, 1))
    with pytest.raises(KeyboardInterrupt):
        predict_paths(predictor, [tmp_path / "in"], tmp_path / "out")
    report = predict_paths(make(), [tmp_path / "in"], tmp_path / "out")
    assert report.skipped == pictures[:2]
    assert report.done == pictures[2:]


def test_shards_divide_the_work_and_join_their_names(tmp_path):
    for name in ["a.png", "a.jpg", "b.png", "c.png", "d.png"]:
        save(tmp_path / "in" / name)
    out = tmp_path / "out"
    done = [predict_paths(make(), [tmp_path / "in"], out, shard=(i, 2)).done for i in range(2)]
    assert [len(part) for part in done] == [3, 2]
    assert len(set(done[0] + done[1])) == 5
    assert len(list((out / "color").iterdir())) == 5
    assert len(predict_paths(make(), [tmp_path / "in"], out).skipped) == 5
    with pytest.raises(ConfigError, match="shard 2 of 2"):
        predict_paths(make(), [tmp_path / "in"], out, shard=(2, 2))


@pytest.mark.parametrize("batch", [1, 3, 10])
def test_batches_do_not_change_the_masks(tmp_path, batch):
    generator = np.random.default_rng(0)
    for i in range(5):
        Image.fromarray(generator.integers(0, 256, size=(9 + i // 3, 13, 3), dtype=np.uint8)).save(tmp_path / f"{i}.png")
    out = tmp_path / "out"
    assert len(predict_paths(make(), [tmp_path], out, batch=batch).done) == 5
    for i in range(5):
        expected = load(tmp_path / f"{i}.png").argmax(axis=2)
        assert np.array_equal(load(out / f"train_ids/{i}.png"), expected)


def random_pictures(batch, height, width):
    return torch.randint(0, 256, (batch, 3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_fault_21_fewer_windows_at_once_give_the_same_answer(capsys):
    images = random_pictures(1, 32, 32)
    expected = label_pictures(make(window=(16, 16), stride=8), images)
    predictor = make(limit=16 * 16 * 2, window=(16, 16), stride=8)
    predictor.windows_at_once = 8
    labels, certainty = label_pictures(predictor, images)
    assert torch.equal(labels, expected[0])
    assert torch.equal(certainty, expected[1])
    assert predictor.windows_at_once == 2
    assert predictor.window == (16, 16)
    assert "warning" not in capsys.readouterr().err


def test_fault_21_a_network_of_two_resolutions_takes_its_details_one_by_one_first(capsys):
    torch.manual_seed(0)
    encoder = CompactEncoder((8, 8, 16, 16, 16), 4)
    segmenter = Segmenter(encoder, InterCoderDecoder(4, encoder.pyramid_channels, 3, width=8))
    network = TwoResolutions(segmenter, 8, (32, 32), sliding_window).eval()
    predictor = Predictor(network, SPACE, working_size=None, size_multiple=16, mean=(0, 0, 0), std=(1, 1, 1))
    images = random_pictures(1, 64, 64)
    network.details_at_once = 1
    expected = label_pictures(predictor, images)
    network.details_at_once = None
    seen = []

    def refuse(_, inputs):
        seen.append(len(inputs[0]))
        if len(inputs[0]) > 1:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes.")

    segmenter.register_forward_pre_hook(refuse)
    labels, _ = label_pictures(predictor, images)
    assert torch.equal(labels, expected[0])
    assert seen == [4, *[1] * 9]
    assert predictor.window is None
    assert "warning" not in capsys.readouterr().err


def test_fault_21_smaller_windows_come_last_with_a_warning(capsys):
    images = random_pictures(2, 32, 40)
    predictor = make(limit=16 * 20)
    labels, _ = label_pictures(predictor, images)
    assert torch.equal(labels.long(), images.long().argmax(1))
    assert predictor.window is None
    assert "warning: out of memory; predicting a 32x40 picture in windows of 16x20" in capsys.readouterr().err


def test_fault_21_what_never_fits_is_reported_and_the_rest_goes_on(tmp_path):
    save(tmp_path / "a.png", size=(64, 64))
    report = predict_paths(make(limit=15), [tmp_path], tmp_path / "out")
    assert report.done == []
    assert "out of memory for a 64x64 picture even in windows of 4x4" in report.failed[0][1]


def test_other_errors_of_a_network_are_not_swallowed(tmp_path):
    class Broken(nn.Module):
        def forward(self, images, noise):
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    class Infinite(nn.Module):
        def forward(self, images, noise):
            return images / 0

    save(tmp_path / "a.png")
    settings = {"working_size": None, "size_multiple": 1, "mean": (0, 0, 0), "std": (1, 1, 1)}
    with pytest.raises(RuntimeError, match="mat1"):
        predict_paths(Predictor(Broken(), SPACE, **settings), [tmp_path], tmp_path / "out")
    with pytest.raises(NumericError, match="not finite"):
        predict_paths(Predictor(Infinite(), SPACE, **settings), [tmp_path], tmp_path / "out")


def test_fault_28_nothing_to_predict_is_an_error(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no pictures found"):
        predict_paths(make(), [tmp_path / "empty"], tmp_path / "out")
    with pytest.raises(DataError, match=r"gone\.png: no such file"):
        predict_paths(make(), [tmp_path / "gone.png"], tmp_path / "out")
    with pytest.raises(DataError, match="name at least one"):
        predict_paths(make(), [], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_unusable_output_folders_are_named(tmp_path, monkeypatch):
    picture = save(tmp_path / "a.png")
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="file"):
        predict_paths(make(), [picture], tmp_path / "file")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/predictions.json").write_text("{broken")
    with pytest.raises(DataError, match="not an index"):
        predict_paths(make(), [picture], tmp_path / "out")

    def no_space(data):
        raise OSError(errno.ENOSPC, "No space left on device")

    def full(self, mode="r", *rest, **more):
        file = real_open(self, mode, *rest, **more)
        if ".partial" in self.name and self.parent.name == "raw_ids":
            file.write = no_space
        return file

    real_open = Path.open
    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(DataError, match=r"No space left on device with [0-9]+ bytes free"):
        predict_paths(make(), [picture], tmp_path / "full")
    assert not list((tmp_path / "full").rglob("*.partial"))


def test_predict_refuses_settings_out_of_range(tmp_path):
    picture = save(tmp_path / "a.png")
    for settings in [{"overlay_alpha": 1.5}, {"batch": 0}, {"raw_ids": np.array([1, 2])}, {"raw_ids": np.array([1, 2, -1])}]:
        with pytest.raises(ConfigError):
            predict_paths(make(), [picture], tmp_path / "out", **settings)


def test_raw_ids_above_255_are_written_with_16_bits(tmp_path):
    predict_paths(make(), [save(tmp_path / "a.png")], tmp_path / "out", raw_ids=np.array([1000, 2, 3]))
    assert np.unique(load(tmp_path / "out/raw_ids/a.png")).tolist() == [1000]
