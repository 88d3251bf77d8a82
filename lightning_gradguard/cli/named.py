"""From a name such as ``package.module:Model`` to what it names.

In: a name from the command line. Out: the object. This imports and runs the user's code; whatever
that prints goes to standard error, so that what a command says stays readable by programs.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from functools import reduce
from importlib import import_module
from pathlib import Path
from typing import Any

from lightning_gradguard.cli.outcome import CommandError

__all__ = ["load_named", "users_code"]


def load_named(name: str) -> Any:  # noqa: ANN401 - whatever it names
    """Import what is named; modules in the current folder are found, too.

    Args:
        name: ``module:attribute``, where both may have dots in them.

    Raises:
        CommandError: It has another form, importing it raises, or there is no such attribute.

    Example:
        >>> load_named("collections:OrderedDict.fromkeys")("a")
        OrderedDict([('a', None)])
    """
    module, colon, attributes = name.partition(":")
    if not (module and colon and attributes):
        msg = f"A name must be module:attribute, got {name!r}. Write for example models.deep:Deep."
        raise CommandError(msg)
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)  # as `python -m` does
    with users_code(f"importing {module!r}"):
        found = import_module(module)
    try:
        return reduce(getattr, attributes.split("."), found)
    except AttributeError:
        msg = f"{module!r} has no {attributes!r}. Look at the spelling after the colon."
        raise CommandError(msg) from None


@contextmanager
def users_code(doing: str) -> Iterator[None]:
    """Run code that is not ours: what it prints goes to standard error, what it raises is told.

    Args:
        doing: What is being done, such as ``"importing 'models'"``.

    Raises:
        CommandError: It raised, or it tried to end the program.
    """
    try:
        with redirect_stdout(sys.stderr):
            yield
    except CommandError:
        raise
    except (Exception, SystemExit) as error:
        msg = f"{doing} raised {type(error).__name__}: {error}{_place(error)}."
        raise CommandError(msg) from error


def _place(error: BaseException) -> str:
    """Say where something was raised; that Python's own import did is of no help."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    if "importlib" in last.filename:
        return ""
    return f" ({Path(last.filename).name}, line {last.lineno})"
