"""Placeholder."""

from benchmarks.detection.case import Case

__all__ = ["CASES"]

CASES: tuple[Case, ...] = ()
