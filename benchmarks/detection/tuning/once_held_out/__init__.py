"""Labelled trainings that were held out until they had been looked at; they tune since."""

from benchmarks.detection.case import Case
from benchmarks.detection.tuning.once_held_out import (
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
