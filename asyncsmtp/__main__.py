"""`python -m asyncsmtp` is the command `asyncsmtp`."""

import sys

from asyncsmtp.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
