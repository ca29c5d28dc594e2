"""Exported files as networks of a `Predictor`: onnxruntime and OpenVINO, both on the CPU."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from iccld import __version__
from iccld.assembly.scoring import Asked, ask
from iccld.data.check import cache_folder
from iccld.errors import CheckpointError, ConfigError
from iccld.export.files import export_model
from iccld.export.names import FORMAT, OWN, check_file, missing
from iccld.export.signal_stack import kept_signal_stack
from iccld.predictor import Predictor
from iccld.progress import say
from iccld.runs.load import Standing
from iccld.share.described import apply_described, read_classes

Arrays = Sequence[npt.NDArray[np.float32]]
Answer = Callable[[Arrays], npt.NDArray[np.float32]]
"""(image in 0..1, and the noise where there is one) -> logits."""


class RuntimeNetwork(nn.Module):
    """An exported graph as a predictor's network: (B, 3, H, W) in 0..1, noise or None -> logits.  Its arrays are on the CPU."""

    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, image: Tensor, noise: Tensor | None = None) -> Tensor:
        given = [one.float().contiguous().numpy() for one in (image, noise) if one is not None]
        try:
            return torch.from_numpy(self.answer(given))
        except Exception as error:  # runtimes have errors of their own; those of memory are told by their words
            raise RuntimeError(f"the exported network failed: {' '.join(str(error).split())[:300]}") from error


def load_exported(file: Path, runtime: str | None = None, asked: Asked | None = None) -> tuple[Predictor, Standing]:
    """The predictor of an exported file, which predicts as its run did when it was exported, and where that stood.

    runtime: onnxruntime or openvino; None takes the file's own.  asked: as in `iccld.runs.load_with_standing`.  CheckpointError for a file
    that is missing, damaged, or not exported by iccld; ConfigError for a runtime that is not installed or does not read it.
    """
    runtime = check_file(file, runtime)
    told, make = (_onnxruntime if runtime == "onnxruntime" else _openvino)(file)
    predictor, standing = _predictor(told, str(file))
    ask(predictor, asked, "cpu")
    predictor.network = RuntimeNetwork(make(predictor.precision))
    return predictor.eval(), standing


def told_of(file: Path) -> dict[str, Any]:
    """What an exported file's metadata tell, without making a network of it."""
    runtime = check_file(file)
    return (_onnxruntime if runtime == "onnxruntime" else _openvino)(file)[0]


def on_runtime(predictor: Predictor, standing: Standing, runtime: str) -> Predictor:
    """A predictor that answers the same through another runtime; the exported file is kept in the cache under a hash of its weights.

    ConfigError for a network that cannot be exported, and for a runtime that is not installed.
    """
    if runtime == "torch":
        return predictor
    file = cache_folder() / "exported" / f"{_identity(predictor)}.onnx"
    if not file.is_file():
        say(f"exporting the model for {runtime}, once")
        export_model(predictor, standing, "onnx", file)
    asked = Asked(precision=predictor.precision)
    try:
        made, _ = load_exported(file, runtime, asked)
    except CheckpointError:  # damaged in the cache: made again
        file.unlink(missing_ok=True)
        export_model(predictor, standing, "onnx", file)
        made, _ = load_exported(file, runtime, asked)
    made.label_space = predictor.label_space
    made.working_size, made.window, made.stride = predictor.working_size, predictor.window, predictor.stride
    made.scales, made.flip, made.seed = predictor.scales, predictor.flip, predictor.seed
    return made


def session_answer(model: bytes) -> Answer:
    """onnxruntime on the bytes of an ONNX graph, with as many threads as PyTorch has."""
    session = _session(model)
    names = [one.name for one in session.get_inputs()]

    def answer(given: Arrays) -> npt.NDArray[np.float32]:
        return cast("npt.NDArray[np.float32]", session.run(None, dict(zip(names, given, strict=True)))[0])

    return answer


def compiled_answer(model: Any, precision: str) -> Answer:
    """OpenVINO on a model that it has read.  precision: fp32, or bf16 where the CPU has it."""
    import openvino

    hint = {"INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    with kept_signal_stack():
        compiled = openvino.Core().compile_model(model, "CPU", {**hint, "PERFORMANCE_HINT": "LATENCY"})
    return lambda given: np.array(compiled(list(given))[0], dtype=np.float32)


def _session(model: bytes) -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise missing("onnxruntime") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = torch.get_num_threads(), 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _onnxruntime(file: Path) -> tuple[dict[str, Any], Callable[[str], Answer]]:
    try:
        session = _session(file.read_bytes())
        told = session.get_modelmeta().custom_metadata_map.get(OWN, "")
    except ConfigError:
        raise
    except Exception as error:  # onnxruntime's errors are its own
        raise CheckpointError(f"{file}: onnxruntime cannot read it ({' '.join(str(error).split())[:200]}); export it again") from None
    names = [one.name for one in session.get_inputs()]

    def make(precision: str) -> Answer:
        if precision == "bf16":
            say("note: onnxruntime computes in fp32 on a CPU; OpenVINO has bf16")
        return lambda given: cast("npt.NDArray[np.float32]", session.run(None, dict(zip(names, given, strict=True)))[0])

    return _read_told(told, file), make


def _openvino(file: Path) -> tuple[dict[str, Any], Callable[[str], Answer]]:
    try:
        import openvino
    except ImportError:
        raise missing("openvino") from None
    try:
        model = openvino.Core().read_model(file)
        if file.suffix.lower() == ".onnx":
            told = _onnx_metadata(file)
        else:
            told = str(model.get_rt_info([OWN, "told"]).value) if model.has_rt_info([OWN, "told"]) else ""
    except ConfigError:
        raise
    except Exception as error:  # OpenVINO's errors are RuntimeErrors of many lines
        raise CheckpointError(f"{file}: OpenVINO cannot read it ({' '.join(str(error).split())[:200]}); export it again") from None
    return _read_told(told, file), lambda precision: compiled_answer(model, precision)


def _onnx_metadata(file: Path) -> str:
    try:
        import onnx
    except ImportError:
        raise missing("openvino") from None
    properties = onnx.load(file, load_external_data=False).metadata_props
    return next((str(one.value) for one in properties if one.key == OWN), "")


def _read_told(text: str, file: Path) -> dict[str, Any]:
    try:
        told = json.loads(text)
        number = told["format"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise CheckpointError(f"{file}: was not exported by iccld; its metadata do not say how pictures are to be seen") from None
    if number != FORMAT:
        raise CheckpointError(
            f"{file}: has format {number!r}, this release reads {FORMAT}; use iccld {told.get('version')}, or export it again"
        )
    return dict(told)


def _predictor(told: dict[str, Any], where: str) -> tuple[Predictor, Standing]:
    """A predictor without a network, set as the file tells; the graph normalises, so pictures come as 0..1."""
    space = read_classes(told.get("label_space"), where)
    predictor = Predictor(nn.Identity(), space, working_size=None, size_multiple=1, mean=(0, 0, 0), std=(1, 1, 1))
    try:
        wide = apply_described(told["predictor"], predictor, where)
        standing = Standing(**{**told["standing"], "wide": wide})
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{where}: its metadata are damaged ({type(error).__name__}: {error}); export it again") from None
    predictor.mean, predictor.std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    return predictor, standing


def _identity(predictor: Predictor) -> str:
    """A hash of everything that the exported graph depends on."""
    digest = hashlib.sha256(f"{__version__} {FORMAT} {torch.__version__} {predictor.mean} {predictor.std}".encode())
    digest.update(f"{predictor.size_multiple} {predictor.noise_channels} {predictor.noise_stride}".encode())
    digest.update(repr(predictor.network).encode())
    for key, tensor in predictor.network.state_dict().items():
        digest.update(key.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:32]
