"""``gradguard replay RUN``: judge a run again, with other settings.

In: a history. Out: what the detectors would have said, beside what they did say. The history is
not changed.
"""

from __future__ import annotations

import heapq
import warnings
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from lightning_gradguard.cli.arguments import add_fail_on, add_json, add_run
from lightning_gradguard.cli.outcome import CommandError, exit_code
from lightning_gradguard.cli.records import finding_record, record
from lightning_gradguard.cli.runs import about, one_run, thinned_text
from lightning_gradguard.cli.terminal import say, say_json
from lightning_gradguard.findings import Finding, Severity, headline

if TYPE_CHECKING:
    from lightning_gradguard.history import Run

__all__ = ["HELP", "NAME", "SENSITIVITIES", "Replayed", "add_arguments", "replayed", "run"]

NAME: Final = "replay"
HELP: Final = "Judge a run again with other settings, and say what would have been said"

SENSITIVITIES: Final = ("low", "normal", "high")
"""Those of the detectors, spelled out since that module takes numpy along."""


def add_arguments(parser: ArgumentParser) -> None:
    """Say which options the command has."""
    add_run(parser)
    parser.add_argument(
        "--sensitivity",
        choices=SENSITIVITIES,
        default="normal",
        help="how early the detectors speak; normal by default",
    )
    parser.add_argument(
        "--ignore",
        action="append",
        default=[],
        metavar="KIND[:GLOB]",
        help="a kind not to report, such as spike, or for some layers only, such as "
        "'vanishing:embed*'; may be given again",
    )
    parser.add_argument(
        "--cooldown-steps",
        type=_count,
        default=50,
        metavar="STEPS",
        help="steps without evidence after which a fault is over; 50 by default",
    )
    add_json(parser)
    add_fail_on(parser)


def _count(text: str) -> int:
    """Read a number of steps.

    Example:
        >>> _count("50")
        50
    """
    if not text.isdecimal():
        msg = f"must be a whole number of steps from 0 on, got {text!r}"
        raise ArgumentTypeError(msg)
    return int(text)


def run(options: Namespace) -> int:
    """Print what would have been said; return the exit code."""
    with one_run(options.run) as history:
        try:
            again = replayed(
                history,
                sensitivity=options.sensitivity,
                ignore=options.ignore,
                cooldown_steps=options.cooldown_steps,
            )
        except ValueError as error:
            raise CommandError(str(error)) from error
        if options.json:
            say_json(_record(history, again, options))
        else:
            for line in _lines(history, again, options):
                say(line)
        return exit_code(again.findings, options.fail_on)


@dataclass(kw_only=True)
class Replayed:
    """What a second look found.

    Attributes:
        findings: Onsets, escalations and ends, oldest first.
        steps: Optimizer steps that were judged.
        muted: Detectors that failed, one sentence each.
    """

    findings: list[Finding] = field(default_factory=list)
    steps: int = 0
    muted: Sequence[str] = ()


def replayed(
    history: Run, *, sensitivity: str, ignore: Sequence[str] = (), cooldown_steps: int = 50
) -> Replayed:
    """Judge all stored steps again.

    Args:
        history: The run.
        sensitivity: One of `SENSITIVITIES`.
        ignore: See `Inspector`.
        cooldown_steps: See `Inspector`.

    Raises:
        ValueError: ``ignore`` names no kind.

    Cost:
        About a millisecond per step, more with hundreds of layers.
    """
    from lightning_gradguard.inspector import Inspector

    inspector = Inspector(
        sensitivity=sensitivity,  # type: ignore[arg-type] # the parser knows the choices
        ignore=ignore,
        cooldown_steps=cooldown_steps,
        on_error="warn",
    )
    again = Replayed()
    frames = (history.frames(index) for index in history.optimizers)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a detector that fails is told of below
        for frame in heapq.merge(*frames, key=lambda frame: frame.step):
            again.steps += 1
            again.findings += inspector.update(frame)
    again.muted = tuple(inspector.muted)
    return again


def _record(history: Run, again: Replayed, options: Namespace) -> dict[str, Any]:
    return record(
        NAME,
        run=about(history),
        sensitivity=options.sensitivity,
        ignore=options.ignore,
        steps=again.steps,
        verdict=_verdict(again),
        findings=[finding_record(finding) for finding in again.findings],
        comparison=list(_comparison(history.findings, again.findings)),
        muted=again.muted,
    )


def _lines(history: Run, again: Replayed, options: Namespace) -> Iterator[str]:
    yield f"gradguard, with sensitivity {options.sensitivity}: {_verdict(again)}"
    for finding in again.findings:
        yield f"  {headline(finding)}"
    rows = list(_comparison(history.findings, again.findings))
    cells = [("", "when it trained", "now")] if rows else []
    for row in rows:
        which = f"{row['kind']}{_of(row['optimizer_index'])}"
        cells.append((which, _when(row["recorded"]), _when(row["replayed"])))
    wide = [max((len(line[k]) for line in cells), default=0) + 2 for k in (0, 1)]
    for first, second, third in cells:
        yield f"  {first:{wide[0]}}{second:{wide[1]}}{third}"
    for reason in again.muted:
        yield f"  not judged: {reason}"
    yield f"  {again.steps} stored steps were judged{thinned_text(history)}"


def _verdict(again: Replayed) -> str:
    from lightning_gradguard.report.summary import summarise
    from lightning_gradguard.report.text import verdict

    return verdict(summarise(again.findings, observed_steps=again.steps, steps=again.steps))


def _comparison(
    recorded: Iterable[Finding], replayed_now: Iterable[Finding]
) -> Iterator[dict[str, Any]]:
    """Yield, for each kind and optimizer, when it was said then and when now."""
    then, now = _onsets(recorded), _onsets(replayed_now)
    for kind, index in sorted(then.keys() | now.keys(), key=lambda key: (key[1], key[0])):
        yield {
            "kind": kind,
            "optimizer_index": index,
            "recorded": then.get((kind, index)),
            "replayed": now.get((kind, index)),
        }


def _onsets(findings: Iterable[Finding]) -> dict[tuple[str, int], dict[str, Any]]:
    """Return the first step, the worst severity and the number of episodes, by kind."""
    onsets: dict[tuple[str, int], dict[str, Any]] = {}
    for finding in findings:
        if finding.state == "resolved":
            continue
        start = {"step": finding.step, "severity": 0, "episodes": 0}
        mine = onsets.setdefault((finding.kind, finding.optimizer_index), start)
        mine["severity"] = max(mine["severity"], int(finding.severity))
        mine["severity_name"] = Severity(mine["severity"]).name.lower()
        mine["episodes"] += finding.state == "opened"
    return onsets


def _of(optimizer_index: int) -> str:
    return f" ({optimizer_index})" if optimizer_index else ""


def _when(onset: Mapping[str, Any] | None) -> str:
    if onset is None:
        return "nothing"
    times = f", {onset['episodes']} times" if onset["episodes"] > 1 else ""
    return f"{onset['severity_name']} at step {onset['step']}{times}"
