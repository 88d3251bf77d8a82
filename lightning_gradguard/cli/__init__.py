"""The command `gradguard`: looks at histories of runs, from a terminal or in CI.

In: histories that runs wrote. Out: text, JSON, tables, an exit code. Loads neither torch nor
Lightning, and changes nothing in a run's folder; but for `preflight`, which runs a model.
"""

from lightning_gradguard.cli.entry import main

__all__ = ["main"]
