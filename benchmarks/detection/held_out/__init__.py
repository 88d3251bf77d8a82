"""Labelled trainings that no detector was tuned on: other architectures, not only other seeds."""

from benchmarks.detection.case import Case
from benchmarks.detection.held_out import (
    adversaries,
    attention,
    autoencoders,
    convolutions,
    depth,
    embeddings,
    graphs,
    images,
    mixers,
    norms,
    physics,
    recurrent,
    siamese,
    streams,
    tasks,
    temporal,
)

__all__ = ["CASES"]

CASES: tuple[Case, ...] = (
    *adversaries.CASES,
    *attention.CASES,
    *autoencoders.CASES,
    *convolutions.CASES,
    *depth.CASES,
    *embeddings.CASES,
    *graphs.CASES,
    *images.CASES,
    *mixers.CASES,
    *norms.CASES,
    *physics.CASES,
    *recurrent.CASES,
    *siamese.CASES,
    *streams.CASES,
    *tasks.CASES,
    *temporal.CASES,
)
