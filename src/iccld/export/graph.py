"""An exportable network -> the bytes of an ONNX graph, or a torch.export program, for pictures of any number and size."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from iccld.errors import ConfigError
from iccld.export.names import missing
from iccld.export.plain import Exported

OPSET = 17
"""Of ONNX: read by onnxruntime since 1.12 and OpenVINO since 2022.3."""


def example(multiple: int, noise: tuple[int, int], cells: tuple[int, int] = (3, 4), batch: int = 2) -> tuple[Tensor, ...]:
    """Random inputs of `cells` multiples: (B, 3, H, W) in 0..1, and the noise where it has channels.  noise: channels, stride."""
    generator = torch.Generator().manual_seed(0)
    height, width = (count * multiple for count in cells)
    image = torch.rand(batch, 3, height, width, generator=generator)
    channels, stride = noise
    if channels == 0:
        return (image,)
    return image, torch.randn(batch, channels, height // stride, width // stride, generator=generator)


def onnx_bytes(network: Exported, inputs: tuple[Tensor, ...]) -> bytes:
    """The graph as ONNX: inputs `image` (and `noise`), output `logits`, batch, height and width free.

    PyTorch's tracing exporter, which needs the package onnx and no more; the newer one also needs onnxscript and takes ten times as long.
    ConfigError when a layer has no counterpart in ONNX, or onnx is missing.
    """
    try:
        import onnx  # noqa: F401 - the exporter asks for it at its end
    except ImportError:
        raise missing("onnxruntime") from None
    names = ["image", "noise"][: len(inputs)]
    free = {"image": {0: "batch", 2: "height", 3: "width"}, "logits": {0: "batch", 2: "rows", 3: "columns"}}
    if len(inputs) > 1:
        free["noise"] = {0: "batch", 2: "noise_height", 3: "noise_width"}
    written = io.BytesIO()
    try:
        with quiet(), torch.no_grad():
            torch.onnx.export(
                network,
                inputs,
                written,  # type: ignore[arg-type]
                input_names=names,
                output_names=["logits"],
                dynamic_axes=free,
                opset_version=OPSET,
                dynamo=False,
            )
    except Exception as error:  # the exporter's errors have no common class
        raise ConfigError(f"this network cannot be exported to ONNX ({_one_line(error)}); predict with the run") from None
    return written.getvalue()


def torch_program(network: Exported, inputs: tuple[Tensor, ...], multiple: int, stride: int, least: int) -> Any:
    """A torch.export.ExportedProgram for sides of `least` or more `multiple`; ConfigError when its Python cannot be followed."""
    from torch.export import Dim, export

    batch, rows, columns = Dim("batch"), Dim("rows", min=least), Dim("columns", min=least)  # a single row of cells has other strides
    shapes: dict[str, Any] = {"image": {0: batch, 2: multiple * rows, 3: multiple * columns}, "noise": None}
    if len(inputs) > 1:
        shapes["noise"] = {0: batch, 2: multiple // stride * rows, 3: multiple // stride * columns}
    try:
        with quiet(), torch.no_grad():
            return export(network, inputs if len(inputs) > 1 else (*inputs, None), dynamic_shapes=shapes)
    except Exception as error:  # symbolic shapes raise many kinds
        raise ConfigError(f"this network cannot be exported by torch.export ({_one_line(error)}); use --format onnx") from None


@contextmanager
def quiet() -> Iterator[None]:
    """Without the exporters' warnings: what they warn of is checked afterwards, at other sizes."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "torch._export")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
