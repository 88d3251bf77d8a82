"""Exploding over time: judged by the input's gradient per time step and the applied update."""

from __future__ import annotations

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from lightning_gradguard import GradientMonitor
from lightning_gradguard.detectors import Exploding
from tests.e2e.models import Classifier, random_data, recurrent, trainer
from tests.strategies import make_frame

GROWS_BACKWARD = np.logspace(3, 0, 12)


def judged(profile, update_ratio):
    frame = make_frame(update_ratio=update_ratio, time_profiles={"l1": profile})
    return Exploding(limit_decades=2.0, max_update_ratio=1.0).update(frame)


def test_growth_toward_the_first_time_steps_is_named_with_its_size():
    (finding,) = judged(GROWS_BACKWARD, update_ratio=0.2)
    # Quarters of three steps: medians at 3 - 3/11 and 3/11 decades.
    assert finding.value == pytest.approx(3.0 - 6.0 / 11.0)
    assert finding.layers == ("l1",)
    assert "first time steps is 10^2.5 times that at the last" in finding.message


@pytest.mark.parametrize(
    ("profile", "update_ratio"),
    [(GROWS_BACKWARD, 0.05), (GROWS_BACKWARD[::-1], 0.2), (np.ones(12), 0.2)],
    ids=["clipped to a small update", "vanishing instead", "flat"],
)
def test_no_harm_is_no_finding(profile, update_ratio):
    assert judged(profile, update_ratio) == []


def test_a_linear_recurrence_of_radius_two_is_found_at_its_first_step():
    pl.seed_everything(0, verbose=False)
    network = recurrent(nn.RNN)
    core = network[0] = nn.RNN(2, 8, nonlinearity="relu", batch_first=True)
    with torch.no_grad():
        core.weight_hh_l0.copy_(2.0 * torch.eye(8))
        core.weight_ih_l0.abs_()
        core.bias_ih_l0.abs_()
    monitor = GradientMonitor(sinks=[], detectors=[Exploding()], on_error="raise")
    data = random_data(16, 12, 2)
    trainer(monitor, max_steps=1).fit(Classifier(network, torch.optim.SGD, lr=1e-4), data)
    (finding,) = monitor.alarms
    assert finding.step == 0
    assert finding.layers == ("network.0",)
    # Each time step back doubles the gradient: nine steps lie between the quarters' middles.
    assert finding.value == pytest.approx(9 * np.log10(2.0), abs=0.7)
