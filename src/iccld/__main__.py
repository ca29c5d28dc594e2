"""`python -m iccld` is the `iccld` command."""

import sys

from iccld.cli import main

if __name__ == "__main__":
    sys.exit(main())
