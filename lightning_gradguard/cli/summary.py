"""``gradguard summary RUN``: how a run stands or ended.

In: a history. Out: the verdict, the faults and what to try, as text or JSON.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from lightning_gradguard.cli.arguments import add_fail_on, add_json, add_run
from lightning_gradguard.cli.outcome import exit_code
from lightning_gradguard.cli.records import finding_record, record
from lightning_gradguard.cli.runs import (
    about,
    one_run,
    optimizers,
    state,
    summed_up,
    thinned_text,
)
from lightning_gradguard.cli.terminal import say, say_json

if TYPE_CHECKING:
    from lightning_gradguard.history import Run
    from lightning_gradguard.report.summary import Summary

__all__ = ["HELP", "NAME", "add_arguments", "run"]

NAME: Final = "summary"
HELP: Final = "Say how a run stands or ended: what is wrong, since when, what to try"


def add_arguments(parser: ArgumentParser) -> None:
    """Say which options the command has."""
    add_run(parser)
    add_json(parser)
    add_fail_on(parser)


def run(options: Namespace) -> int:
    """Print the summary; return the exit code."""
    with one_run(options.run) as history:
        summary = summed_up(history)
        if options.json:
            say_json(_record(history, summary))
        else:
            for line in _lines(history, summary):
                say(line)
        return exit_code(history.findings, options.fail_on)


def _record(history: Run, summary: Summary) -> dict[str, Any]:
    from lightning_gradguard.report.text import verdict

    said = (*summary.faults, *summary.notices)
    findings = [finding_record(f) | {"ended": f.episode_id in summary.ended} for f in said]
    worst = max(said, key=lambda finding: finding.severity, default=None)
    return record(
        NAME,
        run=about(history),
        verdict=verdict(summary),
        healthy=summary.is_healthy,
        severity_name=None if worst is None else worst.severity.name.lower(),
        findings=findings,
        acts=summary.acts,
        loss=_losses(history),
    )


def _lines(history: Run, summary: Summary) -> Iterator[str]:
    from lightning_gradguard.report.text import summary_lines

    yield from summary_lines(summary)
    yield f"  run     {history.name}: {state(history)}"
    for mine in optimizers(history):
        which = f", optimizer {mine['index']}" if len(history.optimizers) > 1 else ""
        to = "" if mine["last_step"] is None else f", {mine['first_step']} to {mine['last_step']}"
        yield f"  steps   {mine['steps']} recorded{to}{which}; {mine['layers']} layers"
    if thinned := thinned_text(history):
        yield f"          {thinned.removeprefix('; ')}"
    losses = _losses(history)
    if losses is not None:
        yield f"  loss    {losses['first']:.4g} at first, {losses['last']:.4g} at last"
    yield f"  file    {history.path}"


def _losses(history: Run) -> dict[str, float] | None:
    """Return the first and the last known loss of the first optimizer."""
    if "loss" not in history.scalars or not history.optimizers:
        return None
    index = history.optimizers[0]
    known = history.scalar("loss", index)[history.is_measured("loss", index)]
    return {"first": float(known[0]), "last": float(known[-1])} if len(known) else None
