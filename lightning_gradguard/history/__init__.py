"""What a run wrote down: one SQLite file, written while training and read by everything else."""

from lightning_gradguard.errors import HistoryError
from lightning_gradguard.history.places import find_histories
from lightning_gradguard.history.run import Run, load_run

__all__ = ["HistoryError", "Run", "find_histories", "load_run"]
