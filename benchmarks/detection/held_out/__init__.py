"""Labelled trainings that no detector was tuned on: other architectures, not only other seeds."""

from benchmarks.detection.case import Case
from benchmarks.detection.held_out import fields, sequences

__all__ = ["CASES"]

CASES: tuple[Case, ...] = fields.CASES + sequences.CASES
