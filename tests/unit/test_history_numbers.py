"""Numbers that are read or drawn are those of their step, their layer and their optimizer."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_gradguard.cli.runs import summed_up
from lightning_gradguard.history import load_run, view
from lightning_gradguard.history.packing import as_float32
from lightning_gradguard.history.storage import Entry, Storage
from lightning_gradguard.report.html import render_report
from lightning_gradguard.schema import HISTOGRAM_BINS, HISTOGRAM_FIRST, HISTOGRAM_LOW
from tests.strategies import make_frame

RATIOS = {
    "update_ratio": ("update_norm", "param_norm"),
    "grad_ratio": ("grad_norm", "param_norm"),
    "weight_update_ratio": ("weight_update_norm", "weight_param_norm"),
    "weight_grad_ratio": ("weight_grad_norm", "weight_param_norm"),
}


def stored(folder, *records):
    """Write some entries, and open the run."""
    storage = Storage(folder / "gradguard" / "history.sqlite", about={})
    storage.write(list(records))
    storage.close("finished")
    return load_run(folder)


def drawn(data):
    """Return steps and, by name, lines."""
    header, arrays = view.unpack(data)
    return arrays["x"], dict(zip(header["names"], arrays["y"], strict=True))


@pytest.mark.parametrize("name", RATIOS)
def test_a_ratio_is_what_numpy_says_of_what_was_measured(name, tmp_path):
    parts = {part for pair in RATIOS.values() for part in pair}
    chance = np.random.default_rng(0)
    numbers = {part: chance.lognormal(sigma=8.0, size=(20, 6)) for part in sorted(parts)}
    for part in parts:
        numbers[part][3, 1], numbers[part][5, 2] = np.nan, np.inf
    for part in ("param_norm", "weight_param_norm"):
        numbers[part][7, 3] = 0.0
    above, below = (as_float32(numbers[part]) for part in RATIOS[name])
    frames = (
        make_frame(step, [1.0] * 6, **{part: numbers[part][step] for part in parts})
        for step in range(20)
    )
    with stored(tmp_path, *map(Entry, frames)) as run:
        found = run.statistic(name)
        with np.errstate(all="ignore"):
            expected = above / np.where(below == 0.0, np.float32("nan"), below)
        np.testing.assert_array_equal(found, expected)
        assert np.isnan(found[7, 3])  # of no weight there is no share
        for k, layer in enumerate(run.layers()):
            np.testing.assert_array_equal(run.layer(layer)[name], expected[:, k])


def test_ratios_of_weights_are_told_from_those_of_all_parameters(tmp_path):
    one = {"update_norm": 6.0, "param_norm": 2.0, "grad_norm": 8.0}
    of_weights = {"update_norm": 1.0, "param_norm": 4.0, "grad_norm": 2.0}
    numbers = {**one, **{f"weight_{part}": value for part, value in of_weights.items()}}
    frame = make_frame(0, [1.0], **{part: np.array([v]) for part, v in numbers.items()})
    with stored(tmp_path, Entry(frame)) as run:
        found = {name: float(run.statistic(name)[0, 0]) for name in RATIOS}
    assert found == {
        "update_ratio": 3.0,
        "grad_ratio": 4.0,
        "weight_update_ratio": 0.25,
        "weight_grad_ratio": 0.5,
    }


@pytest.mark.parametrize("order", [("a", "b", "c"), ("c", "a", "b")])
def test_histograms_and_lines_belong_to_their_layer_wherever_it_stands(order, tmp_path):
    own = {"a": 30, "b": 40, "c": 50}

    def entry(step, layers, optimizer_index=0):
        counts = np.zeros((len(layers), HISTOGRAM_BINS))
        for row, layer in enumerate(layers):
            counts[row, HISTOGRAM_FIRST + own[layer] + optimizer_index] = 8.0
        norms = [float(own[layer] + optimizer_index) for layer in layers]
        return Entry(make_frame(step, norms, layers=layers, log2_histogram=counts,
                                optimizer_index=optimizer_index))  # fmt: skip

    entries = [entry(0, order), entry(0, order[::-1], 1), entry(1, order[1:]), entry(1, order, 1)]
    with stored(tmp_path, *entries) as run:
        for index in run.optimizers:
            for layer, octave in own.items():
                header, arrays = view.unpack(view.histogram(run, layer, index))
                assert header["low"] == HISTOGRAM_LOW + octave + index
                was_there = [0] if (index, layer) == (0, order[0]) else [0, 1]
                assert header["steps"] == was_there
                assert arrays["cells"].tolist() == [[255] * len(was_there)]
                x, lines = drawn(view.lines(run, layer, index))
                known = lines["grad_norm"][~np.isnan(lines["grad_norm"])]
                assert known.tolist() == [octave + index] * len(was_there)
                assert x.tolist() == [0, 1]


@settings(max_examples=15)
@given(st.lists(st.integers(0, 2**53), min_size=1, max_size=30, unique=True))
def test_steps_are_drawn_exactly_as_far_as_a_run_counts(tmp_path_factory, steps):
    folder = tmp_path_factory.mktemp("run")
    with stored(folder, *(Entry(make_frame(step)) for step in sorted(steps))) as run:
        for data in (view.scalars(run, columns=4096), view.lines(run, "l0", columns=4096)):
            x, _ = drawn(data)
            assert set(x.astype(np.int64).tolist()) <= set(steps)
            assert {x[0], x[-1]} == {float(min(steps)), float(max(steps))}


NUMBERS = st.floats(min_value=2.0**-126, max_value=2.0**127)


@settings(max_examples=15)
@given(st.lists(NUMBERS, min_size=1, max_size=20))
def test_what_is_drawn_is_within_a_ten_millionth_of_what_was_measured(tmp_path_factory, numbers):
    """Nothing drawn needs more: a chart is some hundred pixels high and tells four digits."""
    folder = tmp_path_factory.mktemp("run")
    entries = [
        Entry(make_frame(step, [number], loss=number, learning_rates=(number,)))
        for step, number in enumerate(numbers)
    ]
    with stored(folder, *entries) as run:
        assert run.scalar("loss").tolist() == numbers  # read, it is as it was
        _, scalars = drawn(view.scalars(run))
        _, lines = drawn(view.lines(run, "l0"))
        for line in (scalars["loss"], scalars["learning_rate"], lines["grad_norm"]):
            assert line.dtype == np.float32
            np.testing.assert_allclose(line, numbers, rtol=2.0**-24)


@pytest.mark.parametrize("loss", [1e300, 1e-60, -1e300])
def test_a_loss_beyond_what_is_drawn_is_neither_zero_nor_lost(loss, tmp_path):
    with stored(tmp_path, Entry(make_frame(0, loss=loss))) as run:
        (found,) = drawn(view.scalars(run))[1]["loss"]
    assert np.isfinite(found)
    assert np.sign(found) == np.sign(loss)


def test_what_watching_took_is_the_latest_that_was_known_for_summary_and_report(tmp_path):
    known = [0.5, 0.125, None]
    entries = [
        Entry(make_frame(step), {} if taken is None else {"overhead_ms": taken})
        for step, taken in enumerate(known)
    ]
    with stored(tmp_path, *entries) as run:
        assert summed_up(run).overhead_ms == 0.125
        assert "watching took 0.125 ms per step" in render_report([run])
