"""The workshop of tiny runs, and a benchmark as a module."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from types import ModuleType

import pytest

from ..workshop import cache, finished, no_estimate, one_thread, workshop

__all__ = ["cache", "finished", "no_estimate", "one_thread", "workshop"]


@pytest.fixture(scope="module")
def script(request: pytest.FixtureRequest) -> Iterator[ModuleType]:
    """The file that the test module names as SCRIPT; it lies in no package, and nothing of it runs but its definitions.

    As for a script that Python runs, what lies beside it can be imported.
    """
    path = request.module.SCRIPT
    spec = spec_from_file_location(f"{path.stem}_benchmark", path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(path.parent)
        spec.loader.exec_module(module)
        yield module
