"""The published rules on hand-made records, and what `Signals` records of tiny trainings."""

from __future__ import annotations

import pickle
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.detection.case import Training
from benchmarks.detection.loop import train
from benchmarks.detection.record import Outputs, Parameters, Record
from benchmarks.detection.rules import ALL_RULES
from benchmarks.detection.rules.autotrainer import AutoTrainer
from benchmarks.detection.rules.deepchecker import TheDeepChecker
from benchmarks.detection.rules.fixed import FixedThresholds
from benchmarks.detection.rules.sagemaker import SageMaker
from benchmarks.detection.rules.torchmortem import Torchmortem
from benchmarks.detection.signals import Signals

STEPS = 200
NAN = float("nan")
NORMAL_PARAMETERS = {
    "grad_norm": 0.1,
    "grad_mean": 1e-2,
    "grad_zeros": 0.1,
    "grad_spread": 0.05,
    "weight_mean": 0.1,
    "weight_norm": 1.0,
    "weight_small": 0.0,
    "update_mean": 1e-4,
    "update_norm": 1e-3,
    "unchanged": 0.0,
}
NORMAL_OUTPUTS = {
    "grad_norm": 0.1,
    "mean": 0.5,
    "std": 1.0,
    "near_zero": 0.3,
    "near_one": 0.2,
    "dead_units": 0.1,
    "idle_units": 0.1,
    "flat_units": NAN,
    "saturated_units": NAN,
    "input_variance": 1.0,
}


def clean() -> Record:
    """A layer, a ReLU, a layer: healthy in all numbers that any rule looks at."""
    rows = {
        name: np.full((STEPS, 3), value, np.float32) for name, value in NORMAL_PARAMETERS.items()
    }
    parameters = Parameters(
        names=("0.weight", "0.bias", "2.weight"),
        sizes=np.array([100, 10, 100]),
        is_kernel=np.array([True, False, True]),
        **rows,
    )
    parameters.weight_norm[:] = np.linspace(1.0, 1.5, STEPS)[:, None]
    rows = {name: np.full((STEPS, 3), value, np.float32) for name, value in NORMAL_OUTPUTS.items()}
    outputs = Outputs(
        names=("0", "1", "2"),
        families=("", "relu", ""),
        is_trained=np.array([True, False, True]),
        **rows,
    )
    return Record(
        steps=np.arange(STEPS),
        losses=3.0 * 0.99 ** np.arange(STEPS),
        parameters=parameters,
        outputs=outputs,
        scores=np.array([0.4, 0.6, 0.7, 0.8, 0.82, 0.84, 0.86, 0.88]),
    )


def said(rules, record):
    """What a rule set says of a record: kind and rule, with the first step."""
    first = {}
    for alarm in rules.judge(record):
        first.setdefault((alarm.kind, alarm.rule), alarm.step)
    return first


@pytest.mark.parametrize("rules", ALL_RULES, ids=lambda rules: rules.name)
def test_no_rule_speaks_of_a_clean_record(rules):
    assert rules.judge(clean()) == []


@pytest.mark.parametrize("rules", ALL_RULES, ids=lambda rules: rules.name)
def test_what_is_not_there_trips_no_rule(rules):
    record = clean()
    for trace in (record.parameters, record.outputs):
        for field in fields(trace):
            value = getattr(trace, field.name)
            if isinstance(value, np.ndarray) and value.ndim == 2:
                value[:, 1] = np.nan
    assert rules.judge(record) == []


@pytest.mark.parametrize("rules", ALL_RULES, ids=lambda rules: rules.name)
def test_a_record_without_modules_is_judged(rules):
    record = clean()
    none = {name: np.empty((STEPS, 0), np.float32) for name in NORMAL_OUTPUTS}
    empty = Outputs(names=(), families=(), is_trained=np.empty(0, bool), **none)
    assert rules.judge(replace(record, outputs=empty)) == []


def test_the_names_tell_the_rule_sets_apart():
    assert len({rules.name for rules in ALL_RULES}) == len(ALL_RULES)


# --- fixed thresholds ----------------------------------------------------------------------


def test_fixed_limits_of_norms():
    record = clean()
    record.parameters.grad_norm[3, 1] = 1e-9
    record.parameters.grad_norm[5, 1] = 2e3
    record.parameters.grad_norm[7, 1] = np.inf
    record.parameters.grad_norm[9] = 2e-8
    assert said(FixedThresholds(), record) == {
        ("vanishing", "gradscope: vanish_gradient"): 3,
        ("exploding", "gradscope: explode"): 5,
        ("nonfinite", "gradscope, trainpulse: not finite"): 7,
        ("vanishing", "trainpulse: gradient"): 9,
    }


# --- SageMaker Debugger --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("trace", "column", "value", "kind", "rule"),
    [
        ("parameters", "grad_mean", 9e-8, "vanishing", "VanishingGradient"),
        ("parameters", "update_mean", 1.1, "exploding", "WeightUpdateRatio"),
        ("parameters", "update_mean", 9e-10, "not_learning", "WeightUpdateRatio"),
        ("outputs", "dead_units", 0.51, "dead", "DeadRelu"),
        ("outputs", "flat_units", 0.51, "saturated", "SaturatedActivation"),
    ],
)
def test_sagemaker_limits(trace, column, value, kind, rule):
    record = clean()
    getattr(getattr(record, trace), column)[30, 0] = value
    assert said(SageMaker(with_loss=False), record) == {(kind, rule): 30}


def test_sagemaker_calls_what_is_not_finite_exploding():
    record = clean()
    record.parameters.weight_norm[20:, 2] = np.inf
    assert said(SageMaker(with_loss=False), record) == {
        ("exploding", "ExplodingTensor"): 20,
        ("nonfinite", "ExplodingTensor"): 20,
    }


def test_sagemaker_wants_three_unchanged_steps():
    record = clean()
    record.parameters.unchanged[[10, 11, 20, 21, 22], 0] = 1.0
    record.parameters.unchanged[:, 1] = 1.0  # a bias
    assert said(SageMaker(with_loss=False), record) == {("not_learning", "UnchangedTensor"): 22}


def test_sagemaker_judges_the_initialisation_in_ten_steps_only():
    rule, record = "PoorWeightInitialization", clean()
    record.parameters.grad_spread[10:] = 1e-5
    assert said(SageMaker(with_loss=False), record) == {}
    record.parameters.grad_spread[4, 0] = 1e-5
    assert said(SageMaker(with_loss=False), record) == {("vanishing", rule): 4}


def test_sagemaker_compares_the_inputs_of_relus():
    rule, record = "PoorWeightInitialization", clean()
    record = replace(record, outputs=replace(record.outputs, families=("relu", "tanh", "relu")))
    record.outputs.input_variance[:, 1] = 1e-5  # of a tanh
    assert said(SageMaker(with_loss=False), record) == {}
    record.outputs.input_variance[2, 2] = 11.0
    record.outputs.input_variance[6, 2] = 1.0 / 11.0
    assert said(SageMaker(with_loss=False), record) == {
        ("exploding", rule): 2,
        ("vanishing", rule): 6,
    }


def test_sagemaker_waits_five_steps_for_an_early_loss_to_fall():
    record = clean()
    record.losses[2:8] = 100.0
    found = said(SageMaker(with_loss=False), record)
    assert found == {("not_learning", "PoorWeightInitialization"): 6}


def test_sagemaker_compares_losses_ten_steps_apart():
    record = clean()
    record.losses[40] = record.losses[30] * 0.9995
    record.losses[70] = record.losses[60] * 1.06
    assert said(SageMaker(with_loss=False), record) == {}
    assert said(SageMaker(with_loss=True), record) == {
        ("not_learning", "LossNotDecreasing"): 40,
        ("diverging", "LossNotDecreasing"): 70,
    }


# --- AUTOTRAINER ---------------------------------------------------------------------------


def below_target(record):
    return replace(record, scores=np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.65, 0.69]))


@pytest.mark.parametrize(
    ("column", "values", "kind", "rule"),
    [
        ("grad_norm", [9e-5, 0.1, 0.1], "vanishing", "vanish"),
        ("grad_norm", [7.1, 0.1, 0.1], "exploding", "explode"),
        ("grad_zeros", [0.8, 0.0, 0.8], "dead", "relu"),
    ],
)
def test_autotrainer_looks_at_gradients_when_the_score_is_low(column, values, kind, rule):
    record = clean()
    getattr(record.parameters, column)[:] = values
    assert said(AutoTrainer(), record) == {}
    # The fourth epoch is the first check that comes after three tenths of all.
    assert said(AutoTrainer(), below_target(record)) == {(kind, rule): 99}


def test_autotrainer_weighs_zeros_by_size():
    record = below_target(clean())
    record.parameters.grad_zeros[:] = [0.69, 1.0, 0.69]  # 148 of 210 entries
    assert said(AutoTrainer(), record) == {("dead", "relu"): 99}
    record.parameters.grad_zeros[:] = [0.69, 0.7, 0.69]
    assert said(AutoTrainer(), record) == {}


def test_autotrainer_tells_no_progress_and_oscillation():
    record = clean()
    still = replace(record, scores=np.full(8, 0.5))
    assert said(AutoTrainer(), still) == {("not_learning", "not_converge"): 99}
    wild = replace(record, scores=np.array([0.7, 0.9, 0.7, 0.9, 0.7, 0.9, 0.7, 0.9]))
    assert said(AutoTrainer(), wild) == {("diverging", "unstable"): 99}


def test_autotrainer_stops_at_the_first_loss_that_is_not_finite():
    record = clean()
    record.losses[30:] = np.nan
    assert said(AutoTrainer(), record) == {
        ("exploding", "explode"): 99,
        ("nonfinite", "explode"): 99,
    }


# --- TheDeepChecker ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("trace", "column", "value", "kind", "rule"),
    [
        ("parameters", "grad_mean", 9e-7, "vanishing", "vanishing gradient"),
        ("parameters", "grad_mean", 2e6, "exploding", "exploding gradient"),
        ("parameters", "weight_small", 0.96, "dead", "dead weights"),
        ("parameters", "update_mean", 0.0, "not_learning", "untrained weights"),
        ("parameters", "update_mean", 9e-6, "not_learning", "slow updates"),
        ("parameters", "update_mean", 0.011, "diverging", "fast updates"),
    ],
)
def test_deepchecker_limits_of_kernels(trace, column, value, kind, rule):
    record = clean()
    numbers = getattr(getattr(record, trace), column)
    numbers[30:, 1] = value  # a bias
    assert said(TheDeepChecker(with_loss=False), record) == {}
    numbers[30:, 2] = value
    assert said(TheDeepChecker(with_loss=False), record) == {(kind, rule): 39}


def test_deepchecker_sees_gradients_halve_and_double():
    record, halves = clean(), 0.5 ** np.arange(5)
    record.parameters.grad_mean[35:40, 0] *= halves
    record.parameters.grad_mean[65:70, 0] /= halves
    assert said(TheDeepChecker(with_loss=False), record) == {
        ("vanishing", "vanishing gradient"): 39,
        ("exploding", "exploding gradient"): 69,
    }


@pytest.mark.parametrize(
    ("column", "family", "value", "kind", "rule"),
    [
        ("idle_units", "relu", 0.51, "dead", "dead activations"),
        ("saturated_units", "tanh", 0.51, "saturated", "saturated activations"),
        ("std", "relu", 0.3, "vanishing", "activation distribution"),
        ("std", "tanh", 3.3, "exploding", "activation distribution"),
    ],
)
def test_deepchecker_limits_of_activations(column, family, value, kind, rule):
    record = clean()
    families = ("", family, family)  # the last is an output and not judged
    record = replace(record, outputs=replace(record.outputs, families=families))
    getattr(record.outputs, column)[:, 2] = value
    assert said(TheDeepChecker(with_loss=False), record) == {}
    getattr(record.outputs, column)[30:, 1] = value
    assert said(TheDeepChecker(with_loss=False), record) == {(kind, rule): 39}


def test_deepchecker_lets_the_deviation_stray_by_the_f_test():
    record = clean()
    record.outputs.std[:, 1] = 0.31
    assert said(TheDeepChecker(with_loss=False), record) == {}


@pytest.mark.parametrize(
    ("curve", "kind", "rule", "step"),
    [
        (np.full(20, 2.0), "not_learning", "stagnated loss", 49),
        (2.0 ** np.arange(20), "diverging", "diverging loss", 49),
        (np.tile([2.0, 1.0], 10), "diverging", "fluctuating loss", 49),
    ],
)
def test_deepchecker_judges_the_loss_curve_only_if_asked(curve, kind, rule, step):
    record = replace(clean(), losses=np.repeat(curve, 10))
    assert said(TheDeepChecker(with_loss=False), record) == {}
    assert said(TheDeepChecker(with_loss=True), record)[kind, rule] == step


# --- torchmortem ---------------------------------------------------------------------------


def test_torchmortem_speaks_at_the_end_of_the_second_half():
    record = clean()
    record.outputs.grad_norm[:95, 0] = 1e-4  # the first half
    assert said(Torchmortem(with_saturation=False), record) == {}
    record.outputs.grad_norm[95:, 0] = 9e-4
    assert said(Torchmortem(with_saturation=False), record) == {
        ("vanishing", "gradient_flow: vanishing"): STEPS - 1
    }


@pytest.mark.parametrize(
    ("trace", "column", "value", "kind", "rule"),
    [
        ("outputs", "grad_norm", 1001.0, "exploding", "gradient_flow: exploding"),
        ("outputs", "near_zero", 0.51, "dead", "dead_units"),
        ("parameters", "update_norm", 1.2e-5, "not_learning", "update_ratio: low"),
        ("parameters", "update_norm", 0.2, "diverging", "update_ratio: high"),
        ("parameters", "weight_norm", 1.0, "not_learning", "weight_norm: stagnation"),
    ],
)
def test_torchmortem_limits(trace, column, value, kind, rule):
    record = clean()
    getattr(getattr(record, trace), column)[:] = value
    assert said(Torchmortem(with_saturation=False), record) == {(kind, rule): STEPS - 1}


def test_torchmortem_speaks_of_saturation_only_if_asked():
    record = clean()
    record.outputs.near_one[:150, 2] = 0.51  # half of the second half
    assert said(Torchmortem(with_saturation=False), record) == {}
    found = said(Torchmortem(with_saturation=True), record)
    assert found == {("saturated", "saturation"): STEPS - 1}


def test_torchmortem_sees_stalled_layers_and_grown_weights():
    record = clean()
    record.outputs.grad_norm[:61, 2] = 1e-9
    record.parameters.weight_norm[-1, 0] = 10.1
    assert said(Torchmortem(with_saturation=False), record) == {
        ("vanishing", "gradient_flow: stalling"): STEPS - 1,
        ("exploding", "weight_norm: explosion"): STEPS - 1,
    }


def test_torchmortem_sees_rising_and_flat_losses():
    rising = replace(clean(), losses=1.1 ** np.arange(STEPS))
    assert said(Torchmortem(with_saturation=False), rising) == {
        ("diverging", "loss_dynamics: divergence"): STEPS - 1
    }
    flat = replace(clean(), losses=np.ones(STEPS))
    assert said(Torchmortem(with_saturation=False), flat) == {
        ("not_learning", "loss_dynamics: plateau"): STEPS - 1
    }


# --- Signals -------------------------------------------------------------------------------


class Pair(nn.Module):
    """Two layers of one unit or two, with an activation between that works in place."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(1, 2, bias=False)
        self.act = nn.ReLU(inplace=True)
        self.last = nn.Linear(2, 1, bias=False)
        self.frozen = nn.Parameter(torch.ones(1), requires_grad=False)
        with torch.no_grad():
            self.first.weight.copy_(torch.tensor([[1.0], [-1.0]]))
            self.last.weight.copy_(torch.tensor([[2.0, 3.0]]))

    def forward(self, inputs):
        return self.last(self.act(self.first(inputs)))


def pair_training() -> Training:
    model = Pair()
    inputs = torch.tensor([[1.0], [3.0]])
    return Training(
        model=model,
        optimizers=[torch.optim.SGD(model.parameters(), lr=0.1)],
        batch=lambda _: inputs,
        loss=lambda batch, _: model(batch).sum(),
        score=lambda: float(model(inputs).mean()),
    )


@pytest.fixture(scope="module")
def pair() -> Record:
    return train(pair_training, 25, 0, watcher=Signals).signals


def test_gradients_and_updates_are_those_of_a_hand_computed_network(pair):
    # Loss 2 (1 + 3) = 8. Gradients: of the first layer [2 (1 + 3), 0], of the last [1 + 3, 0].
    seen = pair.parameters
    assert seen.names == ("frozen", "first.weight", "last.weight")
    assert pair.losses[0] == 8.0
    np.testing.assert_allclose(seen.grad_norm[0], [NAN, 8.0, 4.0])
    np.testing.assert_allclose(seen.grad_mean[0], [NAN, 4.0, 2.0])
    np.testing.assert_allclose(seen.grad_zeros[0], [NAN, 0.5, 0.5])
    np.testing.assert_allclose(seen.grad_spread[0], [NAN, 0.9 * 8.0, 0.9 * 4.0], rtol=1e-6)
    np.testing.assert_allclose(seen.weight_mean[0], [NAN, 1.0, 2.5])
    np.testing.assert_allclose(seen.update_mean[0], [NAN, 0.4, 0.2], rtol=1e-6)
    np.testing.assert_allclose(seen.update_norm[0], [NAN, 0.8, 0.4], rtol=1e-6)
    after = [NAN, np.hypot(0.2, 1.0), np.hypot(1.6, 3.0)]
    np.testing.assert_allclose(seen.weight_norm[0], after, rtol=1e-6)
    assert np.isnan(seen.grad_spread[10:]).all()


def test_outputs_are_those_of_a_hand_computed_network(pair):
    outputs = pair.outputs
    assert (outputs.names, outputs.families) == (("first", "act", "last"), ("", "relu", ""))
    # The ReLU gives [1, 0] and [3, 0]; its inputs are [1, -1] and [3, -3].
    np.testing.assert_allclose(outputs.mean[0], [0.0, 1.0, 4.0])
    np.testing.assert_allclose(outputs.std[0], [NAN, np.sqrt(1.5), NAN], rtol=1e-6)
    np.testing.assert_allclose(outputs.near_zero[0], [0.0, 0.5, 0.0])
    np.testing.assert_allclose(outputs.near_one[0], [1.0, 0.5, 1.0])
    np.testing.assert_allclose(outputs.dead_units[0], [NAN, 0.5, NAN])
    np.testing.assert_allclose(outputs.idle_units[0], [NAN, 0.5, NAN])
    np.testing.assert_allclose(outputs.input_variance[0], [NAN, 5.0, NAN])
    # With respect to the outputs: [[2, 0], [2, 0]], [[2, 3], [2, 3]] and [[1], [1]].
    np.testing.assert_allclose(outputs.grad_norm[0], np.sqrt([8.0, 26.0, 2.0]), rtol=1e-6)


def test_a_record_is_pickled_and_scored_by_epoch(pair):
    copy = pickle.loads(pickle.dumps(pair))  # noqa: S301 - made in this line
    np.testing.assert_array_equal(copy.parameters.grad_norm, pair.parameters.grad_norm)
    assert (len(pair.steps), len(pair.scores)) == (25, 1)


def test_units_at_the_flat_end():
    def build():
        model = nn.Sequential(nn.Linear(1, 2), nn.Tanh(), nn.Linear(2, 2), nn.Sigmoid())
        with torch.no_grad():
            model[0].weight.copy_(torch.tensor([[20.0], [1.0]]))
            model[0].bias.zero_()
            model[2].weight.zero_()
            model[2].bias.copy_(torch.tensor([17.0, -22.0]))
        return Training(
            model=model,
            optimizers=[torch.optim.SGD(model.parameters(), lr=0.0)],
            batch=lambda _: torch.tensor([[1.0], [-1.0]]),
            loss=lambda batch, _: model(batch).sum(),
            score=lambda: 0.0,
        )

    outputs = train(build, 1, 0, watcher=Signals).signals.outputs
    np.testing.assert_allclose(outputs.flat_units[0], [NAN, 0.5, NAN, 0.5])
    np.testing.assert_allclose(outputs.saturated_units[0], [NAN, 0.5, NAN, 1.0])


class Recurrent(nn.Module):
    """A model with a sparse embedding, an LSTM and dropout; the last layer is called twice."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(11, 4, sparse=True)
        self.lstm = nn.LSTM(4, 3, batch_first=True)
        self.drop = nn.Dropout(0.3)
        self.norm = nn.BatchNorm1d(3)
        self.unused = nn.Linear(3, 3)
        self.head = nn.Linear(3, 3)

    def forward(self, tokens):
        states, _ = self.lstm(self.embedding(tokens))
        return self.head(torch.relu(self.head(self.norm(self.drop(states[:, -1])))))


def recurrent_training() -> Training:
    model = Recurrent()
    dense = [p for name, p in model.named_parameters() if not name.startswith("embedding")]

    def batch(_):
        return torch.randint(11, (6, 5))

    return Training(
        model=model,
        optimizers=[
            torch.optim.SGD(dense, lr=0.1, momentum=0.9),
            torch.optim.SparseAdam(model.embedding.parameters(), lr=0.01),
        ],
        batch=batch,
        loss=lambda tokens, _: model(tokens).square().mean(),
        score=lambda: float(model(batch(0)).mean()),
        accumulate=2,
    )


def test_watching_changes_no_bit_of_a_training():
    models = []

    def build():
        training = recurrent_training()
        models.append(training.model)
        return training

    train(build, 60, 3)
    train(build, 60, 3, watcher=Signals)
    plain, watched = (model.state_dict() for model in models)
    assert all(torch.equal(plain[name], watched[name]) for name in plain)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in models[1].modules())


def test_each_optimizer_has_rows_of_its_own():
    record = train(recurrent_training, 3, 0, watcher=Signals).signals
    assert record.steps.tolist() == [0, 0, 1, 1, 2, 2]
    names, norms = record.parameters.names, record.parameters.grad_norm
    embedding, head = names.index("embedding.weight"), names.index("head.weight")
    unused = names.index("unused.weight")
    assert np.isnan(norms[0::2, embedding]).all()
    assert np.isnan(norms[1::2, head]).all()
    assert np.isnan(norms[:, unused]).all()
    assert (norms[1::2, embedding] > 0.0).all()
    assert (norms[0::2, head] > 0.0).all()
    assert not np.isnan(record.by_step(norms)[:, [embedding, head]]).any()
    assert (record.outputs.grad_norm[:, record.outputs.names.index("lstm")] > 0.0).all()


def test_a_gradient_that_is_not_finite_is_recorded_as_infinite():
    def build():
        training = pair_training()
        return replace(training, batch=lambda step: torch.full((2, 1), NAN if step == 2 else 1.0))

    record = train(build, 4, 0, watcher=Signals).signals
    assert np.isinf(record.parameters.grad_norm[2, 1:]).all()
    assert np.isfinite(record.parameters.grad_norm[:2, 1:]).all()
    assert np.isinf(record.outputs.mean[2]).all()
