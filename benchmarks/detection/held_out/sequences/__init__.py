"""Labelled trainings of sequences, sets, graphs, time series and decisions."""

from benchmarks.detection.case import Case
from benchmarks.detection.held_out.sequences import (
    alignments,
    bandits,
    chains,
    circles,
    counting,
    filters,
    forecasts,
    language,
    loops,
    recall,
    relations,
    worlds,
)

__all__ = ["CASES"]

CASES: tuple[Case, ...] = (
    *alignments.CASES,
    *bandits.CASES,
    *chains.CASES,
    *circles.CASES,
    *counting.CASES,
    *filters.CASES,
    *forecasts.CASES,
    *language.CASES,
    *loops.CASES,
    *recall.CASES,
    *relations.CASES,
    *worlds.CASES,
)
