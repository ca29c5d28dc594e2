"""The public names with their types; __init__.py imports each when it is first asked for."""

from iccld.data import open_dataset
from iccld.errors import CheckpointError, ConfigError, DataError, IccldError
from iccld.front import Model, Run, Segmentation, adapt, load
from iccld.methods import METHODS

__version__: str

__all__ = [
    "METHODS",
    "CheckpointError",
    "ConfigError",
    "DataError",
    "IccldError",
    "Model",
    "Run",
    "Segmentation",
    "__version__",
    "adapt",
    "load",
    "open_dataset",
]
