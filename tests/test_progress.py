"""Progress off a terminal, on one, and when quiet."""

from __future__ import annotations

import io
import itertools
import sys

import pytest

from iccld import progress as module
from iccld.progress import duration, progress, say, set_quiet


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test moves."""
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


@pytest.mark.parametrize(("seconds", "text"), [(0, "0s"), (59.4, "59s"), (185, "3m05s"), (7620, "2h07m")])
def test_duration(seconds, text):
    assert duration(seconds) == text


def test_plain_lines_come_at_most_every_ten_seconds_and_ten_percent(capsys, clock):
    with progress("Working", total=100) as bar:
        for step in range(1, 101):
            clock[0] += 0.5 if step <= 50 else 4.0
            bar.advance(note=f"loss {step}")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("Working: 20/100, 2/s, 10s elapsed, 40s left, loss 20")
    assert lines[-1].startswith("Working: 100/100")
    assert "left" not in lines[-1]
    done = [int(line.split(": ")[1].split("/")[0]) for line in lines]
    assert all(later - earlier >= 10 for earlier, later in itertools.pairwise(done[:-1]))
    assert len(lines) <= 10


def test_quick_job_prints_one_line(capsys, clock):
    with progress("Working", total=3) as bar:
        for _ in range(3):
            bar.advance()
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_quiet_silences_both(capsys):
    set_quiet(True)
    say("hello")
    with progress("Working", total=1) as bar:
        bar.advance(1, note="x")
    assert capsys.readouterr() == ("", "")


def test_nothing_goes_to_stdout(capsys):
    say("hello")
    with progress("Working", total=1) as bar:
        bar.advance()
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("hello\n")


def test_terminal_shows_count_and_time_left(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with progress("Working", total=4) as bar:
        bar.advance(4, note="[loss] 0.31")
    shown = terminal.getvalue()
    assert "Working" in shown
    assert "4/4" in shown
    assert "[loss] 0.31" in shown


def test_an_error_inside_is_not_swallowed():
    with pytest.raises(ValueError, match="inside"), progress("Working", total=1):
        raise ValueError("inside")
