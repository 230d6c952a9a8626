"""The one command, from a clone: python run.py --help. It is ``leapcast/__main__.py`` by another name."""

import sys

from leapcast.__main__ import main

if __name__ == "__main__":
    sys.exit(main())
