"""An optimizer whose parameters are not those that the model uses."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from lightning_gradguard import Probe
from lightning_gradguard.assemble import StepContext
from lightning_gradguard.detectors import NotLearning, Stale
from tests.strategies import held, make_frame, stream

NOTHING = [math.nan] * 4


def nothing(step, **changes):
    return make_frame(step, NOTHING, loss=2.0, **changes)


def test_an_optimizer_that_never_had_a_gradient_is_named_with_its_layers() -> None:
    found = held(Stale(), stream(30, nothing))
    assert [f.step for f in found] == list(range(19, 30))
    assert found[0].layers == ("l0", "l1", "l2", "l3")
    assert "no parameter of optimizer 0" in found[0].message


def test_one_gradient_is_enough() -> None:
    frames = stream(60, lambda s: make_frame(s, [0.0, 1.0, 1.0, 1.0]) if s == 3 else nothing(s))
    assert held(Stale(), frames) == []


def test_it_is_said_by_the_detector_whatever_the_loss_does() -> None:
    (finding,) = NotLearning().update(nothing(0)) or [None]
    assert finding is None
    detector = NotLearning()
    said = [f for s in range(40) for f in detector.update(nothing(s, learning_rates=(1e-3,)))]
    assert {f.rule for f in said} == {"stale"}


class TwoNets(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.used = nn.Linear(2, 2)
        self.__dict__["hidden"] = nn.Linear(2, 2)  # not registered, as in a plain list


def layers_of(model: TwoNets, *, hidden_from: int) -> list[tuple[str, ...]]:
    """Train with an optimizer that also has the parameters of a module that is not registered."""
    probe, parameters = Probe(model), [*model.used.parameters(), *model.hidden.parameters()]
    for step in range(4):
        for parameter in parameters:
            parameter.grad = None
        out = model.used(torch.ones(1, 2))
        (model.hidden(out) if step >= hidden_from else out).sum().backward()
        probe.before_update(parameters, StepContext(step=step))
        probe.after_update(0)
    return [frame.layers for frame in probe.collect()]


@pytest.mark.parametrize("hidden_from", [0, 2, 9])
def test_parameters_that_the_model_lacks_have_a_row_until_they_get_a_gradient(hidden_from) -> None:
    layers = layers_of(TwoNets(), hidden_from=hidden_from)
    with_row = ("used", "(not in the model)")
    assert layers == [with_row if step < hidden_from else ("used",) for step in range(4)]


def test_strangers_without_gradient_are_named_though_the_rest_learns() -> None:
    roles = ("weights", "weights", "weights", "foreign")
    gradients = [1.0, 1.0, 1.0, math.nan]
    found = held(Stale(), stream(30, lambda s: make_frame(s, gradients, roles=roles)))
    assert {f.layers for f in found} == {("l3",)}
    assert "that the model does not have" in found[0].message
