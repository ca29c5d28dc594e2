"""The `iccld` command: one module a family of commands; PyTorch is imported by the commands that compute, never by `--help`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from iccld.errors import ConfigError, IccldError

INTERRUPTED = 130
"""Exit code after Ctrl-C, 128 + SIGINT as shells expect; training saves itself and exits 75 instead."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; every foreseen fault is one `error: …` line on stderr."""
    from iccld.cli.parser import parse

    try:
        command, arguments, rest = parse(sys.argv[1:] if argv is None else argv)
        return command(arguments, rest)
    except IccldError as error:
        return _report(error)
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()  # the reader (head, less) has gone; there is nobody to tell
        return 0
    except (ImportError, RuntimeError) as error:
        from iccld.doctor import mismatch_behind

        mismatch = mismatch_behind(error)
        if mismatch is None:
            raise
        return _report(ConfigError(mismatch))
    except OSError as error:
        if error.filename is None and error.errno is None:
            raise
        place = f" ({error.filename})" if error.filename else ""
        print(f"error: {error.strerror or error}{place}", file=sys.stderr)
        return 3


def _report(error: IccldError) -> int:
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
    return error.exit_code
