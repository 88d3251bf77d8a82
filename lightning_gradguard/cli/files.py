"""Where the commands may write.

In: where somebody wants a file. Out: an error if it must not be there: never in place of a history.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from lightning_gradguard.cli.outcome import CommandError

__all__ = ["check_target"]


def check_target(target: Path, histories: Iterable[Path]) -> None:
    """Refuse a place at which a file cannot or must not be written.

    Args:
        target: Where the file would be.
        histories: What must not be written over.

    Raises:
        CommandError: The folder is not there, or the target is a folder or a history.
    """
    if not target.absolute().parent.is_dir():
        msg = f"There is no folder {target.absolute().parent}. Make it first."
        raise CommandError(msg)
    if target.is_dir():
        msg = f"{target} is a folder. Name a file in it, such as {target / 'out'}."
        raise CommandError(msg)
    from lightning_gradguard.history.places import belongs_to_a_history

    place = target.resolve()
    own = [history.resolve() for history in histories]
    is_own = any(place.parent == one.parent and place.name.startswith(one.name) for one in own)
    if is_own or belongs_to_a_history(place):
        msg = f"{target} belongs to the history of a run. Name another file."
        raise CommandError(msg)
