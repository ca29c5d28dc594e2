"""A run directory: made by training a configuration, read by whatever comes after it."""

from iccld.runs.load import Standing, load_predictor, load_with_standing
from iccld.runs.run import adapt

__all__ = ["Standing", "adapt", "load_predictor", "load_with_standing"]
