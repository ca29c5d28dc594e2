"""The loops that fill a confusion matrix: a predictor on a dataset, and anybody's masks."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as functional
from PIL import Image
from torch import nn

from iccld.batch import Sample
from iccld.data import MaskReader
from iccld.errors import ConfigError, DataError, NumericError
from iccld.evaluation import Confusion, evaluate, evaluate_predictions
from iccld.evaluation.evaluate import spread
from iccld.evaluation.masks import plain_name
from iccld.labels import CITYSCAPES19, raw_ids

SPACE = CITYSCAPES19


class Scenes:
    """Pictures whose red channel is the class."""

    def __init__(self, count=3, labelled=True, names=None):
        self.names = names or [f"clip/{i:03d}" for i in range(count)]
        self.image_paths = [Path(f"/data/images/{name}_leftImg8bit.png") for name in self.names]
        self.labelled = labelled
        self.read = []

    def __len__(self):
        return len(self.names)

    def __getitem__(self, index):
        self.read.append(index)
        generator = np.random.default_rng(index)
        label = generator.integers(0, 19, size=(12 + index, 16)).astype(np.uint8)
        image = np.stack([label, label, label], axis=2)
        label[0, 0] = 255
        return Sample(image, label if self.labelled else None, None, self.names[index], index)


def one_hot(images):
    """Logits that read the class off the picture."""
    return functional.one_hot(images[:, 0].long(), 19).permute(0, 3, 1, 2).float()


class Spy(nn.Module):
    """Hands out logits of low resolution; forward must not be asked."""

    def __init__(self, logits=None):
        super().__init__()
        self.frozen = nn.Dropout(0.5).eval()
        self.logits = logits
        self.modes = []

    def forward(self, images):
        raise AssertionError("evaluate resizes once, from network_logits")

    def network_logits(self, images):
        self.modes.append((self.training, torch.is_grad_enabled()))
        return one_hot(images) if self.logits is None else self.logits


def test_evaluate_scores_a_perfect_predictor_100():
    seen = []
    scores = evaluate(one_hot, Scenes(), SPACE, title="Perfect", observe=lambda *given: seen.append(given))
    assert scores.miou == 100.0
    assert scores.num_images == 3
    assert [name for name, _, _ in seen] == ["clip/000", "clip/001", "clip/002"]
    assert seen[2][1].matrix.sum() == 14 * 16 - 1
    assert seen[2][2].shape == (14, 16)


def test_evaluate_resizes_logits_to_the_ground_truth_before_argmax():
    """Between a pixel of class 0 (logit 1) and one of class 1 (logit 3) the border lies nearer to the first, not in the middle."""
    logits = torch.zeros(1, 19, 1, 2)
    logits[0, 0, 0, 0], logits[0, 1, 0, 1] = 1.0, 3.0

    class Wide(Scenes):
        def __getitem__(self, index):
            label = np.zeros((1, 64), np.uint8)
            return Sample(np.zeros((1, 64, 3), np.uint8), label, None, "wide", index)

    predictions = []
    evaluate(lambda _: logits, Wide(1), SPACE, observe=lambda _n, _c, prediction: predictions.append(prediction))
    expected = functional.interpolate(logits, size=(1, 64), mode="bilinear", align_corners=False).argmax(1)[0].numpy()
    assert np.array_equal(predictions[0], expected)
    assert (predictions[0] == 0).sum() == 24


def test_evaluate_runs_in_eval_mode_without_gradients_and_restores_each_flag():
    spy = Spy()
    spy.train()
    spy.frozen.eval()
    assert evaluate(spy, Scenes(), SPACE).miou == 100.0
    assert spy.modes == [(False, False)] * 3
    assert spy.training
    assert not spy.frozen.training


def test_evaluate_shrinks_the_ground_truth_when_asked():
    sizes = []
    evaluate(one_hot, Scenes(), SPACE, score_size=(6, 8), observe=lambda _n, _c, prediction: sizes.append(prediction.shape))
    assert sizes == [(6, 8)] * 3


def test_evaluate_limit_takes_evenly_spread_pictures():
    scenes = Scenes(10)
    assert evaluate(one_hot, scenes, SPACE, limit=4).num_images == 4
    assert sorted(scenes.read) == [0, 2, 5, 7]
    assert spread(3, 10) == [0, 1, 2]
    with pytest.raises(ConfigError):
        spread(3, 0)
    with pytest.raises(DataError, match="0 images"):
        spread(0, None)


def test_evaluate_names_what_is_wrong():
    with pytest.raises(DataError, match=r"000_leftImg8bit\.png: no label"):
        evaluate(one_hot, Scenes(labelled=False), SPACE)
    with pytest.raises(ConfigError, match="19 classes"):
        evaluate(lambda images: one_hot(images)[:, :7], Scenes(), SPACE)
    with pytest.raises(NumericError, match="clip/000"):
        evaluate(Spy(torch.full((1, 19, 2, 2), float("nan"))), Scenes(), SPACE)


def write_masks(folder, scenes, name=lambda n: n + ".png", table=None, change=lambda mask: mask):
    for index, scene in enumerate(scenes.names):
        mask = scenes[index].image[..., 0]
        path = folder / name(scene)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(change(mask if table is None else table[mask])).save(path)


@pytest.mark.parametrize("name", [lambda n: f"{n}.png", lambda n: f"{n}_leftImg8bit.png", lambda n: f"deep/er/{n.split('/')[1]}_pred.png"])
def test_evaluate_predictions_pairs_masks_by_name(tmp_path, name):
    write_masks(tmp_path, Scenes(), name)
    assert evaluate_predictions(tmp_path, Scenes(), SPACE, MaskReader(SPACE)).miou == 100.0


def test_evaluate_predictions_reads_palette_indices_and_raw_ids(tmp_path):
    write_masks(tmp_path / "raw", Scenes(), table=raw_ids(SPACE))
    assert evaluate_predictions(tmp_path / "raw", Scenes(), SPACE, MaskReader(SPACE, "raw")).miou == 100.0
    scenes = Scenes(1)
    palette = Image.fromarray(scenes[0].image[..., 0])
    palette.putpalette(SPACE.palette[::-1].tobytes())
    palette.save(tmp_path / "000.png")
    (tmp_path / "raw" / "clip" / "000.png").unlink()
    assert evaluate_predictions(tmp_path, scenes, SPACE, MaskReader(SPACE, "train")).miou == 100.0


def test_evaluate_predictions_counts_ids_of_no_class_as_errors(tmp_path):
    def spoil(mask):
        mask = mask.copy()
        mask[1, :4] = 255
        mask[2, :4] = 77
        return mask

    scenes = Scenes(1)
    write_masks(tmp_path, scenes, change=spoil)
    confusions: list[Confusion] = []
    reader = MaskReader(SPACE, "train")
    evaluate_predictions(tmp_path, scenes, SPACE, reader, observe=lambda _n, confusion, _p: confusions.append(confusion))
    assert confusions[0].matrix[:, 19].sum() == 8


def test_evaluate_predictions_refuses_bad_folders_and_masks(tmp_path):
    scenes = Scenes()
    with pytest.raises(DataError, match="no such folder"):
        evaluate_predictions(tmp_path / "none", scenes, SPACE, MaskReader(SPACE))
    write_masks(tmp_path / "a", scenes)
    (tmp_path / "a/clip/001.png").unlink()
    with pytest.raises(DataError, match=r"expected 3 masks, found 2.*clip/001"):
        evaluate_predictions(tmp_path / "a", scenes, SPACE, MaskReader(SPACE))
    write_masks(tmp_path / "b", scenes, change=lambda mask: mask[:5])
    with pytest.raises(DataError, match=r"clip/000\.png: mask is 5x16, its ground truth 12x16"):
        evaluate_predictions(tmp_path / "b", scenes, SPACE, MaskReader(SPACE))
    write_masks(tmp_path / "c", scenes, change=lambda mask: np.stack([mask] * 3, axis=2))
    with pytest.raises(DataError, match="colours, not ids"):
        evaluate_predictions(tmp_path / "c", scenes, SPACE, MaskReader(SPACE, "train"))
    write_masks(tmp_path / "d", scenes, table=np.full(256, 99, np.uint8))
    with pytest.raises(DataError, match="unknown label value 99"):
        evaluate_predictions(tmp_path / "d", scenes, SPACE, MaskReader(SPACE, "raw"))
    write_masks(tmp_path / "e", scenes)
    data = (tmp_path / "e/clip/001.png").read_bytes()
    (tmp_path / "e/clip/001.png").write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match=r"001\.png: truncated or corrupt"):
        evaluate_predictions(tmp_path / "e", scenes, SPACE, MaskReader(SPACE))
    with pytest.raises(ConfigError, match="auto, train, raw, color"):
        MaskReader(SPACE, "other")


def test_evaluate_predictions_refuses_ambiguous_names(tmp_path):
    scenes = Scenes()
    write_masks(tmp_path / "a", scenes, lambda n: n.replace("clip", "x") + ".png")
    write_masks(tmp_path / "a", scenes, lambda n: n.replace("clip", "y") + ".png")
    with pytest.raises(DataError, match="2 masks for picture clip/000"):
        evaluate_predictions(tmp_path / "a", scenes, SPACE, MaskReader(SPACE))
    twins = Scenes(names=["p/000", "q/000"])
    Image.fromarray(twins[0].image[..., 0]).save(tmp_path / "000.png")
    (tmp_path / "b").mkdir()
    (tmp_path / "000.png").rename(tmp_path / "b/000.png")
    with pytest.raises(DataError, match="both p/000 and q/000"):
        evaluate_predictions(tmp_path / "b", twins, SPACE, MaskReader(SPACE))


def test_plain_name_takes_off_the_endings_of_the_field():
    assert plain_name("a/aachen_000000_000019_leftImg8bit") == "a/aachen_000000_000019"
    assert plain_name("aachen_000000_000019_leftImg8bit_pred") == "aachen_000000_000019"
    assert plain_name("_pred") == "_pred"
