"""Watching changes nothing: same weights, buffers, optimizer state and random state."""

from __future__ import annotations

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins import MixedPrecision
from torch import nn

from examples.demo import RUNS
from lightning_gradguard import GradientMonitor
from tests.e2e.models import (
    Classifier,
    TwoOptimizers,
    convolutional,
    mlp,
    random_data,
    recurrent,
    trainer,
)
from tests.e2e.modes import MODES, PARAMETRIZED


def everything_left(make_model, data, callbacks, **options):
    """Train, and return all that a run leaves behind."""
    pl.seed_everything(7, verbose=False)
    fit = trainer(*callbacks, **options)
    model = make_model()
    fit.fit(model, data)
    optimizers = [optimizer.state_dict() for optimizer in fit.optimizers]
    return model.state_dict(), optimizers, torch.get_rng_state()


def flat(value):
    """Turn nested containers into a list of leaves."""
    if isinstance(value, dict):
        return [leaf for key in value for leaf in (key, *flat(value[key]))]
    if isinstance(value, (list, tuple)):
        return [leaf for item in value for leaf in flat(item)]
    return [value]


def assert_identical(first, second):
    for one, other in zip(flat(first), flat(second), strict=True):
        if isinstance(one, torch.Tensor):
            assert torch.equal(one.nan_to_num(123.0), other.nan_to_num(123.0))
        else:
            assert one == other


def scaler() -> MixedPrecision:
    return MixedPrecision("16-mixed", device="cpu", scaler=torch.amp.GradScaler("cpu"))


IMAGES, SERIES, ROWS = (32, 1, 6, 6), (32, 12, 2), (32, 6)

CASES = {
    "mlp": (lambda: Classifier(mlp()), ROWS, {}),
    "batch norm and dropout": (lambda: Classifier(convolutional()), IMAGES, {}),
    "lstm": (lambda: Classifier(recurrent()), SERIES, {}),
    "gru, momentum": (
        lambda: Classifier(recurrent(nn.GRU), torch.optim.SGD, momentum=0.9),
        SERIES,
        {},
    ),
    "fused optimizer": (lambda: Classifier(mlp(), torch.optim.AdamW, fused=True), ROWS, {}),
    "accumulation": (lambda: Classifier(mlp()), ROWS, {"accumulate_grad_batches": 3}),
    "clipping by norm": (lambda: Classifier(mlp()), ROWS, {"gradient_clip_val": 0.01}),
    "clipping by value": (
        lambda: Classifier(mlp()),
        ROWS,
        {"gradient_clip_val": 0.001, "gradient_clip_algorithm": "value"},
    ),
    "bfloat16": (lambda: Classifier(mlp()), ROWS, {"precision": "bf16-mixed"}),
    "two optimizers, manual": (TwoOptimizers, ROWS, {}),
    "lbfgs": (lambda: Classifier(mlp(), torch.optim.LBFGS, max_iter=3), ROWS, {}),
}


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("case", CASES)
def test_a_watched_run_leaves_what_an_unwatched_run_leaves(case):
    make_model, shape, options = CASES[case]
    data = random_data(*shape)
    monitor = GradientMonitor(sinks=[], on_error="raise")
    watched = everything_left(make_model, data, [monitor], **options)
    assert monitor.summary().observed_steps > 0
    assert_identical(watched, everything_left(make_model, data, [], **options))


@pytest.mark.parametrize("fused", [False, True])
def test_a_gradient_scaler_is_left_alone(fused):
    def run(callbacks):
        return everything_left(
            lambda: Classifier(mlp(), torch.optim.SGD, fused=fused),
            random_data(*ROWS),
            callbacks,
            plugins=[scaler()],
        )

    monitor = GradientMonitor(sinks=[], on_error="raise")
    assert_identical(run([monitor]), run([]))
    assert monitor.summary().observed_steps > 0


@pytest.mark.parametrize("name", [*(name for name in MODES if name != "compiled"), *PARAMETRIZED])
def test_every_mode_of_the_table_trains_as_if_alone(name):
    mode = (MODES | PARAMETRIZED)[name]

    def train(callbacks):
        options = {**mode.options, **({"plugins": [scaler()]} if mode.uses_scaler else {})}
        return everything_left(mode.model, random_data(*mode.shape), callbacks, **options)

    monitor = GradientMonitor(sinks=[], on_error="raise", exact=mode.exact, inside_every_n_steps=2)
    assert_identical(train([monitor]), train([]))
    assert monitor.summary().observed_steps > 0


@pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no")
@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_every_reference_model_trains_as_if_alone(run):
    def train(callbacks):
        training, _ = run.data(0)
        return everything_left(
            run.model,
            training,
            callbacks,
            max_epochs=-1,
            max_steps=11,
            gradient_clip_val=run.gradient_clip_val,
        )

    monitor = GradientMonitor(sinks=[], on_error="raise", inside_every_n_steps=4)
    watched = train([monitor])
    assert monitor.summary().observed_steps == 11
    assert_identical(watched, train([]))
