"""The gradient of a recurrent layer's input over time is autograd's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from lightning_gradguard.timesteps import TimeSteps
from tests import oracles

KINDS = [nn.RNN, nn.GRU, nn.LSTM]
TIME, BATCH, WIDTH = 9, 3, 4


class Reader(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(WIDTH, WIDTH)
        self.first = nn.GRU(WIDTH, 5)
        self.second = nn.LSTM(5, 6)

    def forward(self, x):
        return self.second(self.first(self.embed(x))[0])[0][-1]


def hooks_of(model: nn.Module) -> int:
    return sum(len(module._forward_pre_hooks) for module in model.modules())


def profile(layer: nn.RNNBase, sequence: torch.Tensor) -> np.ndarray:
    time_steps = TimeSteps(layer)
    time_steps.arm()
    oracles.last_output(layer, layer(sequence)[0]).square().sum().backward()
    return time_steps.take()["(root)"].sqrt().numpy()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", ["time first", "batch first", "unbatched", "unbatched, bf flag"])
def test_profile_equals_autograd_per_time_step(kind, case) -> None:
    batch_first = case in {"batch first", "unbatched, bf flag"}
    layer = kind(WIDTH, 5, num_layers=2, batch_first=batch_first).double()
    shape = {"time first": (TIME, BATCH, WIDTH), "batch first": (BATCH, TIME, WIDTH)}
    sequence = torch.randn(shape.get(case, (TIME, WIDTH)), dtype=torch.float64)
    gradient = oracles.input_gradient(layer, sequence).numpy()
    if case == "batch first":
        gradient = gradient.swapaxes(0, 1)
    expected = [np.linalg.norm(gradient[t]) for t in range(TIME)]
    np.testing.assert_allclose(profile(layer, sequence), expected, rtol=1e-12)


def test_early_steps_survive_where_their_squares_would_vanish_in_float32() -> None:
    layer = nn.RNN(1, 1, bias=False)
    with torch.no_grad():
        layer.weight_ih_l0.fill_(1.0)
        layer.weight_hh_l0.fill_(1e-4)
    found = profile(layer, torch.full((8, 1, 1), 1e-3))
    # dL/dx_t = 2 h (1e-4)^(7 - t), and h is about x. Squared, the first is 4e-62: 0 in float32.
    expected = [2e-3 * 1e-4 ** (7 - t) for t in range(8)]
    np.testing.assert_allclose(found, expected, rtol=1e-3)


@pytest.mark.parametrize("layer_has_gradient_input", [False, True])
def test_watching_leaves_batch_outputs_and_gradients_bit_identical(
    layer_has_gradient_input,
) -> None:
    model = Reader() if layer_has_gradient_input else nn.GRU(WIDTH, 5)
    batch = torch.randn(TIME, BATCH, WIDTH)

    def trained() -> list[torch.Tensor]:
        model.zero_grad()
        output = model(batch)
        output = output if isinstance(output, torch.Tensor) else output[0]
        output.square().sum().backward()
        gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
        return [output.detach(), *gradients]

    plain = trained()
    time_steps = TimeSteps(model)
    time_steps.arm()
    watched = trained()
    assert time_steps.take()
    assert len(plain) == len(watched) > 1
    assert all(torch.equal(a, b) for a, b in zip(plain, watched, strict=True))
    assert not batch.requires_grad
    assert batch.grad is None


def test_every_recurrent_layer_has_a_profile_under_its_name() -> None:
    model = Reader()
    time_steps = TimeSteps(model)
    time_steps.arm()
    model(torch.randn(TIME, BATCH, WIDTH)).sum().backward()
    assert time_steps.layers == ("first", "second")
    assert {name: tuple(p.shape) for name, p in time_steps.take().items()} == {
        "first": (TIME,),
        "second": (TIME,),
    }


def test_input_given_by_keyword_is_watched_too() -> None:
    layer = nn.RNN(WIDTH, 5).double()
    sequence = torch.randn(TIME, BATCH, WIDTH, dtype=torch.float64)
    expected = oracles.input_gradient(layer, sequence).square().sum((1, 2))
    time_steps = TimeSteps(layer)
    time_steps.arm()
    layer(input=sequence)[0][-1].square().sum().backward()
    torch.testing.assert_close(time_steps.take()["(root)"], expected)


def test_initial_state_passes_through() -> None:
    layer = nn.GRU(WIDTH, 5)
    sequence, state = torch.randn(TIME, BATCH, WIDTH), torch.randn(1, BATCH, 5)
    plain = layer(sequence, state)[0]
    TimeSteps(layer).arm()
    assert torch.equal(layer(sequence, state)[0], plain)
    assert torch.equal(layer(sequence, hx=state)[0], plain)


def test_bidirectional_layer_is_named_as_unchecked() -> None:
    time_steps = TimeSteps(nn.ModuleDict({"both": nn.GRU(2, 2, bidirectional=True)}))
    assert time_steps.layers == ()
    assert list(time_steps.unchecked) == ["both"]
    assert "bidirectional" in time_steps.unchecked["both"]


def test_packed_sequence_passes_untouched_and_is_named_as_unchecked() -> None:
    layer = nn.GRU(WIDTH, 5)
    packed = nn.utils.rnn.pack_sequence([torch.randn(4, WIDTH), torch.randn(2, WIDTH)])
    plain = layer(packed)[0].data
    time_steps = TimeSteps(layer)
    time_steps.arm()
    watched = layer(packed)[0].data
    watched.sum().backward()
    assert torch.equal(watched, plain)
    assert time_steps.unchecked == {"(root)": "packed sequence"}
    assert time_steps.take() == {}


@pytest.mark.parametrize("mode", ["eval", "no_grad", "not armed"])
def test_nothing_is_profiled_outside_of_training(mode) -> None:
    layer = nn.GRU(WIDTH, 5)
    time_steps = TimeSteps(layer)
    if mode != "not armed":
        time_steps.arm()
    if mode == "eval":
        layer.eval()
    with torch.set_grad_enabled(mode != "no_grad"):
        output = layer(torch.randn(TIME, BATCH, WIDTH))[0]
    if output.requires_grad:
        output.sum().backward()
    assert time_steps.take() == {}


def test_no_hook_stays_after_taking_or_disarming() -> None:
    model = Reader()
    time_steps = TimeSteps(model)
    time_steps.arm()
    time_steps.arm()
    assert hooks_of(model) == 2
    time_steps.take()
    assert hooks_of(model) == 0
    time_steps.arm()
    time_steps.disarm()
    time_steps.disarm()
    assert hooks_of(model) == 0


def test_what_was_taken_is_not_given_again() -> None:
    layer = nn.GRU(WIDTH, 5)
    time_steps = TimeSteps(layer)
    time_steps.arm()
    layer(torch.randn(TIME, BATCH, WIDTH))[0].sum().backward()
    assert time_steps.take()
    assert time_steps.take() == {}


def test_a_frozen_recurrent_layer_stays_frozen() -> None:
    layer = nn.GRU(2, 3).requires_grad_(requires_grad=False)
    TimeSteps(layer).arm()
    assert not layer(torch.ones(4, 1, 2))[0].requires_grad


def test_a_recurrent_layer_outside_the_scope_is_left_out() -> None:
    model = nn.ModuleDict({"in": nn.RNN(1, 2), "out": nn.RNN(1, 2)})
    assert TimeSteps(model, model["in"].parameters()).layers == ("in",)


def test_a_layer_with_somebody_elses_hook_is_left_alone_and_named() -> None:
    layer = nn.RNN(1, 2)
    seen = []
    layer.register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[0].numpy()))
    time_steps = TimeSteps(layer)
    time_steps.arm()
    layer(torch.ones(9, 1, 1))
    assert len(seen) == 1
    assert time_steps.unchecked == {"(root)": "it has forward hooks of its own"}


def test_a_layer_that_is_called_twice_keeps_its_first_profile_and_says_so() -> None:
    layer = nn.RNN(1, 2)
    time_steps = TimeSteps(layer)
    time_steps.arm()
    (layer(torch.ones(9, 1, 1))[0].sum() + layer(torch.ones(12, 1, 1))[0].sum()).backward()
    assert time_steps.take()["(root)"].shape == (9,)
    assert time_steps.unchecked == {"(root)": "called several times in one batch"}


def test_few_time_steps_are_not_judged_and_named() -> None:
    layer = nn.RNN(1, 2)
    time_steps = TimeSteps(layer)
    time_steps.arm()
    layer(torch.ones(7, 1, 1))[0].sum().backward()
    assert time_steps.take() == {}
    assert time_steps.unchecked == {"(root)": "fewer than 8 time steps"}


def test_a_compiled_layer_is_not_hooked() -> None:
    layer = nn.RNN(1, 2)
    layer.compile(backend="eager")
    assert TimeSteps(nn.ModuleDict({"core": layer})).layers == ()
