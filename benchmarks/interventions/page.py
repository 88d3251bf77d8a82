"""The results of the benchmark of interventions, as a page.

In: results. Out: Markdown. Nothing is trained in here.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from importlib.metadata import version
from statistics import fmean

import lightning_gradguard
from benchmarks.interventions.scoring import RESCUED, Figures, Result, shares_by_seed
from benchmarks.interventions.treatments import NONE, PUBLISHED, TREATMENTS

__all__ = ["page"]

Halves = Mapping[str, Sequence[Result]]
"""Results of each half."""

SHARE = (
    "of what the best of twenty cures by hand reaches (another rate, clipping, warm-up, clean "
    "data and schedule), with chance at 0; on the mean, each run at most 1"
)
NAMES = {"tuning": "tuning half", "held_out": "held-out half"}


def page(halves: Halves, seeds: Sequence[int]) -> str:
    """Return the page.

    Args:
        halves: All results, by half; the last one was not used for tuning.
        seeds: Of the trainings.
    """
    last = list(halves)[-1]
    everything = [result for results in halves.values() for result in results]
    lines = [
        "# Interventions",
        "",
        "Made by `make bench-interventions`.",
        "",
        f"- {datetime.now(tz=timezone.utc):%Y-%m-%d}, {_versions()}",
        f"- {platform.system()} {platform.machine()}, on the CPU, one thread per training",
        f"- Seeds {', '.join(map(str, seeds))}; each treatment with its default settings",
        f"- The {NAMES[last]} was not used for tuning",
        f"- Share: {SHARE}",
        f"- Rescued: runs that reach a share of {RESCUED} with the treatment, and not without",
        "",
        *_targets(halves[last], f"Targets, {NAMES[last]}"),
        *(_targets(everything, "Targets, both halves") if len(halves) > 1 else ()),
        *(line for half in halves for line in _treatments(halves[half], NAMES[half])),
        *(line for half in halves for line in _cases(halves[half], NAMES[half])),
        *_acts(everything),
    ]
    return "\n".join(lines) + "\n"


def _versions() -> str:
    versions = {"lightning-gradguard": lightning_gradguard.__version__}
    versions |= {"Python": platform.python_version()}
    versions |= {name: version(name) for name in ("torch", "pytorch-lightning")}
    return ", ".join(" ".join(item) for item in versions.items())


def _targets(results: Sequence[Result], title: str) -> Iterator[str]:
    auto = Figures.of(results, "auto")
    rival = max(PUBLISHED, key=lambda name: Figures.of(results, name).share)
    rivals = Figures.of(results, rival).share
    rows = [
        ("share of the ceiling, `auto`", "at least 90 %", f"{auto.share:.1%}", auto.share >= 0.9),
        (
            "change of healthy scores, `auto`",
            "at most 0.5 % lost",
            f"{auto.change:+.2%}",
            auto.change >= -0.005,
        ),
        (
            f"best published clipper, `{rival}`",
            "not above `auto`",
            f"{rivals:.1%}",
            rivals <= auto.share,
        ),
    ]
    yield from (f"## {title}", "", "| figure | target | measured | |", "| --- | --- | --- | --- |")
    for name, target, measured, is_met in rows:
        yield f"| {name} | {target} | **{measured}** | {'met' if is_met else 'missed'} |"
    seeds = ", ".join(f"{share:.1%}" for share in shares_by_seed(results, "auto"))
    yield from ("", f"Share of the ceiling, `auto`, seed by seed: {seeds}.", "")


def _treatments(results: Sequence[Result], title: str) -> Iterator[str]:
    failing = sum(not result.is_healthy for result in results)
    healthy = len(results) - failing
    yield f"## Treatments, {title}: {failing} failing and {healthy} healthy trainings"
    yield ""
    yield "| treatment | share | rescued | spoilt | healthy, mean | healthy, worst |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: |"
    for treatment in TREATMENTS:
        of = Figures.of(results, treatment)
        rescued = f"{of.rescued} of {of.failing}" if treatment != NONE else ""
        spoilt = str(of.spoilt) if treatment != NONE else ""
        yield (
            f"| {_bold(treatment)} | {of.share:.1%} | {rescued} | {spoilt} "
            f"| {of.change:+.2%} | {of.worst:+.2%} |"
        )
    yield ""


def _cases(results: Sequence[Result], title: str) -> Iterator[str]:
    yield f"## Each training, {title}"
    yield ""
    yield "Mean held-out score over the seeds."
    yield ""
    names = [_bold(treatment) for treatment in TREATMENTS]
    yield f"| training | chance | {' | '.join(names)} | best by hand | with |"
    yield f"| --- | ---: |{' ---: |' * (len(names) + 1)} --- |"
    for result in results:
        scores = " | ".join(f"{fmean(result.scores[name]):.3f}" for name in TREATMENTS)
        name = f"{result.name} (healthy)" if result.is_healthy else result.name
        ceiling = "" if result.is_healthy else f"{result.ceiling:.3f}"
        yield f"| {name} | {result.chance:.3f} | {scores} | {ceiling} | {result.cure} |"
    yield ""


def _acts(results: Sequence[Result]) -> Iterator[str]:
    yield "## What `auto` did, first seed"
    yield ""
    yield "| training | acts |"
    yield "| --- | --- |"
    for result in results:
        acts = [act for act in result.acts if not act.startswith("clipping cost")]
        yield f"| {result.name} | {'; '.join(acts) or 'nothing'} |"


def _bold(treatment: str) -> str:
    return f"**{treatment}**" if treatment == "auto" else treatment
