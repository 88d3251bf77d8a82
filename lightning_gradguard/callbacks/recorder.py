"""The history file of a training: where it is, and what it says of the run.

In: a `Trainer`. Out: a sink, or None where there is no place for a file. Knows nothing of what is
written.
"""

from __future__ import annotations

import platform
import re
import sys
import warnings
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

import lightning_gradguard
from lightning_gradguard import trainers
from lightning_gradguard.history.places import next_free
from lightning_gradguard.history.tables import FILE_NAME, FOLDER_NAME
from lightning_gradguard.sinks.history import HistorySink

if TYPE_CHECKING:
    from pytorch_lightning import LightningModule, Trainer

DEFAULT_NAME: Final = "gradguard"

__all__ = ["DEFAULT_NAME", "close", "outcome", "report", "start"]


def start(
    trainer: Trainer, pl_module: LightningModule, *, name: str, goes_on: bool
) -> HistorySink | None:
    """Begin to write, on rank zero of a training that has a folder of its own on a local disk.

    Args:
        trainer: The training.
        pl_module: Its model.
        name: The monitor's; several of one training have a file each.
        goes_on: Whether this continues an earlier fit, so that a file that is there is continued;
            otherwise one that is there is left as it is, and a new one gets a number.
    """
    try:
        folder = trainers.log_folder(trainer) if trainer.is_global_zero else None
        if folder is None:
            return None
        path = folder / FOLDER_NAME / _file_name(name)
        about = {"versions": _versions(trainer)}
        model = f"{type(pl_module).__module__}.{type(pl_module).__qualname__}"
        meta = {"model": model, "versions": about["versions"]}
        return HistorySink(path if goes_on else next_free(path), about, meta)
    except Exception as error:  # noqa: BLE001 - any logger; training goes on
        _warn(error)
        return None


def _file_name(name: str) -> str:
    """Return the default name for the default monitor.

    Example:
        >>> _file_name("gradguard"), _file_name("generator/2")
        ('history.sqlite', 'history-generator_2.sqlite')
    """
    if name == DEFAULT_NAME:
        return FILE_NAME
    stem, dot, ending = FILE_NAME.partition(".")
    return f"{stem}-{re.sub(r'[^A-Za-z0-9._-]', '_', name)}{dot}{ending}"


def close(history: HistorySink, finished: str | None) -> None:
    """Write the rest; whatever goes wrong, training goes on."""
    try:
        history.close(finished)
    except Exception as error:  # noqa: BLE001 - such as a full disk
        _warn(error)


def report(history: HistorySink) -> None:
    """Write ``report.html`` beside a history that is closed; whatever goes wrong is told."""
    from lightning_gradguard.history import load_run
    from lightning_gradguard.report.html import write_report

    target = history.path.with_name(history.path.name.replace("history", "report")).with_suffix(
        ".html"
    )
    try:
        with load_run(history.path) as run:
            write_report([run], target)
    except Exception as error:  # noqa: BLE001 - such as a full disk
        warnings.warn(f"gradguard cannot write {target}: {error}", stacklevel=3)


def outcome(exception: BaseException) -> str:
    """Return how a training ended that did not finish."""
    is_wish = isinstance(exception, KeyboardInterrupt)
    if isinstance(exception, SystemExit):
        is_wish = exception.code in {None, 0}
    # Lightning's own exception for SIGTERM is private.
    return "interrupted" if is_wish or "SIGTERM" in type(exception).__name__ else "exception"


def _warn(error: Exception) -> None:
    warnings.warn(
        f"gradguard cannot write the history, and training goes on without it: "
        f"{type(error).__name__}: {error}",
        stacklevel=3,
    )


def _versions(trainer: Trainer) -> dict[str, Any]:
    package = type(trainer).__module__.partition(".")[0]
    lightning = getattr(sys.modules.get(package), "__version__", None)
    return {
        "lightning_gradguard": lightning_gradguard.__version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "lightning": None if lightning is None else str(lightning),
        "numpy": np.__version__,
    }
