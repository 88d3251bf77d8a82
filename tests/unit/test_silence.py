"""For how many samples each unit has had no gradient, held to counting one by one."""

from __future__ import annotations

import json

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lightning_gradguard.detectors.silence import Silence

SIZES = {"a": 3, "b": 1, "c": 5}


@st.composite
def samples(draw):
    """Draw masks of some of the layers, sample by sample."""
    present = st.lists(st.sampled_from(sorted(SIZES)), min_size=1, max_size=3, unique=True)
    bits = st.lists(st.booleans(), min_size=5, max_size=5)
    return [
        {layer: np.array(draw(bits)[: SIZES[layer]]) for layer in draw(present)}
        for _ in range(draw(st.integers(1, 8)))
    ]


def counted(drawn):
    counts = {}
    for masks in drawn:
        for layer, mask in masks.items():
            past = counts.get(layer, [0] * len(mask))
            counts[layer] = [n + 1 if bit else 0 for n, bit in zip(past, mask, strict=True)]
    return counts


def after(drawn, silence=None):
    silence = silence or Silence()
    for masks in drawn:
        silence.update(masks)
    return silence


@given(samples())
def test_counts_are_those_of_counting_one_by_one(drawn) -> None:
    silence, counts = after(drawn), counted(drawn)
    assert {layer: silence.of(layer).tolist() for layer in counts} == counts
    for layers in (sorted(counts), sorted(counts, reverse=True), sorted(counts)[:1]):
        assert silence.sizes(layers).tolist() == [SIZES[layer] for layer in layers]
        for least in (1, 2, 4):
            expected = [sum(n >= least for n in counts[layer]) for layer in layers]
            assert silence.longer_than(least, layers).tolist() == expected


@given(samples(), st.integers(0, 8))
def test_stopping_anywhere_changes_nothing(drawn, stop) -> None:
    second = Silence()
    second.load_state_dict(json.loads(json.dumps(after(drawn[:stop]).state_dict())))
    after(drawn[stop:], second)
    assert second.state_dict() == after(drawn).state_dict()


def test_a_layer_of_another_size_begins_anew() -> None:
    silence = after([{"a": np.ones(3, dtype=bool)}, {"a": np.ones(4, dtype=bool)}])
    assert silence.of("a").tolist() == [1] * 4
    assert silence.longer_than(1, ["a"]).tolist() == [4]
