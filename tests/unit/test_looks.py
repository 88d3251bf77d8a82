"""Looking inside a step, from the model to the frame, the history and back."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn

from lightning_gradguard import Inspector, Probe
from lightning_gradguard.assemble import StepContext
from lightning_gradguard.frame_state import frame_from_dict, frame_to_dict
from lightning_gradguard.history import load_run
from lightning_gradguard.history.storage import Entry, Storage
from lightning_gradguard.inside.activations import Activations
from lightning_gradguard.session import Session


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(2, 5, batch_first=True)
        self.fc, self.head = nn.Linear(5, 7), nn.Linear(7, 1)

    def forward(self, x):
        return self.head(torch.relu(self.fc(self.rnn(x)[0][:, -1])))


def looked_inside(model, batch, **options):
    probe = Probe(model)
    probe.looks.arm()
    loss = model(batch).square().sum()
    probe.looks.end_forward()
    loss.backward()
    probe.before_update(model.parameters(), StepContext(step=3, **options), loss=loss.detach())
    probe.close_unseen_update(0)
    return probe.collect()[-1]


@pytest.fixture
def frame():
    torch.manual_seed(0)
    return looked_inside(Net(), torch.randn(4, 9, 2))


def test_a_frame_holds_what_was_seen_inside(frame):
    assert list(frame.hidden_profiles) == ["rnn/l0"]
    assert frame.hidden_profiles["rnn/l0"].shape == (3, 8)
    assert set(frame.output_grad_norms) == {"rnn", "fc", "head"}
    relu, reset, update = frame.activations
    assert (reset.function, reset.layer, reset.saturated.shape) == ("reset gate", "rnn", (5,))
    assert (update.function, update.module) == ("update gate", "rnn")
    assert (relu.function, relu.layer, relu.active.shape) == ("relu", "fc", (7,))
    assert 0.0 <= relu.dead_fraction <= 1.0
    assert np.isnan(relu.saturated_fraction)


def test_gradients_of_outputs_are_those_of_autograd():
    torch.manual_seed(0)
    model, batch = Net(), torch.randn(4, 9, 2)
    found = looked_inside(model, batch).output_grad_norms
    hidden = model.rnn(batch)[0]
    before = model.fc(hidden[:, -1])
    loss = model.head(torch.relu(before)).square().sum()
    for name, tensor in {"rnn": hidden, "fc": before}.items():
        expected = torch.autograd.grad(loss, tensor, retain_graph=True)[0].norm().item()
        assert found[name] == pytest.approx(expected, rel=1e-5)


def test_accumulated_batches_and_a_gradient_scale_are_taken_out():
    torch.manual_seed(0)
    model, batch = Net(), torch.randn(4, 9, 2)
    plain = looked_inside(model, batch)
    model.zero_grad()
    probe = Probe(model)
    probe.looks.arm()
    (1024.0 * model(batch).square().sum() / 4.0).backward()
    context = StepContext(step=3, window_batches=4)
    scale = torch.tensor(1024.0)
    probe.before_update(model.parameters(), context, gradient_scale=scale)
    probe.close_unseen_update(0)
    scaled = probe.collect()[-1]
    for name, norm in plain.output_grad_norms.items():
        assert scaled.output_grad_norms[name] == pytest.approx(norm, rel=1e-5)
    np.testing.assert_allclose(
        scaled.hidden_profiles["rnn/l0"], plain.hidden_profiles["rnn/l0"], rtol=1e-4
    )


def assert_same(one, other):
    for name in ("hidden_profiles", "output_grad_norms"):
        assert list(getattr(one, name)) == list(getattr(other, name))
        for key, value in getattr(one, name).items():
            np.testing.assert_array_equal(value, getattr(other, name)[key])
    for first, second in zip(one.activations, other.activations, strict=True):
        for key, value in vars(first).items():
            np.testing.assert_array_equal(value, vars(second)[key])


def test_the_history_gives_it_back(frame, tmp_path):
    writer = Storage(tmp_path / "gradguard" / "history.sqlite", about={})
    writer.write([Entry(frame)])
    writer.close()
    with load_run(tmp_path) as run:
        assert_same(next(run.frames()), frame)


def test_a_checkpoint_gives_it_back(frame):
    assert_same(frame_from_dict(json.loads(json.dumps(frame_to_dict(frame)))), frame)


def test_where_nothing_is_looked_inside_nothing_is_said_of_it():
    class Own(nn.LSTM):
        def forward(self, x):
            return super().forward(x)[0]

    probe = Probe(Own(1, 2))
    assert probe.looks.unchecked == ["hidden states of (root) (its class has a forward of its own)"]
    for every, expected in ((None, []), (5, probe.looks.unchecked)):
        session = Session(probe, Inspector(), inside_every_n_steps=every)
        said = [line for line in session.summary().unchecked if "hidden" in line]
        assert said == expected


def test_what_goes_wrong_in_looking_ends_the_looking_and_nothing_else(monkeypatch):
    monkeypatch.setattr(Activations, "_note", lambda *_: 1 / 0)
    torch.manual_seed(0)
    model, batch = Net(), torch.randn(4, 9, 2)
    probe = Probe(model)
    for _ in range(2):
        probe.looks.arm()
        model(batch).sum().backward()
        frame = probe.read(0)
    assert isinstance(probe.looks.failure, ZeroDivisionError)
    assert frame.grad_norm.min() > 0.0
    assert (frame.activations, dict(frame.hidden_profiles)) == ((), {})
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
