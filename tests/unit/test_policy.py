"""From short names to remedies."""

from __future__ import annotations

import math

import pytest

from lightning_gradguard.policy import CLIPPERS, auto_policy, clippers, responses
from lightning_gradguard.remedies import (
    ClipNorm,
    Only,
    ReduceLearningRate,
    Remedy,
    Rollback,
    SkipLossSpike,
    SkipNonFinite,
    SkipOutlier,
    StopTraining,
)
from tests.clipping_oracles import roster_of_layers

CHOICES = ["skip", "reduce_lr", "rollback", "stop", "raise"]


@pytest.mark.parametrize(("name", "kind"), CLIPPERS.items())
def test_a_clipper_has_a_name_and_is_made_anew(name, kind) -> None:
    (first,), (second,) = clippers(name), clippers(name)
    assert type(first) is kind
    assert first is not second


def test_a_number_is_a_largest_norm_and_a_remedy_is_itself() -> None:
    remedy = ClipNorm(2.0, per="layer")
    assert clippers(remedy) == [remedy]
    assert [clippers(norm)[0].max_norm for norm in (0.5, 3)] == [0.5, 3.0]
    assert clippers(None) == []


def test_of_several_globs_the_first_that_matches_holds() -> None:
    wanted = clippers({"critic.*": "agc", "*.bias": 2.0, "*": 1.0})
    names = ["critic.0.weight", "critic.0.bias", "actor.0.bias", "actor.0.weight"]
    members = roster_of_layers(dict.fromkeys(names)).members
    owners = [[i for i, only in enumerate(wanted) if only.matches(m)] for m in members]
    assert owners == [[0], [0], [1], [2]]
    assert [only.remedy.max_norm for only in wanted[1:]] == [2.0, 1.0]


@pytest.mark.parametrize(
    ("fault", "answer", "kind"),
    [
        ("nonfinite", "skip", SkipNonFinite),
        ("exploding", "skip", SkipOutlier),
        ("loss_spike", "skip", SkipLossSpike),
        ("diverging", "reduce_lr", ReduceLearningRate),
        ("diverging", "rollback", Rollback),
        ("nonfinite", "stop", StopTraining),
        ("vanishing", "raise", StopTraining),
    ],
)
def test_each_answer_to_a_fault_is_a_remedy_for_that_fault(fault, answer, kind) -> None:
    (remedy,) = responses(fault, answer, CHOICES)
    assert type(remedy) is kind
    assert getattr(remedy, "kinds", (fault,)) == (fault,)
    assert getattr(remedy, "as_error", False) is (answer == "raise")


def test_answers_may_differ_by_layer() -> None:
    first, second = responses("nonfinite", {"critic.*": "skip", "*": "stop"}, CHOICES)
    assert isinstance(first, Only)
    assert isinstance(first.remedy, SkipNonFinite)
    assert (second.layers, second.exclude) == (("*",), ("critic.*",))
    assert isinstance(second.remedy, StopTraining)
    assert responses("nonfinite", None, CHOICES) == []


def test_the_automatic_policy_is_made_of_fresh_remedies() -> None:
    first, second = auto_policy(), auto_policy()
    assert all(isinstance(remedy, Remedy) for remedy in first)
    assert [type(remedy) for remedy in first] == [type(remedy) for remedy in second]
    assert not {id(remedy) for remedy in first} & {id(remedy) for remedy in second}
    assert any(isinstance(remedy, SkipNonFinite) for remedy in first)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: clippers("gauss"),
            ValueError,
            "'autoclip', 'zclip', 'agc', 'robust', a largest norm or a remedy, got 'gauss'.",
        ),
        (lambda: clippers(-1.0), ValueError, "`max_norm` must be a number above 0, got -1.0."),
        (lambda: clippers(math.nan), ValueError, "`max_norm` must be a number above 0, got nan."),
        (
            lambda: clippers(clip=True),
            TypeError,
            "`clip` must be a name, a largest norm, a remedy or a dict of these, got True.",
        ),
        (lambda: clippers([1.0]), TypeError, "a remedy or a dict of these, got [1.0]."),
        (lambda: clippers(ClipNorm), TypeError, "a remedy or a dict of these, got <class"),
        (lambda: clippers({}), ValueError, "must name at least one glob of layers"),
        (lambda: clippers({"*": "gauss"}), ValueError, "got 'gauss'."),
        (
            lambda: responses("exploding", "rollback", ["skip", "stop"]),
            ValueError,
            "`on_exploding` must be one of 'skip', 'stop', got 'rollback'.",
        ),
        (lambda: responses("exploding", {"*": 3}, ["skip"]), ValueError, "one of 'skip', got 3."),
        (lambda: responses("exploding", ["skip"], ["skip"]), ValueError, "got ['skip']."),
        (lambda: responses("exploding", {}, ["skip"]), ValueError, "`on_exploding` must"),
        (
            lambda: responses("exploding", {"*": {"a": "skip"}}, ["skip"]),
            ValueError,
            "`on_exploding` must be one of 'skip', got {'a': 'skip'}.",
        ),
        (
            lambda: responses("nonfinite", {3: "skip"}, ["skip"]),
            TypeError,
            '`on_nonfinite` must have globs of layers as keys, as in {"critic.*": "skip"}, got 3.',
        ),
        (
            lambda: clippers(Only("*", SkipNonFinite())),
            ValueError,
            "`clip` must be a remedy that clips, got Only. Give it to `remedies`.",
        ),
        (lambda: clippers({1: "agc"}), TypeError, "`clip` must have globs of layers as keys"),
    ],
)
def test_what_nobody_knows_is_refused_with_the_choices(make, error, message) -> None:
    with pytest.raises(error) as caught:
        make()
    assert message in str(caught.value)
