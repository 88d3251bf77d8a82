"""What thinning keeps where that is hardest: zeros, changes of layers, resumes, NaN."""

from __future__ import annotations

import numpy as np
import pytest

from lightning_gradguard.audit import Action
from lightning_gradguard.findings import Finding, Severity
from lightning_gradguard.history import load_run, shrinking, storage, thinning
from lightning_gradguard.history.storage import Entry, Storage
from tests.strategies import make_frame

STEPS, SPIKES = 4000, 20


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(storage, "most_steps", lambda *_: 400)


def written(folder, entries, others=lambda _first: (), batch=50):
    writer = Storage(folder / "gradguard" / "history.sqlite", about={})
    for first in range(0, len(entries), batch):
        writer.write([*entries[first : first + batch], *others(first)])
    writer.close("finished")


def steps_of(folder, optimizer=0):
    """Return the steps that are there."""
    with load_run(folder) as run:
        return set(run.steps(optimizer).tolist())


def noise(seed, layers=24):
    random = np.random.default_rng(seed)
    norms = np.exp(0.3 * random.normal(size=(STEPS, layers)))
    losses = 2.0 + 0.1 * random.normal(size=STEPS)
    spikes = 170 * np.arange(SPIKES) + random.integers(1, 100, SPIKES)
    return random, norms, losses, spikes


def entries_of(norms, losses):
    return [
        Entry(
            make_frame(s, row, loss=float(losses[s]), global_grad_norm=float(np.linalg.norm(row)))
        )
        for s, row in enumerate(norms)
    ]


@pytest.mark.parametrize("share", [0.02, 0.05])
def test_layers_that_are_zero_now_and_then_hide_no_spike(tmp_path, share):
    random, norms, losses, spikes = noise(0)
    norms[spikes] *= 1e3
    norms[random.random(norms.shape) < share] = 0.0
    written(tmp_path, entries_of(norms, losses))
    assert set(spikes.tolist()) <= steps_of(tmp_path)


def test_a_loss_that_is_mostly_zero_hides_no_spike_of_the_gradient(tmp_path):
    _, norms, losses, spikes = noise(1, layers=8)
    norms[spikes] *= 1e6
    losses[np.arange(STEPS) % 400 > 190] = 0.0
    written(tmp_path, entries_of(norms, losses))
    assert set(spikes.tolist()) <= steps_of(tmp_path)


@pytest.mark.parametrize("alternates", [False, True])
def test_a_change_of_layers_hides_no_spike(tmp_path, alternates):
    _, norms, losses, spikes = noise(2, layers=12)
    norms[:, 0] *= 1e4
    norms[spikes, 3] *= 1e3
    few = np.arange(STEPS) % 2 == 0 if alternates else np.arange(STEPS) < STEPS // 2
    rows = [row[:10] if few[s] else row for s, row in enumerate(norms)]
    written(tmp_path, entries_of(rows, losses))
    assert set(spikes.tolist()) <= steps_of(tmp_path)


def test_where_all_is_broken_another_layer_that_breaks_stays(tmp_path):
    _, norms, losses, spikes = noise(3, layers=6)
    entries = []
    for step, row in enumerate(norms):
        broken = np.zeros(6)
        broken[0] = 3.0
        broken[4] = 7.0 if step in spikes else 0.0
        fields = {"num_nonfinite": broken, "global_grad_norm": float("nan")}
        entries.append(Entry(make_frame(step, row, loss=float(losses[step]), **fields)))
    written(tmp_path, entries)
    assert set(spikes.tolist()) <= steps_of(tmp_path)


def test_it_does_not_matter_how_many_numbers_are_looked_at_at_once(monkeypatch):
    _, norms, losses, spikes = noise(5)
    norms[spikes, 3] *= 100.0
    arguments = np.linalg.norm(norms, axis=1), norms, losses, np.zeros(STEPS)
    expected = thinning.kept_steps(*arguments)
    monkeypatch.setattr(thinning, "_NUMBERS_AT_ONCE", 1)
    np.testing.assert_array_equal(thinning.kept_steps(*arguments), expected)


def test_spikes_stay_also_where_few_steps_are_looked_at_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(shrinking, "_NUMBERS_AT_ONCE", 1)
    _, norms, losses, spikes = noise(6)
    norms[spikes, 3] *= 1e3
    written(tmp_path, entries_of(norms, losses))
    assert set(spikes.tolist()) <= steps_of(tmp_path)


def test_after_a_resume_no_action_of_a_step_that_is_there_goes(tmp_path):
    def clips(why, batch=50):
        def of(first):
            return [Action(what="clip", step=s, why=why) for s in range(first, first + batch)]

        return of

    written(tmp_path, [Entry(make_frame(s)) for s in range(300)], clips("one"))
    writer = Storage(tmp_path / "gradguard" / "history.sqlite", about={})
    for first in range(100, 320, 20):
        again = [Entry(make_frame(s)) for s in range(first, first + 20)]
        writer.write([*again, *clips("two", 20)(first)])
    writer.close()
    with load_run(tmp_path) as run:
        assert {a.step for a in run.actions} == set(run.steps().tolist())
        assert {a.why for a in run.actions if a.step >= 100} == {"two"}


def test_the_first_step_stays(tmp_path):
    written(tmp_path, entries_of(*noise(4)[1:3]))
    assert 0 in steps_of(tmp_path)


def test_each_optimizer_is_thinned_by_itself(tmp_path):
    entries = [Entry(make_frame(s, optimizer_index=0)) for s in range(2000)]
    entries[::4] = [Entry(make_frame(s, optimizer_index=1)) for s in range(500)]
    acts = [Action(what="skip", step=400, optimizer_index=1)]
    written(tmp_path, entries, lambda first: acts if first == 0 else ())
    assert 200 < len(steps_of(tmp_path, 0)) <= 450
    assert 200 < len(steps_of(tmp_path, 1)) <= 450
    with load_run(tmp_path) as run:
        assert [a.step for a in run.actions] == [400]


def test_where_a_guard_acts_all_the_time_its_beginning_stays_and_no_more_of_it(tmp_path):
    acts = [*range(200, 260), *range(700, 760)]

    def others(first):
        return [Action(what="skip", step=s) for s in acts if first <= s < first + 50]

    written(tmp_path, [Entry(make_frame(s)) for s in range(3000)], others)
    kept = steps_of(tmp_path)
    assert {200, 700} <= kept
    assert len(kept & set(acts)) < 40


def test_large_findings_are_bounded_by_their_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(shrinking, "_MOST_BYTES", 100_000)
    monkeypatch.setattr(shrinking, "MOST_RECORDS", 1600)
    text = "m" * 2000

    def others(first):
        return [
            Finding(kind="spike", severity=Severity.INFO, step=s, message=text)
            for s in range(first, first + 50)
        ]

    written(tmp_path, [Entry(make_frame(s)) for s in range(300)], others)
    with load_run(tmp_path) as run:
        assert 20 < len(run.findings) < 160
        assert run.findings[0].step == 0
        assert run.findings[-1].step == 299


def test_many_attempts_keep_one_list_of_layers_and_one_bound(tmp_path, monkeypatch):
    monkeypatch.setattr(shrinking, "MOST_RECORDS", 100)
    for attempt in range(30):
        writer = Storage(tmp_path / "gradguard" / "history.sqlite", about={})
        writer.write([Entry(make_frame(attempt))])
        found = Finding(kind="spike", severity=Severity.INFO, step=attempt, message="m")
        writer.write([found] * 5)
        writer.close()
    with load_run(tmp_path) as run:
        assert len(run._look.layouts) == 1
        assert len(run.findings) <= 110


def test_what_a_write_that_failed_said_is_said_by_the_next(tmp_path):
    file = tmp_path / "gradguard" / "history.sqlite"
    writer = Storage(file, about={})
    taken = writer._write_parts
    writer._write_parts = lambda *_: 1 / 0
    with pytest.raises(ZeroDivisionError):
        writer.write([Entry(make_frame(5)), object.__new__(Finding)])
    writer._write_parts = taken
    writer.write([Entry(make_frame(5)), object.__new__(Finding)])
    assert writer.skipped == 1
    with load_run(tmp_path) as run:
        assert run.meta["attempts"][-1]["from_step"] == 5
    writer.close()
