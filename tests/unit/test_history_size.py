"""However long a run is, its history takes about as much room as the page says."""

from __future__ import annotations

import numpy as np
import pytest

from lightning_gradguard.frame import Frame
from lightning_gradguard.history import load_run, thinning
from lightning_gradguard.history.storage import Entry, Storage
from lightning_gradguard.history.tables import STATISTICS
from lightning_gradguard.history.thinning import most_steps

SLACK = 1.4
"""The file over its statistics: steps that went leave gaps in pages."""


def written(file, layers, steps, batch):
    """Write steps in which all numbers differ; return the most bytes that lay there."""
    names = tuple(f"encoder.layers.{i}.weight" for i in range(layers))
    numbers = np.random.default_rng(0).lognormal(size=(len(STATISTICS), layers))
    not_sampled = np.zeros(layers, dtype=bool)
    storage, most = Storage(file, about={}), 0
    for first in range(0, steps, batch):
        entries = []
        for step in range(first, min(first + batch, steps)):
            norm = 1.0 + step % 7
            vectors = dict(zip(STATISTICS, numbers * norm, strict=True))
            entries.append(Entry(Frame(step=step, layers=names, is_sampled=not_sampled,
                                       global_grad_norm=norm, **vectors)))  # fmt: skip
        storage.write(entries)
        most = max(most, file.stat().st_size)
    storage.close("finished")
    return max(most, file.stat().st_size)


def test_a_wide_run_takes_about_two_hundred_megabytes_with_the_defaults(tmp_path):
    file = tmp_path / "gradguard" / "history.sqlite"
    layers = 2000
    steps = most_steps(layers, len(STATISTICS))
    assert steps * layers * len(STATISTICS) * 4 == pytest.approx(200e6, rel=0.03)
    assert written(file, layers, 3 * steps // 2, batch=128) < SLACK * 200e6
    with load_run(file) as run:
        kept = run.steps()
    assert len(kept) <= steps + 128
    newest = np.arange(3 * steps // 2)[-steps // 2 :]
    np.testing.assert_array_equal(kept[-len(newest) :], newest)


def test_a_run_four_times_as_long_takes_no_more(tmp_path, monkeypatch):
    monkeypatch.setattr(thinning, "_BYTES", 8_000_000)
    monkeypatch.setattr(thinning, "_FEWEST", 10)
    layers = 400
    steps = most_steps(layers, len(STATISTICS))
    few = written(tmp_path / "few" / "history.sqlite", layers, 3 * steps, batch=16)
    many = written(tmp_path / "many" / "history.sqlite", layers, 12 * steps, batch=16)
    assert few < 1.6 * 8e6
    assert many < 1.1 * few


@pytest.mark.parametrize("layers", [1370, 2050])
def test_where_rows_fill_pages_badly_fewer_are_kept(tmp_path, monkeypatch, layers):
    monkeypatch.setattr(thinning, "_BYTES", 20_000_000)
    monkeypatch.setattr(thinning, "_FEWEST", 10)
    steps = most_steps(layers, len(STATISTICS))
    size = written(tmp_path / "gradguard" / "history.sqlite", layers, steps, batch=16)
    assert size < 1.1 * 20e6
