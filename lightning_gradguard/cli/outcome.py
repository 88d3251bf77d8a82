"""How a command ends: an exit code that CI can read, or an error that a person can.

In: findings, and from which severity on they count. Out: an exit code.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from lightning_gradguard.errors import GradGuardError
from lightning_gradguard.findings import Finding, Severity

__all__ = [
    "CLEAN",
    "CUT_SHORT",
    "FAIL_ON",
    "FAULT",
    "FOUND",
    "INTERRUPTED",
    "UNUSABLE",
    "CommandError",
    "exit_code",
]

CLEAN: Final = 0
"""Done, and nothing at or above ``--fail-on``."""

FOUND: Final = 1
"""Done, and there is a finding at or above ``--fail-on``; for `doctor`, something is wrong;
for `preflight`, the signal is not kept."""

UNUSABLE: Final = 2
"""Not done: a wrong option, a history that cannot be read, a model that cannot be run."""

FAULT: Final = 3
"""Not done, by a fault of this program; kept apart, so that CI does not take it for a finding."""

INTERRUPTED: Final = 130
"""Stopped from the keyboard, as shells count it."""

CUT_SHORT: Final = 141
"""Nobody reads on, such as ``head``; as shells count it."""

FAIL_ON: Final = ("never", *(severity.name.lower() for severity in Severity))
"""What ``--fail-on`` may be."""


class CommandError(GradGuardError):
    """What was asked for cannot be done; the message says what to do instead."""


def exit_code(findings: Iterable[Finding], fail_on: str) -> int:
    """Return the exit code that findings ask for.

    Args:
        findings: All that were reported; also what is over by now has happened.
        fail_on: One of `FAIL_ON`.

    Example:
        >>> seen = [Finding(kind="spike", severity=Severity.INFO, step=3, message="large")]
        >>> exit_code(seen, "warning"), exit_code(seen, "info"), exit_code(seen, "never")
        (0, 1, 0)
    """
    if fail_on == "never":
        return CLEAN
    least = Severity[fail_on.upper()]
    return FOUND if any(finding.severity >= least for finding in findings) else CLEAN
