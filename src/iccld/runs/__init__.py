"""A run directory: made by training a configuration, read by whatever comes after it."""

from typing import TYPE_CHECKING

from iccld.lazy import lazily

if TYPE_CHECKING:
    from iccld.runs.load import load_predictor
    from iccld.runs.run import adapt

__all__ = ["adapt", "load_predictor"]

__getattr__ = lazily(__name__, {"adapt": "iccld.runs.run", "load_predictor": "iccld.runs.load"})
