"""What the campaigns share: their size, by FAULTS=full, and a place to run them."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def scale() -> Callable[[int, int], int]:
    """scale(full, small) -> the size of a campaign."""
    spec = importlib.util.spec_from_file_location("catalogue", Path(__file__).with_name("catalogue.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    chosen: Callable[[int, int], int] = module.scale
    return chosen
