"""``gradguard tail RUN``: follow a run while it trains.

In: a history that grows. Out: one line when a fault begins, gets worse or ends, and when a guard
acts; the verdict at the end.
"""

from __future__ import annotations

import argparse
from argparse import ArgumentParser, Namespace
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from time import monotonic, sleep
from typing import TYPE_CHECKING, Final, TypeAlias

from lightning_gradguard.audit import Action, action_line
from lightning_gradguard.cli.arguments import add_fail_on, add_json, add_run
from lightning_gradguard.cli.outcome import CommandError, exit_code
from lightning_gradguard.cli.records import action_record, finding_record, record
from lightning_gradguard.cli.runs import one_run, state, summed_up
from lightning_gradguard.cli.terminal import complain, say, say_json
from lightning_gradguard.findings import Finding, headline

if TYPE_CHECKING:
    from lightning_gradguard.history import Run

__all__ = ["HELP", "NAME", "News", "add_arguments", "run"]

NAME: Final = "tail"
HELP: Final = "Follow a run while it trains: one line when a fault begins, gets worse or ends"

_MOST_ACTS: Final = 5
"""Actions of one kind that are printed, as on the terminal of the run itself."""

_LONG_SECONDS: Final = 60.0
"""Without news for so long, the reader is told."""

Said: TypeAlias = Finding | Action


def add_arguments(parser: ArgumentParser) -> None:
    """Say which options the command has."""
    add_run(parser)
    parser.add_argument("--once", action="store_true", help="print what is there, and end")
    parser.add_argument(
        "--interval",
        type=_seconds,
        default=1.0,
        metavar="SECONDS",
        help="time from one look to the next; 1 by default",
    )
    add_json(parser, lines=True)
    add_fail_on(parser)


def run(options: Namespace) -> int:
    """Print what is new until the run is over; return the exit code."""
    with one_run(options.run) as history:
        if not _is_over(history, options):
            complain(f"following {history.name} until it ends; Ctrl-C ends this before.")
        with suppress(KeyboardInterrupt):  # the usual way to stop following
            _follow(history, options)
        _close(history, as_json=options.json)
        return exit_code(history.findings, options.fail_on)


def _follow(history: Run, options: Namespace) -> None:
    news = News()
    while True:
        # Asked before the findings are read: what the run says last is not missed.
        is_over = _is_over(history, options)
        for event in news.of(history):
            _print(event, as_json=options.json)
        if is_over:
            return
        _wait(history, options.interval)


def _wait(history: Run, interval: float) -> None:
    """Return when something new is there; say so when that takes long.

    Raises:
        CommandError: The file is gone, so that nothing new can come.
    """
    began: float | None = monotonic()
    sleep(interval)
    while not history.refresh():
        if history.is_replaced:
            msg = f"{history.path} was deleted or replaced. Start tail again for what is there now."
            raise CommandError(msg)
        if began is not None and monotonic() - began > _LONG_SECONDS:
            began = None
            complain(
                f"nothing was written for {_LONG_SECONDS:.0f} seconds: the training validates, "
                "stands still, or was killed."
            )
        sleep(interval)


def _is_over(history: Run, options: Namespace) -> bool:
    return bool(options.once) or history.meta.get("finished") is not None


class News:
    """Tell what was not told before.

    A resumed run says again what it said after the point that it resumed from.

    Example:
        >>> from types import SimpleNamespace
        >>> skip = Action(what="skip", step=12, why="loss is NaN")
        >>> news, run = News(), SimpleNamespace(news=lambda since: ([skip], since))
        >>> [event.what for event in news.of(run)], list(news.of(run))
        (['skip'], [])
    """

    def __init__(self) -> None:
        self._told: set[tuple[object, ...]] = set()
        self._until = (0, 0)
        self._acts: Counter[str] = Counter()

    def of(self, history: Run) -> Iterator[Said]:
        """Yield findings and actions that are new, in the order of their steps."""
        events, self._until = history.news(self._until)
        events.sort(key=lambda event: event.step)
        for event in events:
            key = _key(event)
            if key not in self._told:
                self._told.add(key)
                if isinstance(event, Finding) or self._is_worth_a_line(event):
                    yield event

    def _is_worth_a_line(self, action: Action) -> bool:
        """Leave out what is done at every other step, and of the rest all but the first few."""
        self._acts[action.what] += 1
        return action.what != "clip" and self._acts[action.what] <= _MOST_ACTS


def _key(event: Said) -> tuple[object, ...]:
    if isinstance(event, Finding):
        return (event.optimizer_index, event.step, event.kind, event.episode_id, event.state)
    return (event.optimizer_index, event.step, event.what, event.why)


def _print(event: Said, *, as_json: bool) -> None:
    if isinstance(event, Finding):
        if as_json:
            say_json(record(NAME, event="finding", **finding_record(event)), one_line=True)
        else:
            say(headline(event))
    elif as_json:
        say_json(record(NAME, event="action", **action_record(event)), one_line=True)
    else:
        say(action_line(event))


def _close(history: Run, *, as_json: bool) -> None:
    from lightning_gradguard.report.text import verdict

    how = verdict(summed_up(history))
    if as_json:
        ending = history.meta.get("finished")
        say_json(record(NAME, event="end", state=ending, verdict=how), one_line=True)
    else:
        say(f"{history.name} ({state(history)}): {how}")


def _seconds(text: str) -> float:
    """Read a time.

    Example:
        >>> _seconds("0.5")
        0.5
    """
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.0 < seconds < 1e6:
        msg = f"must be a number of seconds above 0, got {text!r}"
        raise argparse.ArgumentTypeError(msg)
    return seconds
