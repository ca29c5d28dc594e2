"""Exported files name the same classes as the network they were made of, on fifty scenes of several sizes."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

from iccld.city import render_scene
from iccld.evaluation import Confusion, decide
from iccld.export import export_model, load_exported
from iccld.labels import CITYSCAPES19
from iccld.methods.common.parts import MEAN, STD
from iccld.models import EfficientNetEncoder, EfficientNetLite, InterCoderDecoder, Segmenter
from iccld.models.efficientnet import ConvNorm
from iccld.predictor import Predictor
from iccld.runs import Standing

from .conftest import Drawn, learned, predictor_of

AGREE = 0.999
"""Share of pixels that an exported file names as PyTorch does."""
INT8_MIOU = 0.5
"""Points of mIoU by which 8 bits may differ."""


@torch.no_grad()
def masks(predictor: Predictor, drawn: Drawn) -> list[np.ndarray]:
    images = [torch.from_numpy(image.copy()).permute(2, 0, 1)[None] for image in drawn.images]
    return [decide(predictor.view_logits(image), image.shape[2:])[0][0].numpy() for image in images]


def agreement(found: list[np.ndarray], expected: list[np.ndarray]) -> float:
    equal = sum(int((one == other).sum()) for one, other in zip(found, expected, strict=True))
    return equal / sum(one.size for one in found)


def miou(found: list[np.ndarray], drawn: Drawn) -> float:
    confusion = Confusion(CITYSCAPES19.num_classes)
    for mask, label in zip(found, drawn.labels, strict=True):
        confusion.update(label, mask)
    return confusion.scores(CITYSCAPES19).miou


@pytest.fixture(scope="session")
def expected(trained: Predictor, drawn: Drawn) -> list[np.ndarray]:
    found = masks(trained, drawn)
    assert miou(found, drawn) > 5  # it has learned something; masks of noise would agree about nothing
    assert len({int(value) for mask in found for value in np.unique(mask)}) > 3
    return found


@pytest.mark.parametrize(
    ("format", "suffix", "runtime"), [("onnx", ".onnx", "onnxruntime"), ("openvino", ".xml", "openvino"), ("onnx", ".onnx", "openvino")]
)
def test_fifty_masks_agree(
    format: str, suffix: str, runtime: str, trained: Predictor, standing: Standing, drawn: Drawn, expected: list[np.ndarray], tmp_path: Path
) -> None:
    file = export_model(trained, standing, format, tmp_path / f"model{suffix}")
    predictor, told = load_exported(file, runtime)
    assert len(drawn.images) == 50
    assert agreement(masks(predictor, drawn), expected) >= AGREE
    assert told == standing
    assert (predictor.label_space, predictor.working_size, predictor.size_multiple) == (CITYSCAPES19, (64, 96), 16)


@pytest.mark.parametrize(("format", "suffix"), [("onnx", ".onnx"), ("openvino", ".xml")])
def test_eight_bits_score_the_same(
    format: str, suffix: str, trained: Predictor, standing: Standing, drawn: Drawn, expected: list[np.ndarray], tmp_path: Path
) -> None:
    pictures = stored(drawn.images[:16], tmp_path / "pictures")
    file = export_model(trained, standing, format, tmp_path / f"model{suffix}", int8=True, calibrate=pictures)
    found = masks(load_exported(file)[0], drawn)
    assert abs(miou(found, drawn) - miou(expected, drawn)) <= INT8_MIOU
    share = agreement(found, expected)
    assert 0.9 < share < 1  # 8 bits are not 32


def test_torchs_own_program_agrees(trained: Predictor, standing: Standing, drawn: Drawn, tmp_path: Path) -> None:
    file = export_model(trained, standing, "torch", tmp_path / "model.pt2")
    extra = {"iccld.json": ""}
    program = torch.export.load(file, extra_files=extra)
    assert "sides of at least 64 pixels" in json.loads(extra["iccld.json"])["inputs"]
    network = trained.network
    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    for shape in ((1, 3, 64, 96), (3, 3, 80, 128)):
        image = torch.rand(shape)
        with torch.no_grad():
            torch.testing.assert_close(program.module()(image, None), network((image - mean) / std), rtol=1e-4, atol=1e-4)


def lite0() -> Segmenter:
    torch.manual_seed(0)
    encoder = EfficientNetEncoder(EfficientNetLite("efficientnet-lite0"), 32, 16, MEAN, STD)
    for layer in encoder.modules():
        if isinstance(layer, ConvNorm):  # as after training on pictures: no norm is the identity
            layer.mean.normal_(0, 0.1)
            layer.variance.uniform_(0.5, 2)
            layer.bias.normal_(0, 0.1)
    return Segmenter(encoder, InterCoderDecoder(16, encoder.pyramid_channels, 19, 32))


def test_norms_are_folded_into_kernels(drawn: Drawn) -> None:
    from iccld.export.plain import exportable

    network = lite0().eval()
    plain = exportable(network, (0, 0, 0), (1, 1, 1))
    assert not any(isinstance(layer, ConvNorm) for layer in plain.modules())
    assert any(isinstance(layer, ConvNorm) for layer in network.modules())  # the original is as it was
    image = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        torch.testing.assert_close(plain(image), network(image), rtol=1e-3, atol=1e-4)


def test_a_clamp_behind_a_convolution_is_part_of_its_8_bits(standing: Standing, drawn: Drawn, tmp_path: Path) -> None:
    """Were it not, 8 bits would be spread over all that the clamp cuts off, which cost a trained network 2.4 points."""
    predictor = predictor_of(lite0().eval(), (64, 96), 32)
    file = export_model(
        predictor, standing, "onnx", tmp_path / "eight.onnx", int8=True, calibrate=stored(drawn.images[:4], tmp_path / "pictures")
    )
    operators = Counter(node.op_type for node in onnx.load(file).graph.node)
    assert operators["Clip"] == 0
    assert operators["Conv"] > 50
    plain = export_model(predictor, standing, "onnx", tmp_path / "plain.onnx")
    assert Counter(node.op_type for node in onnx.load(plain).graph.node)["Clip"] > 30


def stored(images: list[np.ndarray], folder: Path) -> list[Path]:
    """Pictures as files."""
    folder.mkdir()
    paths = [folder / f"{number:02}.png" for number in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image).save(path)
    return paths


@pytest.mark.slow
def test_a_trained_lite0_agrees_in_each_format_and_keeps_its_score_in_8_bits(standing: Standing, drawn: Drawn, tmp_path: Path) -> None:
    """300 steps on 24 scenes, scored on 24 others: a network whose mIoU means something, calibrated on pictures that are not scored."""
    from iccld.models.efficientnet import load_weights, weights_file

    torch.manual_seed(0)
    trunk = EfficientNetLite("efficientnet-lite0")
    load_weights(trunk, weights_file("efficientnet-lite0"))
    encoder = EfficientNetEncoder(trunk, 64, 32, MEAN, STD)
    scenes = [render_scene("camera", 1000 + seed, (96, 160)) for seed in range(48)]
    seen, unseen = (Drawn([each.image for each in part], [each.label for each in part]) for part in (scenes[:24], scenes[24:]))
    network = learned(Segmenter(encoder, InterCoderDecoder(32, encoder.pyramid_channels, 19, 64)), seen, 300, (96, 160), most=24)
    predictor = predictor_of(network, (96, 160), 32)
    expected, reached = masks(predictor, drawn), masks(predictor, unseen)
    assert miou(reached, unseen) > 15
    pictures = stored(seen.images, tmp_path / "pictures")
    for format, suffix in (("onnx", ".onnx"), ("openvino", ".xml")):
        file = export_model(predictor, standing, format, tmp_path / f"model{suffix}")
        assert agreement(masks(load_exported(file)[0], drawn), expected) >= AGREE
        file = export_model(predictor, standing, format, tmp_path / f"eight{suffix}", int8=True, calibrate=pictures)
        found = masks(load_exported(file)[0], unseen)
        assert abs(miou(found, unseen) - miou(reached, unseen)) <= INT8_MIOU
        assert agreement(found, reached) >= 0.95
    export_model(predictor, standing, "torch", tmp_path / "model.pt2")
