"""Commands share a process here: what one of them silences must speak again in the next test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from iccld.progress import set_quiet


@pytest.fixture(autouse=True)
def loud() -> Iterator[None]:
    yield
    set_quiet(False)
