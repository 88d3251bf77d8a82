"""Gradients with respect to hidden states, against a network that is unrolled by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lightning_gradguard.inside.replay import Passage, gates, hidden_gradients


def unrolled(layer, sequence, states):
    """Go through a layer step by step; return output, final states, and all states by run."""
    is_lstm = isinstance(layer, nn.LSTM)
    directions = 2 if layer.bidirectional else 1
    x = sequence if not layer.batch_first else sequence.transpose(0, 1)
    seen, finals = {}, []
    for depth in range(layer.num_layers):
        outputs = []
        for direction in range(directions):
            name = f"l{depth}{'_reverse' * direction}"
            weights = {
                n: getattr(layer, f"{n}_{name}", None)
                for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")
            }
            number = depth * directions + direction
            state = tuple(part[number] for part in states)
            steps = range(len(x)) if not direction else range(len(x) - 1, -1, -1)
            seen[name] = []
            for t in steps:
                # As it is handed on: what an LSTM's h takes from c counts as h.
                state = tuple(part.clone() for part in cell(layer, x[t], state, weights))
                for part in state:
                    part.retain_grad()
                seen[name].append((t, state))
            by_time = dict(seen[name])
            outputs.append(torch.stack([by_time[t][0] for t in range(len(x))]))
            finals.append(state)
        x = torch.cat(outputs, dim=-1)
    output = x.transpose(0, 1) if layer.batch_first else x
    ends = tuple(torch.stack([final[k] for final in finals]) for k in range(1 + is_lstm))
    return output, ends, seen


def cell(layer, x, state, weights):
    """Make one step by the formulas of torch's documentation."""
    bias_ih, bias_hh = weights["bias_ih"], weights["bias_hh"]
    from_input = nn.functional.linear(x, weights["weight_ih"], bias_ih)
    from_state = nn.functional.linear(state[0], weights["weight_hh"], bias_hh)
    if isinstance(layer, nn.RNN):
        squash = torch.tanh if layer.nonlinearity == "tanh" else torch.relu
        return (squash(from_input + from_state),)
    if isinstance(layer, nn.GRU):
        r_x, z_x, n_x = from_input.chunk(3, -1)
        r_h, z_h, n_h = from_state.chunk(3, -1)
        r, z = torch.sigmoid(r_x + r_h), torch.sigmoid(z_x + z_h)
        return ((1 - z) * torch.tanh(n_x + r * n_h) + z * state[0],)
    i, f, g, o = (from_input + from_state).chunk(4, -1)
    c = torch.sigmoid(f) * state[1] + torch.sigmoid(i) * torch.tanh(g)
    h = torch.sigmoid(o) * torch.tanh(c)
    return (h if weights["weight_hr"] is None else h @ weights["weight_hr"].T), c


CASES = {
    "rnn": (nn.RNN, {}),
    "relu rnn": (nn.RNN, {"nonlinearity": "relu"}),
    "gru": (nn.GRU, {}),
    "lstm": (nn.LSTM, {}),
    "stacked rnn": (nn.RNN, {"num_layers": 3}),
    "stacked gru": (nn.GRU, {"num_layers": 3, "batch_first": True}),
    "stacked lstm": (nn.LSTM, {"num_layers": 2}),
    "two ways": (nn.GRU, {"bidirectional": True, "num_layers": 2}),
    "two ways, lstm": (nn.LSTM, {"bidirectional": True, "num_layers": 2, "batch_first": True}),
    "projected": (nn.LSTM, {"proj_size": 3, "num_layers": 2}),
    "projected two ways": (nn.LSTM, {"proj_size": 2, "bidirectional": True}),
    "no bias": (nn.LSTM, {"bias": False}),
}
TIME, BATCH, WIDTH, HIDDEN = 13, 4, 3, 5


def passage_of(layer, loss_of, *, with_state=True):
    """Run a layer and return what went through it, beside what it is when unrolled by hand."""
    torch.manual_seed(0)
    shape = (BATCH, TIME, WIDTH) if layer.batch_first else (TIME, BATCH, WIDTH)
    sequence = torch.randn(shape, dtype=torch.float64)
    runs = layer.num_layers * (2 if layer.bidirectional else 1)
    sizes = [getattr(layer, "proj_size", 0) or HIDDEN]
    sizes += [HIDDEN] if isinstance(layer, nn.LSTM) else []
    states = tuple(torch.randn(runs, BATCH, size, dtype=torch.float64) for size in sizes)
    if not with_state:
        states = tuple(torch.zeros_like(state) for state in states)
    given = states if isinstance(layer, nn.LSTM) else states[0]
    output, final = layer(sequence, given) if with_state else layer(sequence)
    finals = final if isinstance(final, tuple) else (final,)
    gradients = torch.autograd.grad(loss_of(output, finals), (output, *finals), allow_unused=True)
    wide, ends, seen = unrolled(layer, sequence, states)
    torch.testing.assert_close(wide, output, rtol=1e-9, atol=1e-12)
    loss_of(wide, ends).backward()
    layer.zero_grad()
    passage = Passage(sequence, states if with_state else (), gradients[0], gradients[1:])
    return passage, seen


def everything(output, finals):
    ends = [(k + 2.0) * final.sin().sum() for k, final in enumerate(finals)]
    return output.square().sum() + sum(ends)


def last_step_only(output, finals):
    return finals[0][-1].square().sum()


@pytest.mark.parametrize("loss_of", [everything, last_step_only])
@pytest.mark.parametrize("chunks", [1, 4, 5, TIME, 100])
@pytest.mark.parametrize("case", CASES)
def test_every_border_is_what_it_is_when_unrolled_by_hand(case, chunks, loss_of):
    kind, options = CASES[case]
    torch.manual_seed(1)
    layer = kind(WIDTH, HIDDEN, dtype=torch.float64, **options)
    passage, seen = passage_of(layer, loss_of, with_state=chunks != 5)
    borders, _ = hidden_gradients(layer, passage, chunks=chunks)
    assert [one.name for one in borders] == list(seen)
    for one in borders:
        states = dict(seen[one.name])
        assert len(one.steps) == min(chunks, TIME)
        assert one.steps[-1] == (0 if "reverse" in one.name else TIME - 1)
        for k, step in enumerate(one.steps):
            for part, gradient in zip(states[step], one.gradients, strict=True):
                expected = torch.zeros_like(part) if part.grad is None else part.grad
                torch.testing.assert_close(gradient[k], expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("case", [name for name, (kind, _) in CASES.items() if kind is not nn.RNN])
def test_gates_are_what_the_formulas_make_of_the_states_before(case):
    kind, options = CASES[case]
    torch.manual_seed(1)
    layer = kind(WIDTH, HIDDEN, dtype=torch.float64, **options)
    passage, seen = passage_of(layer, everything)
    found = gates(layer, passage)
    assert list(found) == list(seen)
    state = passage.states[0][0]
    x = passage.sequence.transpose(0, 1) if layer.batch_first else passage.sequence
    from_input = nn.functional.linear(x[0], layer.weight_ih_l0, getattr(layer, "bias_ih_l0", None))
    from_state = nn.functional.linear(state, layer.weight_hh_l0, getattr(layer, "bias_hh_l0", None))
    parts = torch.sigmoid(from_input + from_state).split(HIDDEN, dim=-1)
    place = {"input gate": 0, "forget gate": 1, "output gate": 3, "reset gate": 0, "update gate": 1}
    for name, output in found["l0"].items():
        assert output.shape == (TIME, BATCH, HIDDEN)
        torch.testing.assert_close(output[0], parts[place[name]], rtol=1e-9, atol=1e-12)


def test_nothing_of_the_model_is_touched():
    layer = nn.LSTM(WIDTH, HIDDEN, num_layers=2, dtype=torch.float64)
    passage, _ = passage_of(layer, everything)
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    random = torch.get_rng_state()
    hidden_gradients(layer, passage, chunks=4)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(parameter.grad is None for parameter in layer.parameters())
    assert all(torch.equal(before[name], value) for name, value in layer.state_dict().items())
    assert not any(state.requires_grad for state in passage.states)


def test_a_sequence_without_a_batch_is_one_of_one():
    torch.manual_seed(2)
    layer = nn.GRU(WIDTH, HIDDEN, dtype=torch.float64)
    passage, _ = passage_of(layer, everything)
    alone = Passage(
        passage.sequence[:, 0],
        tuple(state[:, 0] for state in passage.states),
        passage.output_gradient[:, 0],
        tuple(gradient[:, 0] for gradient in passage.state_gradients),
    )
    whole, single = (hidden_gradients(layer, one, chunks=4)[0][0] for one in (passage, alone))
    torch.testing.assert_close(single.gradients[0][:, 0], whole.gradients[0][:, 0])
