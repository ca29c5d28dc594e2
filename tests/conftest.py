"""What tests of every room share: this CPU once with bf16 and once without (fault 60), and a voice."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from iccld.machine import BF16_SWITCH
from iccld.progress import set_quiet


@pytest.fixture(params=[pytest.param(False, id="no_bf16"), pytest.param(True, id="bf16")])
def has_bf16(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """A test that asks for it runs twice: on a CPU said to be without bf16, and on one said to have it."""
    monkeypatch.setenv(BF16_SWITCH, "on" if request.param else "off")
    return bool(request.param)


@pytest.fixture(autouse=True)
def loud() -> Iterator[None]:
    """A command that a test ran with `--quiet` silences no test after it in the same process."""
    set_quiet(False)
    yield
    set_quiet(False)
