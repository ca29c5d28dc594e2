"""A predictor as one file for another runtime: ONNX, OpenVINO or torch.export; and such a file as a predictor (docs/export.md)."""

from typing import TYPE_CHECKING

from iccld.lazy import lazily

if TYPE_CHECKING:
    from iccld.export.files import export_model
    from iccld.export.names import RUNTIMES, is_exported
    from iccld.export.runtimes import load_exported, on_runtime

__all__ = ["RUNTIMES", "export_model", "is_exported", "load_exported", "on_runtime"]

__getattr__ = lazily(
    __name__,
    {
        "RUNTIMES": "iccld.export.names",
        "export_model": "iccld.export.files",
        "is_exported": "iccld.export.names",
        "load_exported": "iccld.export.runtimes",
        "on_runtime": "iccld.export.runtimes",
    },
)
