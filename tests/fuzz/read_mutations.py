"""The child of test_fuzzed_images.py: reads mutations FIRST .. LAST-1 under a limit of memory and time.

It is killed by the alarm when one takes too long, and by the decoder's own fault when one crashes; FOLDER/number then tells which.  A
mutation that is neither an array nor a DataError is one line on stdout.  Usage: read_mutations.py FOLDER FIRST LAST
"""

from __future__ import annotations

import resource
import signal
import sys
from collections import Counter
from pathlib import Path

import numpy as np
from mutations import mutation, seeds

from iccld.data.images import read_image, read_palette_indices, read_png_u16
from iccld.errors import DataError

MEMORY = 1 << 30
SECONDS = 5
"""Of processor time, which other processes cannot make longer."""
WAIT_SECONDS = 60
"""Of the clock, for a reader that waits instead of working."""


def limit_memory() -> None:
    """MEMORY bytes of address space more than now, when all libraries are loaded and have decoded something."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def set_deadline(seconds: float, wait_seconds: int) -> None:
    """The process is killed by SIGPROF after that much work, by SIGALRM after that much time; 0 for no deadline."""
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.alarm(wait_seconds)


def outcome(path: Path) -> str:
    """What became of one file: read, refused, or how it went wrong.  All readers get it, each with its own deadline."""
    kinds = []
    for read in (read_image, read_palette_indices, read_png_u16):
        set_deadline(SECONDS, WAIT_SECONDS)
        try:
            pixels = read(path)
        except DataError as error:
            text = str(error)
            if "\n" in text or str(path) not in text:
                return f"a message that is no line or names no file: {text!r}"
            if "not enough memory" in text:
                return f"{read.__name__}: wants more than {MEMORY} bytes"
            kinds.append("refused")
            continue
        except BaseException as error:
            return f"{read.__name__}: {type(error).__name__}: {error}"
        wanted = {read_image: (3, "u"), read_palette_indices: (2, "ui"), read_png_u16: (3, "u")}[read]
        if pixels.ndim != wanted[0] or pixels.dtype.kind not in wanted[1] or pixels.size == 0 or pixels.shape[2:] not in ((), (3,)):
            return f"{read.__name__}: shape {pixels.shape} of {pixels.dtype}"
        int(np.asarray(pixels).max())  # every page can be read
        kinds.append("read")
    set_deadline(0, 0)
    return "read" if "read" in kinds else "refused"


def main() -> int:
    folder, first, last = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    path = folder / "mutated.png"
    for data in seeds():
        path.write_bytes(data)
        outcome(path)
    limit_memory()
    tally: Counter[str] = Counter()
    for number in range(first, last):
        path.write_bytes(mutation(number))
        (folder / "number").write_text(str(number))
        found = outcome(path)
        tally[found if found in ("read", "refused") else "wrong"] += 1
        if found not in ("read", "refused"):
            print(f"mutation {number}: {found}")
    print(f"tally {tally['read']} {tally['refused']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
