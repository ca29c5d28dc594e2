"""A run directory: made by training a configuration, read by whatever comes after it."""

from iccld.runs.load import load_predictor
from iccld.runs.run import adapt

__all__ = ["adapt", "load_predictor"]
