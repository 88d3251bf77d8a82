"""The overhead benchmark: its arithmetic by hand, and a run of seconds with plausible figures."""

from __future__ import annotations

import pytest

from benchmarks import overhead
from benchmarks.shares import WARM_UP, Recurring, per_step

ORDINARY = 1.0


@pytest.fixture(scope="module")
def result():
    options = overhead.parse(["--quick", "--models", "many", "--lanes", "monitor"])
    (result,) = overhead.measure(options).subjects
    return result


def test_a_quick_run_gives_plausible_shares(result):
    twin, monitor = result.lanes[1:]
    assert (result.tensors, twin.own.middle) == (442, 0.0)
    assert 0.0 < result.base_ms.low <= result.base_ms.middle <= result.base_ms.high
    assert 0.0 < monitor.own.low <= monitor.own.middle <= monitor.own.high
    # Far from what it should be, so that a busy machine does not fail it.
    assert monitor.own_per_step < 5.0
    assert 0.0 < result.statistics.ratio.middle < 100.0


def test_a_step_of_the_monitor_asks_for_one_copy(result):
    # `.cpu()` and the view of its result as an array.
    assert result.lanes[-1].waits == 2.0


def test_the_monitor_keeps_tensors_or_arrays_between_gradients_and_update(result):
    assert [kept.step for kept in result.kept] == [10, 12]
    assert all(kept.within > 0 and kept.objects > 0 for kept in result.kept)


def test_a_quick_run_without_output_writes_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr(overhead, "measure", lambda _: overhead.Results())
    monkeypatch.setattr(overhead, "RESULTS", tmp_path / "overhead.md")
    assert overhead.main(["--quick", "--lanes", "monitor"]) == 0
    assert list(tmp_path.iterdir()) == []
    page = tmp_path / "page.md"
    assert overhead.main(["--quick", "--lanes", "monitor", "--output", str(page)]) == 0
    assert "# Overhead" in page.read_text()


def test_rare_steps_count_as_often_as_in_a_real_run():
    # Every tenth step costs 2 more; the one after a written step, every 7 here, 5 more.
    costs = [ORDINARY + 2.0 * (step % 10 == 0) + 5.0 * (step % 7 == 0) for step in range(100)]
    kinds = [Recurring(7, 6, 50), Recurring(10, 0, 10)]
    assert per_step(costs, kinds) == pytest.approx(ORDINARY + 2.0 / 10 + 5.0 / 50)


def test_without_rare_steps_the_cost_is_the_median_after_the_warm_up():
    assert per_step([100.0] * WARM_UP + [1.0, 2.0, 9.0], []) == 2.0


def test_a_lane_that_needs_a_missing_package_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setattr(overhead, "find_spec", lambda _: None)
    with pytest.raises(SystemExit):
        overhead.parse(["--lanes", "wandb_all"])
    assert "wandb missing: install the extra `bench`" in capsys.readouterr().err
