"""The workshop of tiny runs, one of them shared."""

from __future__ import annotations

from pathlib import Path

import pytest

import iccld

from ..workshop import cache, finished, no_estimate, one_thread, workshop

__all__ = ["cache", "finished", "no_estimate", "one_thread", "workshop"]


@pytest.fixture(scope="session")
def shared(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished run's model as a folder; nothing may be changed in it."""
    return iccld.load(finished).save_pretrained(tmp_path_factory.mktemp("shared") / "street")
