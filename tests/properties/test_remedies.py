"""Laws of everything that remembers: stopping changes nothing, and NaN never enters."""

from __future__ import annotations

import copy
import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_gradguard.audit import Action, Audit
from lightning_gradguard.budget import Budget
from lightning_gradguard.errors import TrainingStoppedError
from lightning_gradguard.remedies import (
    AGC,
    AutoClip,
    ClipNorm,
    ClipValue,
    OnceSlowed,
    Only,
    ReduceLearningRate,
    Robust,
    Rollback,
    SkipLossSpike,
    SkipNonFinite,
    SkipOutlier,
    StopTraining,
    ZClip,
)
from lightning_gradguard.remedies.council import Council
from lightning_gradguard.remedies.testing import trouble
from tests.clipping_oracles import factors_of, moment_of_layers
from tests.strategies import make_frame, through_json

KINDS = ("diverging", "exploding", "nonfinite")
REMEDIES = {
    "agc": AGC,
    "autoclip": lambda: AutoClip(40.0, window=6),
    "autoclip per layer": lambda: AutoClip(40.0, window=6, per="layer"),
    "norm": lambda: ClipNorm(2.0, per="unit"),
    "once slowed": lambda: OnceSlowed(Robust(warmup_steps=2), below=0.7),
    "only": lambda: Only("a", ZClip(1.0, warmup_steps=3)),
    "outlier": lambda: SkipOutlier(2.0, min_factor=1.5, window=6, warmup_steps=3, patience_steps=2),
    "nonfinite": SkipNonFinite,
    "loss spike": lambda: SkipLossSpike(1.0, window=6, warmup_steps=3),
    "reduce_lr": lambda: ReduceLearningRate(KINDS[:2], cooldown_steps=3, recovery_steps=4),
    "robust": lambda: Robust(1.0, window=6, warmup_steps=3, per="group"),
    "robust per unit": lambda: Robust(1.0, window=6, warmup_steps=3, per="unit"),
    "rollback": lambda: Rollback(
        KINDS,
        margin_steps=2,
        patience_steps=2,
        rate=ReduceLearningRate(KINDS, cooldown_steps=2, recovery_steps=3),
    ),
    "stop": lambda: StopTraining(KINDS),
    "value": ClipValue,
    "zclip": lambda: ZClip(1.0, warmup_steps=3, per="layer"),
}
every_remedy = pytest.mark.parametrize("make", REMEDIES.values(), ids=REMEDIES)

sizes = st.floats(0.01, 100.0) | st.sampled_from([0.0, math.nan, math.inf, 1e20, 1e-25, 1e3])
steps = st.fixed_dictionaries(
    {
        "a": sizes,
        "b": st.none() | sizes,
        "loss": st.none() | sizes,
        "fault": st.none() | st.sampled_from(KINDS),
        "is_first_look": st.sampled_from([True, True, True, False]),
        "lr_factor": st.sampled_from([1.0, 1.0, 0.5]),
    }
)
runs = st.lists(steps, max_size=14)
SHAPE = torch.tensor([[3.0, 4.0], [0.0, 1.0]], dtype=torch.float64)


def moments_of(run, *, names=("a", "b"), scale=1.0):
    """Return the moments of a run; made once, since layers that stay are the same ones."""
    found = []
    for number, told in enumerate(run):
        here = {f"{names[0]}.w": scale * told["a"] * SHAPE, f"{names[1]}.w": None}
        if told["b"] is not None:
            here[f"{names[1]}.w"] = scale * told["b"] * torch.ones(2, dtype=torch.float64)
        faults = [] if told["fault"] is None else [trouble(told["fault"], step=number)]
        loss = None if told["loss"] is None else scale * torch.tensor(told["loss"]).double()
        moment = moment_of_layers(
            here,
            weights={f"{names[0]}.w": torch.ones(2, 2, dtype=torch.float64)},
            loss=loss,
            episodes=faults,
            frames=[make_frame(number, bad=[0] if told["fault"] == "nonfinite" else [])],
            is_first_look=told["is_first_look"],
            lr_factor=told["lr_factor"],
        )
        object.__setattr__(moment, "step", number + 1)
        found.append(moment)
    return found


def plain(value):
    """Return decisions as text that is the same for the same decisions."""
    if isinstance(value, torch.Tensor):
        return repr(value.tolist())
    if isinstance(value, dict):
        return repr({key: plain(item) for key, item in value.items()})
    if hasattr(value, "__dataclass_fields__"):
        fields = {name: plain(getattr(value, name)) for name in value.__dataclass_fields__}
        return f"{type(value).__name__} {fields}"
    return repr([plain(v) for v in value]) if isinstance(value, (list, tuple)) else repr(value)


def state_of(remedy):
    return remedy.state_dict() if hasattr(remedy, "state_dict") else None


@every_remedy
@given(run=runs, stop=st.integers(0, 14))
def test_stopping_anywhere_changes_no_decision(make, run, stop) -> None:
    whole, parts = make(), make()
    for number, moment in enumerate(moments_of(run)):
        if number == stop and hasattr(parts, "state_dict"):
            parts = through_json(parts, make())
        assert plain(parts.decide(moment)) == plain(whole.decide(moment))
    assert state_of(parts) == state_of(whole)


@given(run=runs, stop=st.integers(0, 14))
def test_stopping_anywhere_changes_no_verdict_of_all_together(run, stop) -> None:
    remedies = [make() for make in REMEDIES.values()]
    whole, parts = (Council.of(remedies, on_error="raise") for _ in range(2))
    for number, moment in enumerate(moments_of(run)):
        if number == stop:
            parts = through_json(parts, Council.of(remedies, on_error="raise"))
        assert plain(parts.ask(moment)) == plain(whole.ask(moment))


@every_remedy
@given(run=runs)
def test_nan_and_infinity_never_enter_the_state(make, run) -> None:
    remedy = make()
    for moment in moments_of(run):
        remedy.decide(moment)
        json.dumps(state_of(remedy), allow_nan=False)
        numbers = (state_of(remedy) or {}).get("numbers", {})
        for name in {"count", "mean", "variance"} & set(numbers):
            assert None not in numbers[name][0]


RELATIVE = {
    "autoclip": lambda: AutoClip(40.0),
    "robust": lambda: Robust(1.0, warmup_steps=3),
    "outlier": lambda: SkipOutlier(2.0, min_factor=1.5, warmup_steps=3, patience_steps=2),
    "zclip": lambda: ZClip(1.0, warmup_steps=3, max_norm=None),
}


@pytest.mark.parametrize("make", RELATIVE.values(), ids=RELATIVE)
@given(run=runs, power=st.sampled_from([-40, -2, 1, 10, 40]))
def test_rescaling_all_gradients_moves_no_decision_of_relative_remedies(make, run, power) -> None:
    mine, theirs = make(), make()
    both = zip(moments_of(run), moments_of(run, scale=2.0**power), strict=True)
    for moment, scaled in both:
        for one, other in zip(mine.decide(moment), theirs.decide(scaled), strict=True):
            if hasattr(one, "when"):
                assert one.when == other.when
            else:
                torch.testing.assert_close(one.factors, other.factors, rtol=1e-6, atol=0.0)


PER_LAYER = {
    name: make
    for name, make in REMEDIES.items()
    if name not in {"only", "stop", "rollback", "reduce_lr"}
}


@pytest.mark.parametrize("make", PER_LAYER.values(), ids=PER_LAYER)
@given(run=runs)
def test_renaming_layers_renames_segments_only(make, run) -> None:
    mine, theirs = make(), make()
    both = zip(moments_of(run), moments_of(run, names=("x", "y")), strict=True)
    for moment, renamed in both:
        assert plain(mine.decide(moment)) == plain(theirs.decide(renamed))
    renamed_state = json.dumps(state_of(mine)).replace('"a', '"x').replace('"b', '"y')
    assert json.dumps(state_of(theirs)) == renamed_state


@pytest.mark.parametrize("name", ["autoclip", "robust", "zclip"])
@given(
    norms=st.lists(st.floats(0.01, 100.0), min_size=1, max_size=25),
    bad=st.lists(st.tuples(st.integers(0, 25), st.sampled_from([math.nan, math.inf, 0.0]))),
)
def test_what_is_no_norm_leaves_no_trace_in_later_decisions(name, norms, bad) -> None:
    make = RELATIVE[name]
    mixed, places = [], []
    for i, norm in enumerate(norms):
        mixed += [poison for place, poison in bad if place == i]
        places.append(len(mixed))
        mixed.append(norm)
    found = factors_of(make(), mixed)
    assert [found[i] for i in places] == pytest.approx(factors_of(make(), norms))


notes = st.tuples(
    st.sampled_from(["clip", "skip", "reduce_lr", "sing"]),
    st.floats(allow_nan=True, allow_infinity=True),
    st.booleans(),
)


@given(history=st.lists(notes, max_size=30), stop=st.integers(0, 30), dry_run=st.booleans())
def test_stopping_anywhere_changes_no_line_of_the_audit(history, stop, dry_run) -> None:
    whole, parts = Audit(dry_run=dry_run), Audit(dry_run=dry_run)
    for step, (what, number, is_step) in enumerate(history):
        if step == stop:
            parts = through_json(parts, Audit(dry_run=dry_run))
        for audit in (whole, parts):
            if is_step:
                audit.note_step(number)
            else:
                audit.note(Action(what=what, step=step, numbers={"norm": number}, dry_run=dry_run))
    assert list(parts.lines()) == list(whole.lines())
    assert parts.state_dict() == whole.state_dict()
    json.dumps(parts.state_dict(), allow_nan=False)


@given(
    flags=st.lists(st.tuples(st.integers(0, 1), st.booleans()), max_size=60),
    stop=st.integers(0, 60),
)
def test_stopping_anywhere_changes_nothing_about_the_budget(flags, stop) -> None:
    def note(budget, step, index, flag):
        try:
            budget.note(index, step, skipped=flag)
        except TrainingStoppedError as error:
            return str(error)
        return None

    make = lambda: Budget(3, 0.5, min_steps=6)  # noqa: E731
    whole, parts = make(), make()
    for step, (index, flag) in enumerate(flags):
        if step == stop:
            parts = through_json(parts, make())
        assert note(parts, step, index, flag) == note(whole, step, index, flag)


@every_remedy
def test_a_copy_goes_its_own_way(make) -> None:
    remedy = make()
    told = {"loss": 2.0, "fault": "diverging", "is_first_look": True, "lr_factor": 0.5}
    moments = moments_of([{"a": 1.0 + i % 3, "b": 2.0, **told} for i in range(9)])
    for moment in moments:
        remedy.decide(moment)
    before = copy.deepcopy(state_of(remedy))
    (other,) = Council.of([remedy]).remedies
    for moment in moments:
        other.decide(moment)
    assert state_of(remedy) == before
