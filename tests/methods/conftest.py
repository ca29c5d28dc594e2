"""Tiny networks and a tiny batch for the tests of methods; `tiny_method.py` beside this file also runs in processes of its own."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny() -> ModuleType:
    """The module of factories."""
    spec = importlib.util.spec_from_file_location("tiny_method", Path(__file__).with_name("tiny_method.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
