"""The reference models: every failing twin is named, every cured twin is left in peace."""

from __future__ import annotations

import pytest

from examples import demo

FIRST_LAYERS = ("network.stem.0", "network.1", "core")


@pytest.fixture(scope="module", params=[0, 1, 2], ids="seed {}".format)
def outcomes(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("reference")
    trained = demo.train_all(demo.RUNS, request.param, folder)
    return {outcome.run: outcome for outcome in trained}


@pytest.mark.slow
def test_every_reference_run_gets_the_verdict_it_deserves(outcomes):
    wrong = {
        name: f"expected {outcome.expected}, score {outcome.score:.3f} of {outcome.target}\n"
        f"{outcome.report}"
        for name, outcome in outcomes.items()
        if not outcome.is_as_expected
    }
    assert not wrong, "\n\n".join(wrong.values())
    assert len(outcomes) == len(demo.RUNS)


@pytest.mark.slow
def test_what_vanishes_or_explodes_on_its_way_to_the_input_is_found_at_the_input(outcomes):
    towards_the_input = [
        outcome.finding
        for outcome in outcomes.values()
        if outcome.finding is not None
        and (outcome.finding.kind == "vanishing" or outcome.run in {"plain56", "tanh20-large"})
    ]
    assert len(towards_the_input) == 10
    for finding in towards_the_input:
        assert finding.layers[0] in FIRST_LAYERS


@pytest.mark.slow
def test_every_failing_twin_gets_its_kind_at_an_early_layer(outcomes):
    failing = [outcome for outcome in outcomes.values() if not outcome.expects_health]
    assert len(failing) == 13
    for outcome in failing:
        places = {alarm.layers[0] for alarm in outcome.alarms if alarm.kind in outcome.expected}
        # Too high a rate breaks the last layer first, and its NaN then reaches the first one.
        assert places & set(FIRST_LAYERS), outcome.report


@pytest.mark.slow
def test_what_vanishes_over_time_is_said_of_the_first_time_steps(outcomes):
    finding = outcomes["adding-rnn"].finding
    assert finding.kind == "vanishing"
    assert "decades per time step: steps older than" in finding.message
