"""An optimizer step that is compiled: what we do inside of it is not, and works as ever."""

from __future__ import annotations

import pytest
import torch

from lightning_gradguard import GradientMonitor
from lightning_gradguard.remedies import LearningRate
from tests.e2e.guard_cases import (
    Adversaries,
    From,
    assert_same,
    classifier,
    done,
    guard,
    normed,
    train,
    with_factor,
    without,
)

# Lightning's own loop is compiled as well, of which torch has much to say.
pytestmark = pytest.mark.filterwarnings("ignore", "error:.*gradguard")


@pytest.fixture(autouse=True)
def _fresh_compiler():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def compiled(parameters, lr=1e-2):
    optimizer = torch.optim.AdamW(parameters, lr=torch.tensor(lr))
    optimizer.step = torch.compile(optimizer.step, backend="eager")
    return optimizer


class ByHand(Adversaries):
    def configure_optimizers(self):
        return [compiled(self.maker.parameters()), compiled(self.critic.parameters())]


class Absent(ByHand):
    absent = (3,)


MAKE = classifier(normed, compiled)


def test_watching_a_compiled_step_changes_nothing_and_misses_nothing() -> None:
    monitor = GradientMonitor(sinks=[], on_error="raise")
    assert_same(train(MAKE, monitor), train(MAKE))
    assert monitor.summary().observed_steps == 8
    assert (monitor.last_frame.update_ratio > 0.0).all()


@pytest.mark.parametrize(
    ("make", "expected", "skipped"),
    [(MAKE, without(MAKE, {3}), [3]), (ByHand, Absent, [3, 3])],
    ids=["automatic", "manual"],
)
def test_a_compiled_step_is_left_out_as_if_its_batch_had_never_come(
    make, expected, skipped
) -> None:
    guarded = guard(on_nonfinite="skip", on_diverging="rollback")
    assert_same(train(with_factor(make, {3}), guarded), train(expected))
    assert done(guarded, "skip") == skipped


def test_a_compiled_step_is_clipped_and_made_smaller() -> None:
    wishes = {"clip": 0.01, "remedies": [From([2], LearningRate(0.5, "asked"))]}
    plain = classifier(normed, torch.optim.AdamW, lr=torch.tensor(1e-2), foreach=False)
    one, other = guard(**wishes), guard(**wishes)
    run, expected = train(MAKE, one), train(plain, other)
    torch.testing.assert_close(run.weights, expected.weights, rtol=0.0, atol=1e-6)
    assert [a.what for a in one.actions] == [a.what for a in other.actions]
    assert float(run.trainer.optimizers[0].param_groups[0]["lr"]) == pytest.approx(1e-2)
