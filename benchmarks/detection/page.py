"""The results of the detection benchmark, as a page.

In: scores. Out: Markdown. Nothing is trained or judged in here.
"""

from __future__ import annotations

import math
import platform
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import version
from statistics import median

import lightning_gradguard
from benchmarks.detection import intervals
from benchmarks.detection.case import CURES
from benchmarks.detection.judging import Score, Verdict

__all__ = ["Results", "page"]

LIBRARIES = ("torch", "numpy", "scikit-learn")


@dataclass(frozen=True)
class Results:
    """All that the page tells.

    Attributes:
        halves: Score of each half.
        rules: For each half, the score of each published rule set, first seed.
        population: Score of each setting of the dial on the healthy population.
        cures: For each half, the verdict on each case with each of its cures, first seed.
        seeds: Of the labelled runs.
    """

    halves: Mapping[str, Score]
    rules: Mapping[str, Mapping[str, Score]]
    population: Mapping[str, Score]
    cures: Mapping[str, Mapping[tuple[str, str], Verdict]]
    seeds: tuple[int, ...]


def page(results: Results) -> str:
    """Return the page."""
    last = list(results.halves)[-1]
    lines = [
        "# Detection",
        "",
        "Made by `python -m benchmarks.detection`.",
        "",
        f"- {datetime.now(tz=timezone.utc):%Y-%m-%d}, {_versions()}",
        f"- {platform.system()} {platform.machine()}, on the CPU, one thread per training",
        f"- Seeds {', '.join(map(str, results.seeds))} of the {_name(last)} half, 0 of others",
        f"- The {_name(last)} half was not used for tuning",
        "",
        *_targets(results.halves[last]),
        *_false_alarms(results.population),
        *_kinds(results.halves[last], last),
        *_rules(results),
        *_wrong(results.halves),
        *_cures(results),
        *_labels(results),
    ]
    return "\n".join(lines) + "\n"


def _versions() -> str:
    versions = {"lightning-gradguard": lightning_gradguard.__version__}
    versions |= {"Python": platform.python_version()}
    versions |= {name: version(name) for name in LIBRARIES}
    return ", ".join(" ".join(item) for item in versions.items())


def _targets(score: Score) -> Iterator[str]:
    scored = _scored(score)
    nonfinite = [v.delay for v in scored.failing if v.is_found and v.case.kinds[0] == "nonfinite"]
    low, high = intervals.of_share(scored.false_alarms, max(1, len(scored.healthy)))
    rate = scored.false_alarms / max(1, len(scored.healthy))
    rows = [
        ("recall", "at least 0.95", f"{scored.recall:.3f}", scored.recall >= 0.95),
        ("precision", "at least 0.97", f"{scored.precision:.3f}", scored.precision >= 0.97),
        (
            "healthy runs with any alarm",
            "at most 1 %",
            f"{rate:.1%} ({low:.1%} to {high:.1%})",
            rate <= 0.01,
        ),
        (
            "first alarm of a right kind",
            "at least 0.90",
            f"{scored.right_first:.3f}",
            scored.right_first >= 0.9,
        ),
        ("alarms before the fault", "none", str(scored.early), scored.early == 0),
        ("median delay, in steps", "at most 20", _steps(scored.delays), _ok(scored.delays, 20)),
        ("median delay of `nonfinite`", "at most 1", _steps(nonfinite), _ok(nonfinite, 1)),
    ]
    yield f"## Held out: {len(scored.failing)} failing and {len(scored.healthy)} healthy trainings"
    yield ""
    yield "| figure | target | measured | |"
    yield "| --- | --- | --- | --- |"
    for name, target, measured, is_met in rows:
        yield f"| {name} | {target} | **{measured}** | {'met' if is_met else 'missed'} |"
    yield ""


def _false_alarms(population: Mapping[str, Score]) -> Iterator[str]:
    first = next(iter(population.values()))
    healthy = [v for v in first.verdicts if v.is_true]
    steps = sum(verdict.steps for verdict in healthy)
    yield "## False alarms in healthy trainings varied at random"
    yield ""
    yield (
        f"{len(healthy)} trainings with {steps:,} optimizer steps; {len(first.verdicts)} were "
        f"drawn, and {len(first.verdicts) - len(healthy)} left out because they did not learn. "
        "Intervals hold 95 %."
    )
    yield ""
    yield "| sensitivity | alarmed | share | interval | per 10,000 steps | interval |"
    yield "| --- | ---: | ---: | --- | ---: | --- |"
    for name, score in population.items():
        mine = [v for v in score.verdicts if v.is_true]
        hits = sum(v.is_alarmed for v in mine)
        low, high = intervals.of_share(hits, max(1, len(mine)))
        scale = 1e4 / max(1, steps)
        few, many = (bound * scale for bound in intervals.of_rate(hits))
        yield (
            f"| {name} | {hits} | {hits / max(1, len(mine)):.1%} | {low:.1%} to {high:.1%} "
            f"| {hits * scale:.2f} | {few:.2f} to {many:.2f} |"
        )
    yield ""


def _kinds(score: Score, half: str) -> Iterator[str]:
    yield f"## By kind, {_name(half)} half"
    yield ""
    yield "| kind | trainings | found | right kind first | median delay |"
    yield "| --- | ---: | ---: | ---: | ---: |"
    for kind in dict.fromkeys(v.case.kinds[0] for v in score.failing):
        mine = Score(tuple(v for v in score.failing if v.case.kinds[0] == kind))
        mine = _scored(mine)
        if mine.failing:
            right = sum(v.is_right_first for v in mine.failing)
            counts = f"{len(mine.failing)} | {mine.found} | {right}"
            yield f"| {kind} | {counts} | {_steps(mine.delays)} |"
    apart = [v for v in score.failing if v.case.needs_activations]
    if apart:
        found = sum(v.is_found for v in apart)
        yield ""
        yield (
            f"Scored apart, since only activations can tell: {len(apart)} trainings, of which "
            f"{found} got an alarm."
        )
    yield ""


def _rules(results: Results) -> Iterator[str]:
    yield "## Beside published rules"
    yield ""
    yield "The same trainings, first seed; rules with their published defaults, at every step."
    yield ""
    yield "| half | rules | recall | healthy alarmed | precision | right kind first | too early |"
    yield "| --- | --- | ---: | ---: | ---: | ---: | ---: |"
    for half, score in results.halves.items():
        first = tuple(v for v in score.verdicts if v.seed == results.seeds[0])
        yield _rule_row(half, "**lightning_gradguard**", Score(first))
        for name, other in results.rules[half].items():
            yield _rule_row(half, name, other)
    yield ""


def _rule_row(half: str, name: str, score: Score) -> str:
    scored = _scored(score)
    return (
        f"| {_name(half)} | {name} | {scored.recall:.2f} "
        f"| {scored.false_alarms} of {len(scored.healthy)} | {scored.precision:.2f} "
        f"| {scored.right_first:.2f} | {scored.early} |"
    )


def _wrong(halves: Mapping[str, Score]) -> Iterator[str]:
    yield "## What went wrong"
    yield ""
    yield "| half | training | seed | labelled | said | what it is |"
    yield "| --- | --- | ---: | --- | --- | --- |"
    for half, score in halves.items():
        for verdict in sorted(_scored(score).verdicts, key=lambda v: (v.case.name, v.seed)):
            if _is_wrong(verdict):
                said = ", ".join(f"{kind} at {step}" for kind, step, _ in verdict.alarms[:3])
                label = " or ".join(verdict.case.kinds) or "healthy"
                yield (
                    f"| {_name(half)} | {verdict.case.name} | {verdict.seed} | {label}, from "
                    f"{verdict.case.onset} | {said or 'nothing'} | {verdict.case.why} |"
                )
    yield ""


def _is_wrong(verdict: Verdict) -> bool:
    if verdict.case.is_healthy:
        return verdict.is_alarmed
    return not (verdict.is_found and verdict.is_right_first) or verdict.is_early


def _cures(results: Results) -> Iterator[str]:
    """Tell whether the advice of the alarm names a cure that was shown to cure."""
    yield "## Does the advice cure?"
    yield ""
    yield (
        "Each failing training is repeated with cures, first seed. A cure counts as named when "
        "the advice of one of the run's alarms speaks of it."
    )
    yield ""
    yield (
        "| half | cures tried | cured | named in the advice | of these cured "
        "| runs whose advice names a cure that cures | alarms in cured runs |"
    )
    yield "| --- | ---: | ---: | ---: | ---: | ---: | ---: |"
    for half, verdicts in results.cures.items():
        first = {v.case.name: v for v in results.halves[half].failing if v.seed == results.seeds[0]}
        named = {key for key in verdicts if _names(first[key[0]], key[1])}
        cured = {key for key, verdict in verdicts.items() if verdict.is_true}
        runs = {name for name, _ in verdicts}
        helped = {name for name, _ in named & cured}
        alarmed = sum(verdicts[key].is_alarmed for key in cured)
        yield (
            f"| {_name(half)} | {len(verdicts)} | {len(cured)} | {len(named)} "
            f"| {len(named & cured)} | {len(helped)} of {len(runs)} | {alarmed} of {len(cured)} |"
        )
    yield ""


def _names(verdict: Verdict, cure: str) -> bool:
    pattern = next(p for name, p in CURES.items() if name == cure)
    return any(re.search(pattern, advice) for _, _, advice in verdict.alarms)


def _labels(results: Results) -> Iterator[str]:
    yield "## Labels"
    yield ""
    yield (
        "A label is proven by training alone: a healthy run must reach a stated score, a failing "
        "one must not (`python -m benchmarks.detection.prove`)."
    )
    yield ""
    for half, score in results.halves.items():
        untrue = sorted(f"{v.case.name} (seed {v.seed})" for v in score.verdicts if not v.is_true)
        yield (
            f"- {_name(half)}: {len(score.verdicts)} trainings of "
            f"{len({v.case.name for v in score.verdicts})} cases, "
            f"{len({v.case.name for v in score.healthy})} of them healthy; "
            f"labels that did not hold: {', '.join(untrue) or 'none'}"
        )
    yield ""


def _scored(score: Score) -> Score:
    return Score(tuple(v for v in score.verdicts if not v.case.needs_activations))


def _name(half: str) -> str:
    return half.replace("_", "-")


def _steps(delays: Sequence[float]) -> str:
    return f"{median(delays):.0f}" if delays else "none found"


def _ok(delays: Sequence[float], most: float) -> bool:
    return bool(delays) and not math.isnan(median(delays)) and median(delays) <= most
