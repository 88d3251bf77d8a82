"""What is drawn of a run loses nothing that is worth seeing."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest

from lightning_gradguard import schema
from lightning_gradguard.history import view


def run_of(values, steps=None, layers=None, nonfinite=None, counts=None, **scalars):
    """Give a run whose gradient norms are known, ``(steps, layers)``."""
    values = np.asarray(values, np.float32)
    steps = np.arange(len(values)) if steps is None else np.asarray(steps)
    stored = {"grad_norm": values}
    found = layers or tuple(f"layer{k}" for k in range(values.shape[1]))
    if nonfinite is not None:
        stored["num_nonfinite"] = np.asarray(nonfinite, np.float32)
    return SimpleNamespace(
        name="version_0",
        meta={"schema": "gradguard/1"},
        optimizers=(0,),
        statistics=tuple(stored),
        scalars=tuple(scalars),
        findings=(),
        action_bunches=list,
        time_profiles=lambda _i=0: {},
        layers=lambda _i=0: found,
        steps=lambda _i=0: steps.astype(np.int64),
        statistic=lambda name, _i=0: stored[name],
        layer=lambda name, _i=0: {key: stored[key][:, found.index(name)] for key in stored},
        scalar=lambda name, _i=0: np.array(scalars[name], np.float64),
        is_measured=lambda name, _i=0: np.array([x is not None for x in scalars[name]]),
        histograms=lambda _layer, _i=0: counts,
    )


def cells_of(run, **options):
    header, arrays = view.unpack(view.heatmap(run, "grad_norm", **options))
    return header, arrays["cells"].astype(np.float64)


def test_a_run_that_fits_is_drawn_number_by_number():
    values = [[1.0, 8.0], [2.0, 0.25]]
    header, cells = cells_of(run_of(values))
    np.testing.assert_array_equal(cells, np.log2(values).T)
    assert header["steps"] == [0, 1]
    assert header["last"] == 1


@pytest.mark.parametrize("spike", [1e6, 1e-6])
def test_one_step_far_from_the_others_is_seen_among_ten_thousand(spike):
    values = np.ones((10_000, 2))
    values[5_003, 1] = spike
    _, cells = cells_of(run_of(values), columns=100)
    assert cells.shape == (2, 100)
    assert cells[1, 50] == pytest.approx(np.log2(spike), rel=1e-3)
    assert np.count_nonzero(cells) == 1


def special_of(run, **options):
    return view.unpack(view.heatmap(run, "grad_norm", **options))[1]["special"]


def test_zero_nonfinite_and_unmeasured_are_told_apart_in_a_crowd():
    values = np.ones((1000, 3))
    values[501, 0] = 0.0
    values[502, 1] = np.inf
    values[500:510, 2] = np.nan
    values[600:610, 0] = 0.0
    values[610:620, 0] = np.inf
    values[620:630, 0] = [0.0, np.inf] * 5
    _, cells = cells_of(run_of(values), columns=100)
    special = special_of(run_of(values), columns=100)
    assert special[:, 50].tolist() == [1, 2, 0]
    assert np.count_nonzero(special) == 2
    assert cells[0, 60:63].tolist() == [-np.inf, np.inf, np.inf]
    assert np.isnan(cells[2, 50])
    assert np.count_nonzero(cells) == 4


@pytest.mark.parametrize("odd", [(0.0, 1), (np.inf, 2)])
def test_what_is_special_hides_no_spike_in_its_column(odd):
    values = np.ones((10_000, 1))
    values[5001, 0], values[5002, 0] = odd[0], 1e6
    _, cells = cells_of(run_of(values), columns=100)
    assert cells[0, 50] == pytest.approx(np.log2(1e6), rel=1e-3)
    assert special_of(run_of(values), columns=100)[0, 50] == odd[1]


def test_nothing_is_sent_of_what_is_special_where_nothing_is():
    assert special_of(run_of(np.ones((10, 2)))).size == 0


def test_a_norm_that_skips_what_is_not_finite_is_marked_all_the_same():
    nonfinite = np.zeros((4, 2))
    nonfinite[2, 1] = 3
    _, cells = cells_of(run_of(np.ones((4, 2)), nonfinite=nonfinite))
    assert cells[1, 2] == np.inf
    assert np.count_nonzero(cells) == 1


def test_relative_to_the_last_layer_divides_each_step_by_its_own():
    values = np.array([[1.0, 4.0], [8.0, 2.0], [0.0, 2.0], [3.0, 0.0]])
    _, cells = cells_of(run_of(values), relative="last")
    np.testing.assert_array_equal(cells[0], [-2.0, 2.0, -np.inf, 0.0])
    np.testing.assert_array_equal(cells[1], [0.0, 0.0, 0.0, -np.inf])


def test_columns_are_equally_wide_in_steps_even_where_history_was_thinned():
    steps = np.concatenate([np.arange(0, 500, 50), np.arange(500, 1000)])
    header, _ = cells_of(run_of(np.ones((len(steps), 1)), steps=steps), columns=100)
    assert header["steps"][:3] == [0, 50, 100]
    assert np.diff(header["steps"])[-10:].tolist() == [10] * 10


def test_zooming_shows_only_the_steps_asked_for():
    header, cells = cells_of(run_of(np.ones((100, 1))), first=20, last=29)
    assert header["steps"] == list(range(20, 30))
    assert cells.shape == (1, 10)


def test_medians_are_those_of_the_finite_values():
    values = np.array([[1.0], [4.0], [16.0], [0.0], [np.nan], [np.inf]])
    header, _ = cells_of(run_of(values))
    assert header["medians"] == [2.0]


@pytest.mark.parametrize("extreme", [0.0, 1e9, np.inf])
def test_lines_keep_the_extremes_of_each_column_at_their_steps(extreme):
    values = np.ones((5000, 1))
    values[1234, 0] = extreme
    header, arrays = view.unpack(view.lines(run_of(values), "layer0", columns=50))
    assert header["names"] == ["grad_norm"]
    assert len(arrays["x"]) <= 100
    np.testing.assert_array_equal(arrays["y"][0], values[arrays["x"].astype(int), 0])
    assert 1234 in arrays["x"]


def test_lines_of_a_few_steps_are_those_steps():
    run = run_of(np.arange(1000.0)[:, None], loss=np.arange(1000.0))
    for packed in (
        view.lines(run, "layer0", first=500, last=519),
        view.scalars(run, first=500, last=519),
    ):
        arrays = view.unpack(packed)[1]
        assert arrays["x"].tolist() == list(range(500, 520))
        assert arrays["y"][0].tolist() == list(range(500, 520))


def test_a_layer_that_is_not_finite_is_marked_in_its_lines_also_where_its_norm_is_finite():
    run = run_of(np.ones((4, 1)), nonfinite=[[0.0], [2.0], [np.nan], [0.0]])
    weights = np.array([1.0, np.nan, np.nan, 1.0], np.float32)
    counts = np.array([0.0, 2.0, np.nan, 0.0], np.float32)
    run.layer = lambda _name, _i=0: {
        "grad_norm": np.ones(4, np.float32), "param_norm": weights, "num_nonfinite": counts
    }  # fmt: skip
    _, arrays = view.unpack(view.lines(run, "layer0"))
    np.testing.assert_array_equal(arrays["y"][0], [1.0, np.inf, 1.0, 1.0])
    np.testing.assert_array_equal(arrays["y"][1], [1.0, np.inf, np.nan, 1.0])


def test_weights_that_are_nan_are_not_finite_in_the_picture():
    run = run_of([[1.0, np.nan], [np.nan, np.nan]], nonfinite=[[0.0, 0.0], [3.0, 0.0]])
    run.statistics = ("param_norm", "num_nonfinite")
    stored = {
        "param_norm": run.statistic("grad_norm"),
        "num_nonfinite": run.statistic("num_nonfinite"),
    }
    run.statistic = lambda name, _i=0: stored[name]
    cells = view.unpack(view.heatmap(run, "param_norm"))[1]["cells"]
    np.testing.assert_array_equal(cells, [[0.0, np.inf], [np.nan, np.nan]])


def test_scalars_share_one_axis_and_keep_gaps():
    run = run_of(np.ones((3, 1)), loss=[1.0, None, 2.0], learning_rate=[0.1, 0.1, 0.1])
    header, arrays = view.unpack(view.scalars(run))
    assert header["names"] == ["loss", "learning_rate"]
    np.testing.assert_array_equal(arrays["y"][0], [1.0, np.nan, 2.0])


def test_a_loss_that_is_nan_is_told_from_one_that_was_not_measured():
    run = run_of(np.ones((3, 1)), loss=[1.0, np.nan, None])
    _, arrays = view.unpack(view.scalars(run))
    np.testing.assert_array_equal(arrays["y"][0], [1.0, np.inf, np.nan])


def test_a_share_is_drawn_as_it_is_and_a_zero_in_it_is_nothing_special():
    run = run_of([[0.0, 0.5], [1.0, np.nan]])
    run.statistics = ("zero_fraction",)
    run.statistic = lambda _name, _i=0: np.array([[0.0, 0.5], [1.0, np.nan]], np.float32)
    header, arrays = view.unpack(view.heatmap(run, "zero_fraction", relative="last"))
    assert header["scale"] == "linear"
    np.testing.assert_array_equal(arrays["cells"], [[0.0, 1.0], [0.5, np.nan]])


def test_lines_of_a_column_are_the_extremes_of_all_that_is_drawn():
    chance = np.random.default_rng(0)
    values = chance.normal(size=(1000, 3)).astype(np.float32)
    values[chance.random((1000, 3)) < 0.2] = np.nan
    values[300:330] = np.nan
    run = run_of(values)
    run.layer = lambda _name, _i=0: {f"s{k}": values[:, k] for k in range(3)}
    _, arrays = view.unpack(view.lines(run, "layer0", columns=37))
    chosen = arrays["x"].astype(int)
    np.testing.assert_array_equal(arrays["y"], values[chosen].T)
    which = (np.arange(1000) / (1000 / 37)).astype(int)
    for column in range(37):
        there = np.intersect1d(np.flatnonzero(which == column), chosen)
        assert len(there)
        for row in values.T:
            part = row[which == column]
            if not np.isnan(part).all():
                assert {np.nanargmin(part), np.nanargmax(part)} <= set(
                    (there - np.flatnonzero(which == column)[0]).tolist()
                )


def test_a_histogram_shows_the_octaves_in_use_and_no_count_vanishes():
    counts = np.zeros((2, schema.HISTOGRAM_BINS), np.float32)
    first = schema.HISTOGRAM_FIRST
    counts[:, 0] = 1e9  # exact zeros are no octave
    counts[0, first + 40], counts[1, first + 42] = 1e6, 1e6
    counts[1, first + 44] = 1.0
    run = run_of(np.ones((2, 1)), counts=(np.array([0, 10]), counts))
    header, arrays = view.unpack(view.histogram(run, "layer0"))
    assert header["low"] == schema.HISTOGRAM_LOW + 40
    np.testing.assert_array_equal(arrays["cells"].T, [[255, 0, 0, 0, 0], [0, 0, 255, 0, 1]])


def test_an_empty_run_is_drawn_as_nothing():
    empty = run_of(np.ones((0, 2)), counts=(np.zeros(0, int), np.zeros((0, schema.HISTOGRAM_BINS))))
    header, cells = cells_of(empty)
    assert cells.shape == (2, 0)
    assert header["steps"] == []
    assert view.unpack(view.lines(empty, "layer0"))[1]["y"].shape == (1, 0)
    assert view.unpack(view.histogram(empty, "layer0"))[1]["cells"].size == 0
    assert view.overview(empty)["optimizers"][0]["range"] is None


def test_what_is_not_there_is_refused_by_name():
    with pytest.raises(ValueError, match="no statistic 'nonsense'; there are grad_norm"):
        view.heatmap(run_of(np.ones((1, 1))), "nonsense")


def test_an_overview_is_strict_json_whatever_the_names():
    name = "<img src=x onerror=alert(1)>\x1b[31m"
    run = run_of(np.ones((1, 1)), layers=(name,))
    run.meta["cost"] = float("nan")
    read = json.loads(json.dumps(view.overview(run), allow_nan=False))
    assert read["optimizers"][0]["layers"] == [name]
    assert read["meta"]["cost"] is None


def test_what_is_usual_for_a_layer_is_that_of_the_whole_run_also_in_a_zoom():
    run = run_of(2.0 ** np.arange(11).reshape(-1, 1))
    header, cells = cells_of(run, first=8, last=10)
    assert header["medians"] == [5.0]
    assert cells.tolist() == [[8.0, 9.0, 10.0]]
