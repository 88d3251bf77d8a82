"""The gradient of a cell's state over a loop of the user's own is autograd's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from lightning_gradguard import Probe
from lightning_gradguard.timesteps import TimeSteps

KINDS = [nn.RNNCell, nn.GRUCell, nn.LSTMCell]
TIME, BATCH, WIDTH = 9, 3, 4


class Loop(nn.Module):
    """A cell in a loop, with an answer at the end."""

    def __init__(self, kind: type[nn.RNNCellBase], *, detach_at: int = -1) -> None:
        super().__init__()
        self.cell = kind(WIDTH, 5)
        self.detach_at = detach_at
        self.states: list[torch.Tensor] = []

    def forward(self, sequence: torch.Tensor) -> torch.Tensor:
        state, self.states = None, []
        for step, x in enumerate(sequence):
            if step == self.detach_at:
                state = detached(state)
            state = self.cell(x, state)
            self.states.append(state)
        return first_of(state)


def first_of(state):
    return state[0] if isinstance(state, tuple) else state


def detached(state):
    return tuple(part.detach() for part in state) if isinstance(state, tuple) else state.detach()


def parts_of(states) -> list[torch.Tensor]:
    return [part for s in states for part in (s if isinstance(s, tuple) else (s,))]


def expected(model: Loop, sequence: torch.Tensor) -> np.ndarray:
    """Ask autograd for the gradient of each state, a step at a time."""
    loss = model(sequence).square().sum()
    norms = []
    for state in model.states:
        grads = torch.autograd.grad(loss, parts_of([state]), retain_graph=True, allow_unused=True)
        squares = [g.square().sum().item() for g in grads if g is not None]
        norms.append(np.sqrt(sum(squares)))
    return np.array(norms)


@pytest.mark.parametrize("kind", KINDS)
def test_profile_equals_autograd_per_call(kind) -> None:
    model, sequence = Loop(kind).double(), torch.randn(TIME, BATCH, WIDTH, dtype=torch.float64)
    time_steps = TimeSteps(model)
    time_steps.arm()
    model(sequence).square().sum().backward()
    found = time_steps.take()["cell"].sqrt().numpy()
    np.testing.assert_allclose(found, expected(model, sequence), rtol=1e-12)


def test_of_two_sequences_in_a_batch_the_first_is_looked_at() -> None:
    model = Loop(nn.GRUCell).double()
    one, other = torch.randn(2, TIME, BATCH, WIDTH, dtype=torch.float64)
    time_steps = TimeSteps(model)
    time_steps.arm()
    (model(one).square().sum() + 100.0 * model(other).square().sum()).backward()
    found = time_steps.take()["cell"].sqrt().numpy()
    np.testing.assert_allclose(found, expected(model, one), rtol=1e-12)


def test_of_two_batches_that_are_accumulated_the_first_is_looked_at() -> None:
    model = Loop(nn.RNNCell).double()
    one, other = torch.randn(2, TIME, BATCH, WIDTH, dtype=torch.float64)
    time_steps = TimeSteps(model)
    time_steps.arm()
    model(one).square().sum().backward()
    model(other).square().sum().backward()
    found = time_steps.take()["cell"].sqrt().numpy()
    np.testing.assert_allclose(found, expected(model, one), rtol=1e-12)


def test_a_state_that_is_detached_ends_the_sequence() -> None:
    model = Loop(nn.LSTMCell, detach_at=8)
    time_steps = TimeSteps(model)
    time_steps.arm()
    model(torch.randn(TIME, BATCH, WIDTH)).sum().backward()
    assert time_steps.take() == {}  # no gradient came back to what was before


def test_steps_that_no_gradient_came_back_to_are_not_known() -> None:
    model = Loop(nn.RNNCell)
    time_steps = TimeSteps(model)
    time_steps.arm()
    model(torch.randn(TIME + 3, BATCH, WIDTH))
    model.states[TIME - 1].sum().backward()
    found = time_steps.take()["cell"]
    assert found.isnan().tolist() == [False] * TIME + [True] * 3


def test_few_time_steps_are_named_as_unchecked() -> None:
    model = Loop(nn.RNNCell)
    time_steps = TimeSteps(model)
    time_steps.arm()
    model(torch.randn(4, BATCH, WIDTH)).sum().backward()
    assert time_steps.take() == {}
    assert "fewer than 8" in time_steps.unchecked["cell"]


@pytest.mark.parametrize("mode", ["evaluation", "no grad", "disarmed"])
def test_nothing_is_profiled_outside_of_training(mode) -> None:
    model = Loop(nn.RNNCell).train(mode != "evaluation")
    time_steps = TimeSteps(model)
    time_steps.arm()
    if mode == "disarmed":
        time_steps.disarm()
    with torch.set_grad_enabled(mode != "no grad"):
        model(torch.randn(TIME, BATCH, WIDTH))
    assert time_steps.take() == {}


@pytest.mark.parametrize("kind", KINDS)
def test_watching_leaves_gradients_bit_identical_and_no_hook(kind) -> None:
    def gradients(*, watched: bool) -> list[torch.Tensor]:
        torch.manual_seed(0)
        model = Loop(kind)
        time_steps = TimeSteps(model)
        if watched:
            time_steps.arm()
        model(torch.randn(TIME, BATCH, WIDTH)).square().sum().backward()
        time_steps.take()
        assert not model.cell._forward_hooks
        return [p.grad for p in model.parameters()]

    for one, other in zip(gradients(watched=True), gradients(watched=False), strict=True):
        assert torch.equal(one, other)


def test_each_optimizer_takes_its_own_cells() -> None:
    model = nn.ModuleDict({"a": Loop(nn.RNNCell), "b": Loop(nn.RNNCell)})
    time_steps = TimeSteps(model)
    time_steps.arm()
    x = torch.randn(TIME, BATCH, WIDTH)
    (model["a"](x) + model["b"](x)).sum().backward()
    assert list(time_steps.take({"b.cell"})) == ["b.cell"]
    assert list(time_steps.take({"a.cell"})) == ["a.cell"]


def test_a_frame_has_the_profile_under_the_cells_name() -> None:
    model = Loop(nn.GRUCell)
    probe = Probe(model)
    probe.time_steps.arm()
    model(torch.randn(TIME, BATCH, WIDTH)).sum().backward()
    assert probe.read(step=0).time_profiles["cell"].shape == (TIME,)


class Handmade(nn.Module):
    """A recurrent layer that knows no cell of torch's."""

    def __init__(self) -> None:
        super().__init__()
        self.read, self.carry = nn.Linear(WIDTH, 5), nn.Linear(5, 5)
        self.answer = nn.Linear(5, 2)
        self.carried: list[torch.Tensor] = []

    def forward(self, sequence: torch.Tensor) -> torch.Tensor:
        state, self.carried = torch.zeros(BATCH, 5, dtype=sequence.dtype), []
        for x in sequence:
            carried = self.carry(state)
            self.carried.append(carried)
            state = torch.tanh(self.read(x) + carried)
        return self.answer(state)


def test_a_loop_of_the_users_own_layers_has_a_profile_from_the_second_step_on() -> None:
    model, sequence = Handmade().double(), torch.randn(TIME, BATCH, WIDTH, dtype=torch.float64)
    probe = Probe(model)
    model(sequence)
    assert probe.time_steps.layers == ()
    probe.end_first_step()
    assert probe.time_steps.layers == ("read", "carry")
    probe.time_steps.arm()
    model(sequence).square().sum().backward()
    found = probe.time_steps.take()["carry"].sqrt().numpy()
    loss = model(sequence).square().sum()
    grads = torch.autograd.grad(loss, model.carried)
    np.testing.assert_allclose(found, [g.norm().item() for g in grads], rtol=1e-12)


def test_a_layer_that_turns_out_not_to_be_in_a_loop_is_let_go() -> None:
    model = nn.Sequential(nn.Linear(3, 3))
    probe = Probe(model)
    for _ in range(9):  # as with nine accumulated batches
        model(torch.ones(2, 3))
    probe.end_first_step()
    probe.time_steps.arm()
    model(torch.ones(2, 3)).sum().backward()
    assert probe.time_steps.take() == {}
    assert (probe.time_steps.layers, probe.time_steps.unchecked) == ((), {})


@pytest.mark.parametrize("transform", [torch.func.grad, torch.func.jacrev])
def test_within_a_function_transform_nothing_is_watched(transform) -> None:
    """There, tensors take no hooks: a model that unrolls its own training must not notice."""
    model = nn.ModuleDict({"loop": Loop(nn.RNNCell), "layer": nn.GRU(WIDTH, 5)})
    sequence = torch.randn(TIME, BATCH, WIDTH)
    time_steps = TimeSteps(model)
    time_steps.arm()

    def loss(values):
        call = torch.func.functional_call
        ours = {name.removeprefix("loop."): v for name, v in values.items() if "loop" in name}
        theirs = {name.removeprefix("layer."): v for name, v in values.items() if "layer" in name}
        read, _ = call(model["layer"], theirs, (sequence,))
        return call(model["loop"], ours, (sequence,)).sum() + read.sum()

    transform(loss)({name: p.detach() for name, p in model.named_parameters()})
    assert time_steps.take() == {}
