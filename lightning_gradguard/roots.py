"""Lightning is installed under two names; a callback must be at home in both.

In: what is installed. Out: one base class. ``pytorch_lightning.Trainer`` and
``lightning.pytorch.Trainer`` each insist on their own ``Callback``.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final

__all__ = ["callback_base"]

_ROOTS: Final = ("pytorch_lightning", "lightning.pytorch")


def callback_base() -> type[Any]:
    """Return a class that is a ``Callback`` of every Lightning distribution here.

    Raises:
        ModuleNotFoundError: Neither distribution is installed.
    """
    bases, failures = [], []
    for root in _ROOTS:
        if find_spec(root.partition(".")[0]) is None:
            continue
        try:
            bases.append(import_module(root).Callback)
        except ImportError as error:  # a broken one matters only if there is no other
            failures.append(error)
    if failures and not bases:
        raise failures[0]
    if not bases:
        msg = (
            "A Lightning callback needs `pytorch_lightning` or `lightning`, and neither is "
            "installed. Run `pip install pytorch-lightning`."
        )
        raise ModuleNotFoundError(msg)
    return type("Callback", tuple(dict.fromkeys(bases)), {})
