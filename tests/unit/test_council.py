"""Several remedies, one verdict."""

from __future__ import annotations

import logging

import pytest
import torch

from lightning_gradguard import remedies
from lightning_gradguard.remedies import (
    AutoClip,
    Clamp,
    ClipNorm,
    GoBack,
    LearningRate,
    Only,
    Remedy,
    Robust,
    Scale,
    ScaleUnits,
    Skip,
    Stop,
)
from lightning_gradguard.remedies.council import Council, Verdict, name_of
from lightning_gradguard.remedies.testing import moment_of
from lightning_gradguard.remedies.traits import acts_of
from tests.clipping_oracles import SPIKES
from tests.strategies import through_json


class Says:
    """Decides always the same; an error is raised."""

    def __init__(self, *answers):
        self.answers = answers

    def decide(self, moment):
        if isinstance(self.answers[0], Exception):
            raise self.answers[0]
        return self.answers if self.answers[0] is not None else None


def flag(value):
    return Skip(torch.tensor(value) > 0, f"says {value}")


def test_decisions_are_sorted_by_what_they_are_about() -> None:
    clips = [Scale(torch.tensor(0.5), "a"), ScaleUnits({}, "b"), Clamp(1.0, "c")]
    verdict = Verdict.of([*clips, flag(1), LearningRate(0.5), GoBack(3, "w"), Stop("s")])
    assert list(verdict.clips) == clips
    assert [len(part) for part in (verdict.skips, verdict.rates)] == [1, 1]
    assert (verdict.rollback, verdict.stop) == (GoBack(3, "w"), Stop("s"))


def test_the_farthest_way_back_holds_and_an_error_beats_a_stop() -> None:
    back = [GoBack(9, "a"), GoBack(2, "b"), GoBack(5, "c")]
    stops = [Stop("quiet"), Stop("loud", as_error=True), Stop("quiet, too")]
    verdict = Verdict.of([*back, *stops])
    assert (verdict.rollback, verdict.stop) == (back[1], stops[1])


def test_nothing_decided_is_an_empty_verdict() -> None:
    verdict = Verdict.of([])
    assert (verdict.skip, verdict.rollback, verdict.stop) == (None, None, None)
    assert verdict.lr_factors(2) == [1.0, 1.0]


@pytest.mark.parametrize("flags", [[False], [True], [False, False], [False, True], [True, False]])
def test_a_step_is_left_out_if_anybody_wants_that(flags) -> None:
    assert bool(Verdict.of([flag(value) for value in flags]).skip) is any(flags)


def test_of_several_rates_the_smallest_holds_for_each_group() -> None:
    rates = [LearningRate(0.5), LearningRate(0.25, groups=[1]), LearningRate(0.75, groups=[0, 2])]
    assert Verdict.of(rates).lr_factors(3) == [0.5, 0.25, 0.5]


@pytest.mark.parametrize("factor", [2.0, 0.0, -0.5, float("nan")])
def test_a_rate_above_the_users_own_or_none_at_all_is_not_given(factor) -> None:
    with pytest.raises(ValueError, match=f"`factor` must be .*, got {factor}"):
        LearningRate(factor)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: Scale(torch.ones(2, 2), "s"),
            TypeError,
            "`factors` must be a tensor of real numbers of shape () or (members,), got tensor",
        ),
        (lambda: Scale(0.5, "s"), TypeError, "or (members,), got 0.5."),
        (lambda: Skip(when=1, why="s"), TypeError, "real numbers of shape (), got 1."),
        (lambda: Skip(torch.ones(1), "s"), TypeError, "real numbers of shape (), got tensor([1.])"),
        (
            lambda: Skip(torch.tensor(torch.nan), "s"),
            TypeError,
            "`when` must be a tensor of one True or False, got tensor(nan): compare first.",
        ),
        (lambda: Skip(torch.tensor(1) > 0, None), TypeError, "`why` must be a text, got None."),
        (lambda: Stop("s", as_error="no"), TypeError, "must be True or False, got 'no'."),
        (
            lambda: LearningRate(0.5, groups=0),
            TypeError,
            "`groups` must be a list of positions, such as [0, 1], got 0.",
        ),
        (lambda: ScaleUnits([0.5], "u"), TypeError, "must be a dict from positions to tensors"),
        (
            lambda: ScaleUnits({0: torch.ones(3)}, "u", norms={0: torch.ones(2)}),
            ValueError,
            "`norms` must have one number per factor, {0: 3}, got {0: 2}.",
        ),
        (lambda: Clamp(-1.0, "v"), ValueError, "`limit` must be a number above 0, got -1.0."),
        (lambda: GoBack(-1, "w"), ValueError, "`before_step` must be a whole number of at least 0"),
    ],
)
def test_a_decision_that_makes_no_sense_cannot_be_made(make, error, message) -> None:
    with pytest.raises(error) as caught:
        make()
    assert message in str(caught.value)


def test_what_is_no_decision_is_refused_with_the_names_of_those_there_are() -> None:
    with pytest.raises(TypeError) as caught:
        Council.of([Says(Stop("s"), "skip")], on_error="raise").ask(moment_of([1.0]))
    assert str(caught.value) == (
        "A remedy must return Scale, ScaleUnits, Clamp, Skip, LearningRate, GoBack, Stop, "
        "got 'skip'."
    )


def test_everybody_is_asked_in_order_and_may_say_nothing() -> None:
    council = Council.of([Says(Stop("a")), Says(None), Says(Clamp(1.0, "v")), ClipNorm()])
    verdict = council.ask(moment_of([3.0]))
    assert [clip.name for clip in verdict.clips] == ["v", "norm"]
    assert verdict.stop == Stop("a")


@pytest.mark.parametrize("broken", [Says(RuntimeError("no way")), Says("nonsense"), Says(3)])
def test_a_remedy_that_fails_is_reported_once_and_the_others_go_on(broken, caplog) -> None:
    council = Council.of([broken, ClipNorm(1.0)])
    with caplog.at_level(logging.CRITICAL):
        verdicts = [council.ask(moment_of([4.0], step=step)) for step in (7, 8)]
    assert [v.clips[0].factors.item() for v in verdicts] == [0.25, 0.25]
    (reason,) = council.given_up
    assert reason.startswith("Says failed at step 7: ")
    assert [record.message for record in caplog.records] == [
        f"gradguard: the run is no longer protected by a remedy. {reason}"
    ]


def test_an_error_is_raised_where_that_was_asked_for() -> None:
    with pytest.raises(RuntimeError, match="no way"):
        Council.of([Says(RuntimeError("no way"))], on_error="raise").ask(moment_of([1.0]))


def test_a_remedy_does_only_what_it_says_of_itself() -> None:
    says = Says(Clamp(1.0, "v"), flag(1))
    says.acts = frozenset({"clip"})
    council = Council.of([says, ClipNorm(1.0)])
    verdict = council.ask(moment_of([4.0]))
    assert (len(verdict.clips), verdict.skip) == (1, None)
    assert "`acts` must have 'skip' for a remedy that returns Skip(" in council.given_up[0]


def test_every_remedy_of_ours_says_what_it_does_and_others_may_do_everything() -> None:
    ours = [kind for kind in vars(remedies).values() if hasattr(kind, "decide")]
    ours = [kind for kind in ours if kind is not Remedy]
    assert len(ours) > 10
    assert all(hasattr(kind, "acts") for kind in ours)
    assert acts_of(Says(None)) == {"clip", "skip", "learning rate", "rollback", "stop"}


@pytest.mark.parametrize("acts", ["clip", {"clips"}, ("clip",), None])
def test_words_that_nobody_knows_are_refused(acts) -> None:
    says = Says(None)
    says.acts = acts
    with pytest.raises(
        ValueError, match=r"`acts` of Says must be a set of some of 'clip', .*, got"
    ):
        acts_of(says)


def test_each_optimizer_has_its_own_copies() -> None:
    remedy = AutoClip()
    first, second = Council.of([remedy]), Council.of([remedy])
    first.ask(moment_of([1.0]))
    assert second.state_dict()[0]["state"] == remedy.state_dict()
    assert first.state_dict()[0]["state"] != remedy.state_dict()


def test_autograd_does_not_follow_remedies() -> None:
    class Asks:
        def decide(self, moment):
            return [Stop(f"{torch.is_grad_enabled()}")]

    assert Council.of([Asks()]).ask(moment_of([1.0])).stop == Stop("False")


def council():
    return Council.of(
        [AutoClip(50.0), ClipNorm(), Only("layer", Robust(warmup_steps=2)), AutoClip()]
    )


def test_state_goes_back_to_the_remedy_it_came_from() -> None:
    first = council()
    for norm in SPIKES[:20]:
        first.ask(moment_of([norm]))
    resumed = through_json(first, council())
    assert resumed.state_dict() == first.state_dict()
    assert [saved["type"] for saved in first.state_dict()] == [
        "AutoClip",
        "Only(Robust)",
        "AutoClip",
    ]


def test_a_remedy_that_is_new_starts_afresh_and_one_that_is_gone_is_passed_over() -> None:
    first = council()
    first.ask(moment_of([2.0]))
    other = Council.of([Robust(), AutoClip(50.0)])
    other.load_state_dict(first.state_dict())
    assert other.state_dict()[0]["state"] == Robust().state_dict()
    assert other.state_dict()[1] == first.state_dict()[0]


def test_a_remedy_is_anything_with_the_one_method() -> None:
    assert isinstance(Says(None), Remedy)
    assert not isinstance("norm", Remedy)
    assert name_of(Only("*", Only("*", ClipNorm()))) == "Only(Only(ClipNorm))"


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (LearningRate(0.5, groups=[0, 4]), "`groups` must be among 1 positions, got [4]."),
        (Clamp(1.0, "v", members=[0, 1]), "`members` must be among 1 positions, got [1]."),
        (ScaleUnits({-1: torch.ones(1)}, "u"), "`members` must be among 1 positions, got [-1]."),
        (Scale(torch.ones(3), "s"), "`factors` must be one for all or one per member (1), got"),
        (ScaleUnits({0: torch.ones(3)}, "u"), "one per output unit, {0: 1} by member, got {0: 3}."),
    ],
)
def test_a_decision_about_what_is_not_there_ends_only_its_remedy(answer, message) -> None:
    council = Council.of([Says(answer), ClipNorm(1.0)])
    verdict = council.ask(moment_of([4.0]))
    assert message in council.given_up[0]
    assert verdict.clips[0].factors.item() == 0.25
    assert verdict.lr_factors(2) == [1.0, 1.0]
