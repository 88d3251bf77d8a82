"""Labelled trainings that look odd and are well, and some whose failure is hard to see."""

from benchmarks.detection.case import Case
from benchmarks.detection.tuning.odd import (
    between,
    codes,
    constants,
    critics,
    curricula,
    cut,
    decay,
    densities,
    domains,
    energies,
    memories,
    policies,
    q_learning,
    rows,
    small_parts,
    spheres,
    teachers,
    undone,
    waves,
)

__all__ = ["CASES"]

CASES: tuple[Case, ...] = (
    *between.CASES,
    *codes.CASES,
    *constants.CASES,
    *critics.CASES,
    *curricula.CASES,
    *cut.CASES,
    *decay.CASES,
    *densities.CASES,
    *domains.CASES,
    *energies.CASES,
    *memories.CASES,
    *policies.CASES,
    *q_learning.CASES,
    *rows.CASES,
    *small_parts.CASES,
    *spheres.CASES,
    *teachers.CASES,
    *undone.CASES,
    *waves.CASES,
)
