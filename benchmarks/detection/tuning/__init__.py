"""Labelled trainings that detectors may be tuned on."""

from benchmarks.detection.case import Case
from benchmarks.detection.tuning import (
    cnn,
    experts,
    generative,
    mlp,
    mlp_scales,
    mlp_stuck,
    mlp_unstable,
    mlp_vanishing,
    odd,
    once_held_out,
    sequences,
)

__all__ = ["CASES"]

CASES: tuple[Case, ...] = (
    mlp.CASES
    + mlp_scales.CASES
    + mlp_vanishing.CASES
    + mlp_unstable.CASES
    + mlp_stuck.CASES
    + cnn.CASES
    + sequences.CASES
    + generative.CASES
    + experts.CASES
    + odd.CASES
    + once_held_out.CASES
)
