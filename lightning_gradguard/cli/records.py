"""What the commands print as JSON, built in one place.

In: findings, actions, the name of a command. Out: mappings of plain types. The documentation of
every key is ``docs/command-line.md``.
"""

from __future__ import annotations

from typing import Any

from lightning_gradguard import schema
from lightning_gradguard.audit import Action, action_line
from lightning_gradguard.findings import Finding, headline

__all__ = ["action_record", "finding_record", "record"]


def record(command: str, **fields: Any) -> dict[str, Any]:  # noqa: ANN401 - any plain type
    """Return what a command says, with the version of its form.

    Example:
        >>> record("summary", verdict="healthy")
        {'schema': 'gradguard.cli/1', 'command': 'summary', 'verdict': 'healthy'}
    """
    return {"schema": schema.COMMAND_LINE_VERSION, "command": command, **fields}


def finding_record(finding: Finding) -> dict[str, Any]:
    """Return a finding, the name of its severity, and the line that is printed of it."""
    return {
        **finding.to_dict(),
        "severity_name": finding.severity.name.lower(),
        "line": headline(finding),
    }


def action_record(action: Action) -> dict[str, Any]:
    """Return an action, and the line that is printed of it."""
    return {**action.to_dict(), "line": action_line(action)}
