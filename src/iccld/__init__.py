"""Adversarially domain-adaptive latent diffusion for unsupervised semantic segmentation (ICCLD).

The public names are those of `__all__` (docs/python.md).  Each is imported when it is first asked for: `import iccld` needs no PyTorch.
Their types stand in __init__.pyi.
"""

from iccld.lazy import lazily

__version__ = "0.1.0"

_HOMES = {
    "METHODS": "iccld.methods",
    "CheckpointError": "iccld.errors",
    "ConfigError": "iccld.errors",
    "DataError": "iccld.errors",
    "IccldError": "iccld.errors",
    "Model": "iccld.front",
    "Run": "iccld.front",
    "Segmentation": "iccld.front",
    "adapt": "iccld.front",
    "load": "iccld.front",
    "open_dataset": "iccld.data",
}

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

__getattr__ = lazily(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
