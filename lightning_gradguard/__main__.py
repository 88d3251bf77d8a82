"""``python -m lightning_gradguard``, where the command ``gradguard`` is not on the path."""

import sys

from lightning_gradguard.cli import main

if __name__ == "__main__":
    sys.exit(main())
