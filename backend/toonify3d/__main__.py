"""``python -m toonify3d``: the same as the ``toonify3d`` command."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
