"""What goes through recurrent layers in a training, and the gradients of their states."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

from lightning_gradguard.inside.hidden import HiddenStates
from tests.unit.test_replay import BATCH, HIDDEN, TIME, WIDTH, unrolled


def layer_and_batch(kind=nn.LSTM, *, batch=BATCH, **options):
    torch.manual_seed(0)
    layer = kind(WIDTH, HIDDEN, dtype=torch.float64, **options)
    return layer, torch.randn(TIME, batch, WIDTH, dtype=torch.float64)


@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
@pytest.mark.parametrize("used", ["output", "final", "both"])
def test_norms_at_the_borders_are_those_of_the_unrolled_network(kind, used):
    layer, batch = layer_and_batch(kind, num_layers=2)

    def loss_of(output, finals):
        whole = output.square().sum() if used != "final" else 0.0
        return whole + (sum(f.sin().sum() for f in finals) if used != "output" else 0.0)

    hidden = HiddenStates(layer, chunks=4)
    hidden.arm()
    output, final = layer(batch)
    loss_of(output, final if isinstance(final, tuple) else (final,)).backward()
    found = hidden.take()
    states = tuple(
        torch.zeros(2, BATCH, HIDDEN, dtype=torch.float64) for _ in range(1 + (kind is nn.LSTM))
    )
    wide, ends, seen = unrolled(layer, batch, states)
    loss_of(wide, ends).backward()
    for run in ("l0", "l1"):
        at = dict(seen[run])
        steps, squares, _ = found[f"(root)/{run}"]
        for step, square in zip(steps.tolist(), squares.tolist(), strict=True):
            parts = [p.grad for p in at[int(step)] if p.grad is not None]
            assert square == pytest.approx(sum(float(g.square().sum()) for g in parts), rel=1e-9)


def test_the_loss_of_the_last_part_alone_shows_how_far_back_it_reaches():
    """A loss at every step feeds each state anew; what comes from the last falls all the same."""
    layer, batch = layer_and_batch(nn.RNN)
    with torch.no_grad():
        layer.weight_hh_l0.copy_(0.1 * torch.eye(HIDDEN))
    hidden = HiddenStates(layer, chunks=TIME)
    hidden.arm()
    layer(batch)[0].sum().backward()
    _, whole, late = hidden.take()["(root)/l0"]
    assert whole.min() > 0.1 * whole.max()
    falls = np.diff(np.log10(late.numpy())) / 2.0  # of squares
    assert (falls >= 1.0).all()  # tanh' is at most 1, so at least one decade per step


def test_of_a_large_batch_the_first_eight_sequences_are_seen():
    layer, batch = layer_and_batch(batch=20)
    found = []
    for part in (batch, batch[:, :8]):
        hidden = HiddenStates(layer)
        hidden.arm()
        layer(part)[0].sum().backward()
        found.append(hidden.take()["(root)/l0"])
    torch.testing.assert_close(found[0], found[1])


def packed(layer, batch):
    return layer(pack_padded_sequence(batch, [TIME] * BATCH))[0].data.sum()


def twice(layer, batch):
    return layer(batch)[0].sum() + layer(batch)[0].sum()


@pytest.mark.parametrize(
    ("use", "reason"), [(packed, "packed sequence"), (twice, "called several times in one batch")]
)
def test_what_cannot_be_replayed_is_named(use, reason):
    layer, batch = layer_and_batch()
    hidden = HiddenStates(layer)
    hidden.arm()
    use(layer, batch).backward()
    hidden.take()
    assert hidden.unchecked == {"(root)": reason}


def test_a_class_with_a_forward_of_its_own_is_left_alone():
    class Own(nn.LSTM):
        def forward(self, x):
            return super().forward(x)[0]

    hidden = HiddenStates(Own(1, 2))
    assert hidden.layers == ()
    assert hidden.unchecked == {"(root)": "its class has a forward of its own"}


def test_nothing_is_kept_and_no_hook_stays():
    layer, batch = layer_and_batch()
    hidden = HiddenStates(layer)
    hidden.arm()
    layer(batch)[0].sum().backward()
    hidden.forget()
    assert hidden.take() == {}
    assert not layer._forward_hooks
    hidden.arm()
    layer.eval()
    with torch.no_grad():
        layer(batch)
    assert hidden.take() == {}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_replayed_in_float32(dtype):
    torch.manual_seed(0)
    layer = nn.GRU(WIDTH, HIDDEN)
    batch = torch.randn(TIME, BATCH, WIDTH)
    found = []
    for half in (False, True):
        hidden = HiddenStates(layer, chunks=4)
        hidden.arm()
        with torch.autocast("cpu", dtype, enabled=half):
            output = layer(batch)[0]
        output.float().sum().backward()
        found.append(hidden.take()["(root)/l0"])
    assert all(torch.isfinite(one).all() for one in found)
    torch.testing.assert_close(found[0], found[1], rtol=0.05, atol=0.0)
