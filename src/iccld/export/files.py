"""A predictor -> one exported file, checked against the network it was made of before it is put in place."""

from __future__ import annotations

import io
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from iccld import __version__
from iccld.errors import CheckpointError, ConfigError
from iccld.export.graph import example, onnx_bytes, quiet, torch_program
from iccld.export.names import FORMAT, FORMATS, OWN, SUFFIXES, missing
from iccld.export.plain import Exported, exportable
from iccld.files import write_atomically
from iccld.predictor import Predictor
from iccld.runs.load import Standing
from iccld.share.described import described, described_classes, id2label, size_rule

CHECKED = ((2, 3), (5, 2))
"""Sizes, in multiples, at which an exported graph has to answer as the network does; it was traced at another one."""
SHORTEST = 64
"""Pixels of a side below which torch.export would make another program: the coarsest level of a network has a single row there."""
TOLERANCE = 1e-3
"""Largest difference of logits, as a share of the largest logit, that rounding explains."""


def export_model(
    predictor: Predictor, standing: Standing, format: str, file: Path, *, calibrate: Sequence[Path] = (), int8: bool = False
) -> Path:
    """Write a predictor's network as `format` (onnx, openvino or torch) with all that a reader has to know in its metadata.

    int8: convolutions in 8 bits, whose ranges are those of the pictures `calibrate`.  Nothing is written that does not answer as the
    network does (8 bits excepted).  ConfigError for a network that cannot be exported, a suffix that is another format's, and missing
    packages; CheckpointError when the file cannot be written.
    """
    refuse_format(format, file, int8, calibrate)
    network = exportable(predictor.network, predictor.mean, predictor.std)
    noise = (predictor.noise_channels, predictor.noise_stride)
    multiple = predictor.size_multiple
    inputs = example(multiple, noise)
    told = _told(predictor, standing, int8)
    try:
        if format == "torch":
            least = max(2, -(-SHORTEST // multiple))
            told["inputs"] += f"; sides of at least {least * multiple} pixels"
            inputs = example(multiple, noise, (least + 1, least + 2))
            program = torch_program(network, inputs, multiple, predictor.noise_stride, least)
            sizes = ((least, least + 1), (least + 3, least))
            _check(network, lambda given: program.module()(*given, *[None] * (2 - len(given))), multiple, noise, sizes)
            write_atomically(file, _saved_program(program, told))
            return file
        model = onnx_bytes(network, inputs)
        _check_onnx(network, model, format, multiple, noise)
        if int8:
            from iccld.export.quantise import quantised

            model = quantised(model, predictor, calibrate)
        if format == "onnx":
            write_atomically(file, _with_metadata(model, told))
        else:
            _write_openvino(model, told, file)
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be written ({error.strerror or error}); choose another place or make room") from error
    return file


def refuse_format(format: str, file: Path, int8: bool, calibrate: Sequence[Path]) -> None:
    """ConfigError for what does not go together, before anything is loaded."""
    if format not in FORMATS:
        raise ConfigError(f"format is {format!r}; use {', '.join(FORMATS)}")
    if file.suffix != SUFFIXES[format]:
        raise ConfigError(f"{file}: a model of format {format} is a file that ends in {SUFFIXES[format]}")
    if file.is_dir():
        raise ConfigError(f"{file} is a folder; name a file")
    if int8 and format == "torch":
        raise ConfigError("--int8 goes with onnx or openvino: PyTorch has no 8-bit kernels for this file on every CPU; leave it out")
    if int8 and not calibrate:
        raise ConfigError("--int8 needs --calibrate PICTURES, some dozens of the target: the ranges of 8 bits are taken from them")
    if calibrate and not int8:
        raise ConfigError("--calibrate gives the ranges of 8 bits; add --int8 or leave it out")


def _told(predictor: Predictor, standing: Standing, int8: bool) -> dict[str, Any]:
    """The metadata: JSON for iccld, and the same in words for anybody else."""
    inputs = "image: (batch, 3, height, width) float32, RGB, 0..1, sides multiples of the size rule's; normalised inside the graph"
    if predictor.noise_channels:
        c, s = predictor.noise_channels, predictor.noise_stride
        inputs += f"; noise: (batch, {c}, height / {s}, width / {s}) float32, standard normal"
    own = {
        "format": FORMAT,
        "version": __version__,
        "label_space": described_classes(predictor.label_space),
        "predictor": described(predictor, standing.wide),
        "standing": standing.as_fields(),
        "int8": int8,
    }
    return {
        OWN: own,
        "id2label": {str(number): name for number, name in id2label(predictor.label_space).items()},
        "inputs": inputs,
        "output": "logits: (batch, classes, rows, columns) float32, covering the padded picture",
        "mean": list(predictor.mean),
        "std": list(predictor.std),
        "size_rule": size_rule(predictor),
    }


def _texts(told: dict[str, Any]) -> dict[str, str]:
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in told.items()}


def _check_onnx(network: Exported, model: bytes, format: str, multiple: int, noise: tuple[int, int]) -> None:
    from iccld.export.runtimes import compiled_answer, session_answer

    answer = session_answer(model) if format == "onnx" else compiled_answer(_read_openvino(model), "fp32")
    _check(network, lambda given: torch.from_numpy(answer([one.numpy() for one in given])), multiple, noise)


@torch.no_grad()
def _check(network: Exported, answer: Any, multiple: int, noise: tuple[int, int], sizes: Sequence[tuple[int, int]] = CHECKED) -> None:
    """ConfigError unless the exported graph answers as the network does, for other sizes and numbers than those of the example."""
    for number, cells in enumerate(sizes):
        given = example(multiple, noise, cells, batch=1 + 2 * number)
        expected: Tensor = network(*given)
        try:
            found: Tensor = answer(given)
        except Exception as error:  # of any runtime
            text = " ".join(str(error).split())[:200]
            raise ConfigError(f"this network cannot be exported: at another size than the traced one it fails ({text})") from None
        if found.shape != expected.shape or (found - expected).abs().max() > TOLERANCE * max(1.0, float(expected.abs().max())):
            raise ConfigError("this network cannot be exported: at another size than the traced one the file answers otherwise")


def _saved_program(program: Any, told: dict[str, Any]) -> bytes:
    written = io.BytesIO()
    with quiet():
        torch.export.save(program, written, extra_files={"iccld.json": json.dumps(told)})
    return written.getvalue()


def _with_metadata(model: bytes, told: dict[str, Any]) -> bytes:
    import onnx

    proto = onnx.load_model_from_string(model)
    proto.producer_name, proto.producer_version = "iccld", __version__
    onnx.helper.set_model_props(proto, _texts(told))
    onnx.checker.check_model(proto)
    written: bytes = proto.SerializeToString()
    return written


def _read_openvino(model: bytes) -> Any:
    try:
        import openvino
    except ImportError:
        raise missing("openvino") from None
    return openvino.Core().read_model(model)


def _write_openvino(model: bytes, told: dict[str, Any], file: Path) -> None:
    """The pair FILE.xml and FILE.bin; the weights are in place before the graph that asks for them."""
    import openvino

    graph = _read_openvino(model)
    for key, text in _texts(told).items():
        graph.set_rt_info(text, [OWN, "told" if key == OWN else key])
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{file.name}-", dir=file.parent) as made:
        whole = Path(made) / file.name
        openvino.save_model(graph, whole, compress_to_fp16=False)
        for suffix in (".bin", ".xml"):
            os.replace(whole.with_suffix(suffix), file.with_suffix(suffix))
