"""Several runs, one table: `ablate` (the paper's Table 1) and `compare` (its Table 2)."""

from iccld.experiments.runner import run_units
from iccld.experiments.units import Unit

__all__ = ["Unit", "run_units"]
