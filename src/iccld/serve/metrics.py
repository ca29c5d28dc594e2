"""What the server counts, in Prometheus' text format 0.0.4 (https://prometheus.io/docs/instrumenting/exposition_formats/)."""

from __future__ import annotations

import os
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from itertools import accumulate

BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper bounds in seconds."""
PHASES = ("wait", "decode", "predict", "encode")
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Seconds:
    """A histogram of durations."""

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS) + 1)
        self.total = 0.0

    def add(self, seconds: float) -> None:
        """Count one duration."""
        self.counts[bisect_left(BUCKETS, seconds)] += 1
        self.total += seconds

    def lines(self, name: str, label: str) -> Iterator[str]:
        """Cumulative counts by bucket, sum and count."""
        for bound, count in zip((*(f"{bound:g}" for bound in BUCKETS), "+Inf"), accumulate(self.counts), strict=True):
            yield f'{name}_bucket{{{label},le="{bound}"}} {count}'
        yield f"{name}_sum{{{label}}} {self.total:.6f}"
        yield f"{name}_count{{{label}}} {sum(self.counts)}"


class Metrics:
    """Counts of the event loop's thread; nothing here is shared with another."""

    def __init__(self) -> None:
        self.answers: Counter[int] = Counter()
        """By HTTP status."""
        self.pictures = 0
        """Segmented."""
        self.pixels = 0
        self.abandoned = 0
        """Clients that left before their picture's turn came."""
        self.failures = 0
        """Answers 500."""
        self.admitted = 0
        """Uploads that are read, wait or are segmented now."""
        self.seconds = {phase: Seconds() for phase in PHASES}

    def text(self) -> str:
        """The whole page, each line a sample or a comment."""
        lines = ["# HELP iccld_answers_total Answers by HTTP status.", "# TYPE iccld_answers_total counter"]
        lines += [f'iccld_answers_total{{status="{status}"}} {count}' for status, count in sorted(self.answers.items())]
        for name, kind, words, value in (
            ("iccld_pictures_total", "counter", "Pictures segmented.", self.pictures),
            ("iccld_pixels_total", "counter", "Pixels of these pictures.", self.pixels),
            ("iccld_abandoned_total", "counter", "Clients that left before their picture's turn.", self.abandoned),
            ("iccld_failures_total", "counter", "Answers 500.", self.failures),
            ("iccld_queue", "gauge", "Uploads that are read, wait or are segmented now.", self.admitted),
            ("process_resident_memory_bytes", "gauge", "Resident memory.", resident_bytes()),
        ):
            lines += [f"# HELP {name} {words}", f"# TYPE {name} {kind}", f"{name} {value}"]
        lines += ["# HELP iccld_seconds Time of each phase of a picture.", "# TYPE iccld_seconds histogram"]
        for phase, histogram in self.seconds.items():
            lines += histogram.lines("iccld_seconds", f'phase="{phase}"')
        return "\n".join(lines) + "\n"


def resident_bytes() -> int:
    """This process's resident memory; 0 where the system has no /proc."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0
