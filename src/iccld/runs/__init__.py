"""A run directory: made by training a configuration, read by whatever comes after it."""

from typing import TYPE_CHECKING

from iccld.lazy import lazily

if TYPE_CHECKING:
    from iccld.runs.load import Standing, load_predictor, load_with_standing
    from iccld.runs.run import adapt

__all__ = ["Standing", "adapt", "load_predictor", "load_with_standing"]

__getattr__ = lazily(
    __name__,
    {
        "Standing": "iccld.runs.load",
        "adapt": "iccld.runs.run",
        "load_predictor": "iccld.runs.load",
        "load_with_standing": "iccld.runs.load",
    },
)
