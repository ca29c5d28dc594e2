"""Formats of exported models, their runtimes and their files.  Without PyTorch."""

from __future__ import annotations

from pathlib import Path

from iccld.errors import CheckpointError, ConfigError

FORMATS = ("onnx", "openvino", "torch")
RUNTIMES = ("torch", "onnxruntime", "openvino")
SUFFIXES = {"onnx": ".onnx", "openvino": ".xml", "torch": ".pt2"}
"""Of the file that is named; OpenVINO's weights lie beside it under the same name with .bin."""
RUNTIME_OF = {".onnx": "onnxruntime", ".xml": "openvino"}
"""Which runtime a file is read by; openvino reads ONNX too."""
PACKAGES = {"onnxruntime": "onnx", "openvino": "openvino"}
"""Runtime -> the extra that brings it."""

OWN = "iccld"
"""Key of a file's metadata under which everything that a reader has to know lies as JSON."""
FORMAT = 1


def is_exported(path: Path) -> bool:
    """Whether a path is a file of an exported model, by its suffix."""
    return path.suffix.lower() in (*RUNTIME_OF, SUFFIXES["torch"]) and not path.is_dir()


def check_file(path: Path, runtime: str | None = None) -> str:
    """The runtime that reads an exported file; CheckpointError for a missing one, ConfigError for a runtime that does not read it."""
    if path.suffix.lower() == SUFFIXES["torch"]:
        raise CheckpointError(
            f"{path}: torch reads .pt2 with pickle, which can run code, so iccld does not; "
            "load it yourself (torch.export.load), or give the run, a shared folder, .onnx or .xml"
        )
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; iccld export writes it")
    own = RUNTIME_OF[path.suffix.lower()]
    if runtime not in (None, own) and not (runtime == "openvino" and own == "onnxruntime"):
        readers = "onnxruntime or openvino" if own == "onnxruntime" else own
        raise ConfigError(f"{path} is read by {readers}, not by {runtime}; leave out the runtime, or give the run")
    if own == "openvino" and not path.with_suffix(".bin").is_file():
        raise CheckpointError(f"{path}: its weights {path.with_suffix('.bin').name} do not lie beside it; the two belong together")
    return runtime or own


def missing(runtime: str) -> ConfigError:
    """What is said where a runtime's packages are not installed."""
    return ConfigError(f"{runtime} is not installed; pip install 'iccld[{PACKAGES[runtime]}]'")
