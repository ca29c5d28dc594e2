"""The workshop of tiny runs, and a benchmark as a module."""

from __future__ import annotations

from importlib.util import module_from_spec, spec_from_file_location
from types import ModuleType

import pytest

from ..workshop import cache, finished, no_estimate, one_thread, workshop

__all__ = ["cache", "finished", "no_estimate", "one_thread", "workshop"]


@pytest.fixture(scope="module")
def script(request: pytest.FixtureRequest) -> ModuleType:
    """The file that the test module names as SCRIPT; it lies in no package, and nothing of it runs but its definitions."""
    path = request.module.SCRIPT
    spec = spec_from_file_location(f"{path.stem}_benchmark", path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
