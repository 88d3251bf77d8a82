"""Exploding over depth or time: gradients grow on their way to the input."""

from __future__ import annotations

import json

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from lightning_gradguard import GradientMonitor
from lightning_gradguard.detectors import Exploding, Inward
from lightning_gradguard.findings import Severity
from tests.e2e.models import Classifier, random_data, recurrent, trainer
from tests.strategies import make_frame

LAYERS = 8
EVEN = np.ones(LAYERS)
GROWING = np.array([1e6, 1e5, 1e4, 1.0, 1.0, 1.0, 1.0, 1.0])
GROWS_BACKWARD = np.logspace(3, 0, 12)


def inward(**changes):
    return Inward(**{"limit_decades": 2.0, "min_update_ratio": 0.1, **changes})


def judged(gradients, **fields):
    return inward().update(make_frame(0, gradients, **{"update_ratio": 0.5, **fields}))


def test_layers_whose_gradient_is_too_large_are_named() -> None:
    found = judged(GROWING)
    assert (found.kind, found.rule) == ("exploding", "over depth")
    assert found.layers == ("l0", "l1", "l2")
    # A quarter of eight layers is two, with 6 and 5 decades.
    assert [found.value, found.limit] == pytest.approx([5.5, 2.0])
    assert found.severity is Severity.ERROR
    assert "moves l0 by 0.5 times its size" in found.message


@pytest.mark.parametrize(
    ("gradients", "fields"),
    [
        (GROWING, {"update_ratio": 1e-6}),
        (GROWING, {"weights": GROWING}),
        (GROWING, {"update_ratio": np.nan}),
        (GROWING, {"bias_only": [0, 1, 2]}),
        (GROWING, {"roles": (*["norm"] * 3, *["weights"] * 5)}),
        (GROWING[::-1], {}),
        (EVEN, {}),
        (np.append(np.ones(7), 0.0), {}),
        (np.full(LAYERS, np.nan), {}),
    ],
    ids=[
        "small updates",
        "large weights",
        "update not seen",
        "biases",
        "norm layers",
        "vanishing instead",
        "even",
        "nothing near the loss",
        "unknown",
    ],
)
def test_what_only_looks_like_it_is_left_alone(gradients, fields) -> None:
    assert judged(gradients, **fields) is None


def test_a_branch_explodes_beside_one_that_learns() -> None:
    layers = (*(f"left.{i}" for i in range(4)), *(f"right.{i}" for i in range(4)))
    found = judged([1.0] * 4 + [1e5, 1e4, 1.0, 1.0], layers=layers)
    assert found.layers == ("right.0", "right.1")
    assert found.value == pytest.approx(5.0)


def over_time(profile, update_ratio):
    return judged(EVEN, update_ratio=update_ratio, time_profiles={"l1": profile})


def test_growth_toward_the_first_time_steps_is_named_with_its_size() -> None:
    found = over_time(GROWS_BACKWARD, update_ratio=0.2)
    # Quarters of three steps: medians at 3 - 3/11 and 3/11 decades.
    assert found.value == pytest.approx(3.0 - 6.0 / 11.0)
    assert (found.rule, found.layers) == ("over time", ("l1",))
    assert "grows 0.27 decades per time step on its way back, to 10^2.5 times" in found.message


@pytest.mark.parametrize(
    ("profile", "update_ratio"),
    [(GROWS_BACKWARD, 0.05), (GROWS_BACKWARD[::-1], 0.2), (np.ones(12), 0.2)],
    ids=["clipped to a small update", "vanishing instead", "flat"],
)
def test_over_time_no_harm_is_no_finding(profile, update_ratio) -> None:
    assert over_time(profile, update_ratio) is None


def test_the_gradient_of_outputs_is_told_also_after_a_resume() -> None:
    norms = {f"l{k}": norm for k, norm in enumerate(GROWING.tolist())}
    rule, resumed = inward(), inward()
    rule.update(make_frame(0, output_grad_norms=norms))
    resumed.load_state_dict(json.loads(json.dumps(rule.state_dict())))
    found = resumed.update(make_frame(1, GROWING, update_ratio=0.5))
    assert "what layers put out grows by 5.5 decades toward the input" in found.message


def test_a_linear_recurrence_of_radius_two_is_found_at_its_first_step() -> None:
    pl.seed_everything(0, verbose=False)
    network = recurrent(nn.RNN)
    core = network[0] = nn.RNN(2, 8, nonlinearity="relu", batch_first=True)
    with torch.no_grad():
        core.weight_hh_l0.copy_(2.0 * torch.eye(8))
        core.weight_ih_l0.abs_()
        core.bias_ih_l0.abs_()
    detectors = [Exploding(inward=inward())]
    monitor = GradientMonitor(sinks=[], detectors=detectors, on_error="raise")
    data = random_data(16, 12, 2)
    trainer(monitor, max_steps=1).fit(Classifier(network, torch.optim.SGD, lr=1e-4), data)
    (finding,) = monitor.alarms
    assert finding.step == 0
    assert finding.layers == ("network.0",)
    # Each time step back doubles the gradient: nine steps lie between the quarters' middles.
    assert finding.value == pytest.approx(9 * np.log10(2.0), abs=0.7)
