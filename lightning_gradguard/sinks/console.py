"""Findings and the closing summary, on a terminal.

In: events. Out: one line when a fault begins or ends, and a summary at the end. With ``rich``
installed and a terminal to write to, in colour; otherwise plain text.
"""

from __future__ import annotations

import sys
from collections import Counter
from importlib.util import find_spec
from typing import Final, TextIO

from lightning_gradguard.audit import Action, action_line
from lightning_gradguard.events import Event
from lightning_gradguard.findings import Finding, Severity, headline
from lightning_gradguard.plain_text import printable
from lightning_gradguard.report.summary import Summary
from lightning_gradguard.report.text import summary_lines

__all__ = ["ConsoleSink"]

_MOST_ACTS: Final = 5
"""Actions of one kind that are printed."""

_STYLES: Final = {
    Severity.INFO: "cyan",
    Severity.WARNING: "yellow",
    Severity.ERROR: "red",
    Severity.CRITICAL: "bold red",
}


class ConsoleSink:
    """Print what matters.

    Args:
        stream: Where to print; None is standard error, which progress bars share.
        min_severity: Findings below this are left to the summary.

    Example:
        >>> import io
        >>> out = io.StringIO()
        >>> ConsoleSink(out).emit(Finding(kind="exploding", severity=Severity.CRITICAL,
        ...                               step=3, message="norm 1e9"))
        >>> print(out.getvalue(), end="")
        gradguard: step 3  CRITICAL exploding  whole model: norm 1e9.
    """

    def __init__(
        self, stream: TextIO | None = None, *, min_severity: Severity = Severity.WARNING
    ) -> None:
        self._stream = stream
        self._min_severity = min_severity
        self._acts: Counter[str] = Counter()

    def emit(self, event: Event) -> None:
        """Print a finding or a summary; frames pass in silence."""
        if isinstance(event, Finding) and event.severity >= self._min_severity:
            self._print_finding(event)
        elif isinstance(event, Action):
            self._print_action(event)
        elif isinstance(event, Summary):
            self._print_summary(event)

    def _print_finding(self, finding: Finding) -> None:
        self._write(f"gradguard: {headline(finding)}", _style(finding))
        if finding.state == "opened" and finding.advice:
            self._write(f"           try: {finding.advice}", "dim")

    def _print_action(self, action: Action) -> None:
        """Print what is not done at every other step, and of that the first few."""
        self._acts[action.what] += 1
        count = self._acts[action.what]
        if action.what == "clip" or count > _MOST_ACTS:
            return
        more = "; later ones are in the summary" if count == _MOST_ACTS else ""
        self._write(f"gradguard: {action_line(action)}{more}", "magenta")

    def _print_summary(self, summary: Summary) -> None:
        worst = summary.faults[0] if summary.faults else None
        first, *rest = summary_lines(summary)
        self._write(first, "bold green" if worst is None else _style(worst))
        for line in rest:
            self._write(line, "")

    def _write(self, line: str, style: str) -> None:
        stream, line = self._stream or sys.stderr, printable(line)
        if find_spec("rich") is None or not stream.isatty():
            print(line, file=stream, flush=True)
            return
        from rich.console import Console

        Console(file=stream).print(line, style=style, markup=False, highlight=False)


def _style(finding: Finding) -> str:
    return "green" if finding.state == "resolved" else _STYLES[finding.severity]
