"""Weights that shrink to nothing while nothing is learned."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lightning_gradguard.detectors import NotLearning, Withering
from tests.strategies import make_frame, said_by, stream, through_json


def shrinking(step, *, share=0.05, loss=2.0, of=(1.0, 1.0, 1.0, 1.0), **changes):
    weights = np.where(of, np.array(of) * (1.0 - share) ** step, 1.0)
    return make_frame(step, weights=weights, update_ratio=share, loss=loss, **changes)


def rules(frames) -> set[str]:
    return {f.rule for f in said_by(NotLearning(), frames)}


def test_weights_that_shrink_tenfold_for_nothing_wither() -> None:
    found = said_by(NotLearning(), stream(100, shrinking))
    assert {f.rule for f in found} == {"withering"}
    assert found[0].step == math.ceil(math.log(0.1) / math.log(0.95))  # 45: 0.95^45 < 0.1
    assert "weight decay" in found[0].advice


def test_embeddings_count_though_depth_is_not_judged_by_them() -> None:
    assert rules(stream(100, lambda s: shrinking(s, roles=("embedding",) * 4))) == {"withering"}


@pytest.mark.parametrize(
    "frame_at",
    [
        lambda s: shrinking(s, loss=2.0 * 0.99**s),
        lambda s: shrinking(s, share=0.01),
        lambda s: shrinking(s, of=(1.0, 0.0, 0.0, 0.0)),
        lambda s: shrinking(s, bias_only=range(4)),
        lambda s: shrinking(s, loss=None),
        lambda s: make_frame(s, layers=[f"t{s // 10}.{i}" for i in range(4)], weights=0.95**s),
    ],
    ids=["it learns", "little", "one layer", "no matrix", "no loss", "other layers each time"],
)
def test_what_does_not_wither_is_left_alone(frame_at) -> None:
    assert "withering" not in rules(stream(100, frame_at))


def test_weights_that_began_at_zero_are_measured_from_where_they_got() -> None:
    grown = stream(100, lambda s: make_frame(s, weights=min(s, 20) / 20.0, loss=2.0))
    assert "withering" not in rules(grown)


@pytest.mark.parametrize("times", [0.0, -1.0, math.nan])
def test_a_factor_that_is_not_positive_is_refused(times) -> None:
    with pytest.raises(ValueError, match="`times` must be positive"):
        Withering(times=times)


@pytest.mark.parametrize("stop", [1, 44, 60])
def test_stopping_in_between_changes_nothing(stop) -> None:
    frames = stream(100, shrinking)
    first = NotLearning()
    before = said_by(first, frames[:stop])
    after = said_by(through_json(first, NotLearning()), frames[stop:])
    assert [*before, *after] == said_by(NotLearning(), frames)
