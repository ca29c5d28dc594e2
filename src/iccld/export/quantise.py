"""Convolutions in 8 bits: onnxruntime's static quantisation, whose QDQ graph OpenVINO reads too."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from iccld.data.images import read_image
from iccld.errors import ConfigError
from iccld.export.names import missing
from iccld.predictor import Predictor

MOST_PICTURES = 32
"""That are looked at, evenly spread over those given: ranges do not change much after some dozens."""


def quantised(model: bytes, predictor: Predictor, pictures: Sequence[Path]) -> bytes:
    """An ONNX graph with its convolutions but the last in 8 bits, kernels by channel, activations by the range they take on `pictures`.

    The last convolution names the classes and stays in float32, as do norms and what lies between.  A clamp behind a convolution (ReLU6)
    becomes part of it: the range is that of what it lets through, where 8 bits spread over all that comes before it cost a trained
    EfficientNet-Lite0 2.4 points of mIoU (docs/export.md).  ConfigError without onnxruntime.
    """
    try:
        import onnx
        from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
        from onnxruntime.quantization.shape_inference import quant_pre_process
    except ImportError:
        raise missing("onnxruntime") from None
    convolutions = [node.name for node in onnx.load_model_from_string(model).graph.node if node.op_type == "Conv"]
    if len(convolutions) < 2:
        raise ConfigError("this network has no convolutions to put into 8 bits; leave out --int8")
    with tempfile.TemporaryDirectory() as made:
        plain, ready, done = (Path(made) / name for name in ("plain.onnx", "ready.onnx", "done.onnx"))
        plain.write_bytes(model)
        quant_pre_process(plain, ready, skip_symbolic_shape=True)
        quantize_static(
            ready,
            done,
            _Reader(predictor, pictures),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=["Conv", "Clip"],
            nodes_to_exclude=[convolutions[-1]],
            calibrate_method=CalibrationMethod.MinMax,
        )
        return done.read_bytes()


class _Recorder(nn.Module):
    """Keeps what a predictor gives its network."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.given: list[dict[str, Any]] = []

    def forward(self, image: Tensor, noise: Tensor | None = None) -> Tensor:
        named = {"image": image, "noise": noise}
        self.given.append({name: value.contiguous().numpy() for name, value in named.items() if value is not None})
        return image.new_zeros(len(image), self.num_classes, 2, 2)


class _Reader:
    """onnxruntime's CalibrationDataReader: the network's inputs for one picture after the other, as the predictor prepares them."""

    def __init__(self, predictor: Predictor, pictures: Sequence[Path]) -> None:
        step = max(1, len(pictures) // MOST_PICTURES)
        self.pictures = pictures[::step][:MOST_PICTURES]
        self.predictor = predictor
        self.feeds = self._feeds()

    def get_next(self) -> dict[str, Any] | None:
        return next(self.feeds, None)

    def _feeds(self) -> Iterator[dict[str, Any]]:
        own = self.predictor
        recorder = _Recorder(own.label_space.num_classes)
        seeing = Predictor(
            recorder, own.label_space, working_size=own.working_size, size_multiple=own.size_multiple, mean=(0, 0, 0), std=(1, 1, 1)
        )  # the graph normalises
        seeing.window, seeing.stride, seeing.scales = own.window, own.stride, own.scales
        seeing.noise_channels, seeing.noise_stride, seeing.seed = own.noise_channels, own.noise_stride, own.seed
        for path in self.pictures:
            image = torch.from_numpy(read_image(path).copy()).permute(2, 0, 1)[None]
            with torch.no_grad():
                seeing.view_logits(image)
            yield from recorder.given
            recorder.given.clear()
