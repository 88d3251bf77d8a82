"""Trainings of pictures, tables, points, functions and physics."""

from benchmarks.detection.case import Case
from benchmarks.detection.held_out.fields import (
    adapters,
    codes,
    events,
    fixed_points,
    flows,
    functions,
    implicit,
    interactions,
    meta,
    physics,
    pictures,
    pieces,
    points,
    tables,
    teachers,
    views,
)

__all__ = ["CASES"]

CASES: tuple[Case, ...] = (
    *adapters.CASES,
    *codes.CASES,
    *events.CASES,
    *fixed_points.CASES,
    *flows.CASES,
    *functions.CASES,
    *implicit.CASES,
    *interactions.CASES,
    *meta.CASES,
    *physics.CASES,
    *pictures.CASES,
    *pieces.CASES,
    *points.CASES,
    *tables.CASES,
    *teachers.CASES,
    *views.CASES,
)
