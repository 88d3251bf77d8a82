"""Gradients over the time steps of recurrent layers, read back and drawn."""

from __future__ import annotations

import numpy as np
import pytest

from lightning_gradguard.history import load_run, view
from lightning_gradguard.history.storage import Entry, Storage
from tests.strategies import make_frame


@pytest.fixture
def run(tmp_path):
    """Return a run of thirty steps, with inputs' gradients at every tenth and states' at two."""
    writer = Storage(tmp_path / "gradguard" / "history.sqlite", about={})
    for step in range(30):
        more = {}
        if step % 10 == 0:
            length = 5 if step == 20 else 12
            more["time_profiles"] = {"l1": 2.0 ** np.arange(length) * (step + 1.0)}
        if step in {0, 10}:
            backwards = [[11.0, 7.0, 3.0], [8.0, 0.0, 2.0], [np.nan] * 3]
            forwards = [[3.0, 7.0, 11.0], [1.0, 2.0, 4.0], [0.5, 1.0, 4.0]]
            more["hidden_profiles"] = {
                "l1/l0": np.array(forwards),
                "l1/l0_reverse": np.array(backwards),
            }
        if step % 5 == 0:
            more["silent_units"] = {"l0": np.array([True])}
        writer.write([Entry(make_frame(step, **more))])
    writer.close()
    with load_run(tmp_path) as run:
        yield run


def test_what_was_kept_comes_back_in_the_order_of_time(run):
    found = {profile.what: profile for profile in run.time_profiles()["l1"]}
    assert list(run.time_profiles()) == ["l1"]
    assert list(found) == ["input", "state l0", "state l0, late loss", "state l0_reverse"]
    assert found["input"].steps.tolist() == [0, 10]  # the third is of another length
    np.testing.assert_array_equal(
        found["input"].norms, [2.0 ** np.arange(12), 11 * 2.0 ** np.arange(12)]
    )
    assert found["state l0_reverse"].times.tolist() == [3.0, 7.0, 11.0]
    assert found["state l0_reverse"].norms.tolist() == [[2.0, 0.0, 8.0]] * 2


def test_it_is_drawn_in_octaves_with_time_downwards(run):
    header, arrays = view.unpack(view.over_time(run, "l1"))
    assert header["profiles"][0]["what"] == "input"
    assert header["profiles"][0]["steps"] == [0, 10]
    np.testing.assert_allclose(arrays["cells0"][:, 0], np.arange(12))
    assert arrays["cells3"].tolist() == [[1.0, 1.0], [-np.inf, -np.inf], [3.0, 3.0]]


def test_a_layer_that_is_not_recurrent_has_none(run):
    assert view.unpack(view.over_time(run, "l0")) == ({"layer": "l0", "profiles": []}, {})
