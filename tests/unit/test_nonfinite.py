"""NaN and infinity: where they began and what brought them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from lightning_gradguard import Probe
from lightning_gradguard.detectors import NonFinite
from lightning_gradguard.findings import Severity
from tests.strategies import make_frame, said_by, stream

EVEN = np.ones(8)


def test_it_is_critical_at_once_and_names_where_it_began_and_the_last_good_numbers() -> None:
    frames = [make_frame(0, 2.0 * EVEN), make_frame(3, EVEN), make_frame(4, EVEN, bad=[1, 4])]
    (finding,) = said_by(NonFinite(), frames)
    assert (finding.kind, finding.rule, finding.step) == ("nonfinite", "backward", 4)
    assert finding.severity is Severity.CRITICAL
    assert finding.layers == ("l1", "l4")
    assert (finding.value, finding.limit) == (6.0, 0.0)
    assert "breaks first in l4" in finding.message
    assert "last finite at step 3, with gradient norm 2.83" in finding.message
    assert "l4" in finding.advice


def test_a_loss_that_is_not_finite_is_blamed_first() -> None:
    (finding,) = said_by(NonFinite(), [make_frame(0, EVEN, bad=[0, 1], loss=math.nan)])
    assert finding.rule == "loss"
    assert "the loss is nan; no earlier step was finite" in finding.message
    assert "forward pass" in finding.advice


def test_a_loss_that_is_not_finite_is_enough() -> None:
    (finding,) = NonFinite().update(make_frame(0, loss=math.inf))
    assert (finding.kind, finding.layers) == ("nonfinite", ())
    assert finding.value > finding.limit


@pytest.mark.parametrize(("whole", "words"), [(True, "from a batch that is finite"), (None, "")])
def test_of_a_batch_that_is_whole_it_is_said_so(whole, words) -> None:
    (finding,) = NonFinite().update(make_frame(0, loss=math.nan, batch_is_finite=whole))
    assert finding.rule == "loss"
    assert words in finding.message
    assert ("finite" in finding.message.partition(";")[0]) == bool(words)


def test_causes_come_before_symptoms() -> None:
    """A broken batch breaks the loss; broken weights do; a broken loss breaks all gradients."""
    broken = {"param_norm": np.array([1.0, math.inf, 1.0, 1.0])}
    for fields, rule in [
        ({"batch_is_finite": False, "loss": math.nan, "bad": [0], **broken}, "data"),
        ({"batch_is_finite": True, "loss": math.nan, "bad": [0], **broken}, "weights"),
        ({"batch_is_finite": True, "loss": math.nan, "bad": [0]}, "loss"),
        ({"batch_is_finite": True, "bad": [0]}, "backward"),
    ]:
        (finding,) = NonFinite().update(make_frame(0, **fields))
        assert finding.rule == rule
    (finding,) = NonFinite().update(make_frame(0, bad=[0], **broken))
    assert "the weights of l1 were not finite before this step" in finding.message


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_of_a_real_model_that_were_broken_before_are_named(value) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 2))
    with torch.no_grad():
        model[1].weight[0, 0] = value
    probe = Probe(model)
    model(torch.ones(5, 3)).square().sum().backward()
    (finding,) = NonFinite().update(probe.read(step=0))
    assert finding.rule == "weights"
    assert "the weights of 1 were not finite" in finding.message


def test_a_layer_that_was_not_measured_is_not_called_broken() -> None:
    unknown = np.array([1.0, math.nan, 1.0, 1.0])
    fields = {"param_norm": unknown, "grad_abs_max": unknown, "grad_norm": unknown}
    counts = np.array([0.0, math.nan, 3.0, 0.0])
    (finding,) = NonFinite().update(make_frame(0, num_nonfinite=counts, **fields))
    assert (finding.rule, finding.layers, finding.value) == ("backward", ("l2",), 3.0)


def test_after_an_explosion_the_advice_is_about_that() -> None:
    norms = [1.0, 1.0, 1.0, 1e4]
    frames = [make_frame(step, norm * EVEN) for step, norm in enumerate(norms)]
    (finding,) = said_by(NonFinite(), [*frames, make_frame(4, EVEN, bad=[0])])
    assert "exploded" in finding.advice
    (finding,) = said_by(
        NonFinite(), [*frames, make_frame(4, EVEN, bad=[0], batch_is_finite=False)]
    )
    assert "look at the data" in finding.advice  # a cause goes before a symptom


def test_a_loss_that_is_faded_in_is_no_explosion() -> None:
    frames = [make_frame(step, step / 60 * EVEN) for step in range(60)]
    (finding,) = said_by(NonFinite(), [*frames, make_frame(60, EVEN, bad=[0])])
    assert "exploded" not in finding.advice


def test_a_scaler_that_refuses_for_ever_is_named() -> None:
    frames = stream(40, lambda s: make_frame(s, EVEN, bad=[0], stepped=False))
    found = [f for f in said_by(NonFinite(), frames) if f.kind == "nonfinite"]
    assert found[0].rule == "overflow"
    assert "refused 31 steps in a row" in found[0].message


def test_a_step_that_the_scaler_refused_is_a_notice_with_its_rate() -> None:
    frames = stream(8, lambda s: make_frame(s, EVEN, bad=[0] if s % 4 == 3 else []))
    refused = [
        frame if not frame.has_nonfinite else make_frame(frame.step, EVEN, bad=[0], stepped=False)
        for frame in frames
    ]
    first, second = said_by(NonFinite(), refused)
    assert {(f.kind, f.severity, f.layers) for f in (first, second)} == {
        ("amp_overflow", Severity.INFO, ("l0",))
    }
    assert (first.value, second.value) == (0.25, 0.25)
    assert "2 of the last 8" in second.message


def test_the_rate_forgets_what_is_long_ago() -> None:
    detector = NonFinite()
    said_by(detector, [make_frame(0, bad=[0], stepped=False)])
    said_by(detector, stream(150, lambda s: make_frame(s + 1)))
    (finding,) = detector.update(make_frame(151, bad=[0], stepped=False))
    assert finding.value == pytest.approx(0.01)


def test_a_scaler_that_refuses_for_ever_is_an_alarm() -> None:
    frames = stream(5, lambda s: make_frame(s, bad=[1], stepped=False))
    kinds = [f.kind for f in said_by(NonFinite(max_refused_steps=3), frames)]
    assert kinds == ["amp_overflow"] * 3 + ["nonfinite"] * 2


def test_a_step_in_between_lets_the_scaler_begin_again() -> None:
    frames = stream(40, lambda s: make_frame(s, bad=[] if s % 4 == 3 else [1], stepped=s % 4 == 3))
    assert {f.kind for f in said_by(NonFinite(max_refused_steps=3), frames)} == {"amp_overflow"}


@pytest.mark.parametrize(
    "fields",
    [{"loss": math.nan}, {"has_scaler": False}],
    ids=["the loss is broken", "no scaler to refuse"],
)
def test_a_step_that_was_not_made_for_another_reason_is_an_alarm(fields) -> None:
    (finding,) = NonFinite().update(make_frame(0, bad=[1], stepped=False, **fields))
    assert finding.kind == "nonfinite"


def test_finite_numbers_of_any_size_are_fine() -> None:
    assert said_by(NonFinite(), [make_frame(0, 1e100 * EVEN, loss=-1e100)]) == []


def test_a_broken_batch_that_broke_nothing_is_fine() -> None:
    """Padding may hold NaN that no sample looks at."""
    assert said_by(NonFinite(), [make_frame(0, batch_is_finite=False)]) == []
