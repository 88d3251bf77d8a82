"""A remedy for a part of the model, and one that waits until rates have been cut."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lightning_gradguard.actions.clipping import clip_
from lightning_gradguard.errors import GradGuardError
from lightning_gradguard.remedies import (
    AGC,
    Clamp,
    ClipNorm,
    ClipValue,
    Moment,
    OnceSlowed,
    Only,
    ReduceLearningRate,
    Robust,
    Rollback,
    ScaleUnits,
    SkipNonFinite,
    SkipOutlier,
    Stop,
    StopTraining,
)
from lightning_gradguard.remedies.gradients import Gradients
from lightning_gradguard.remedies.testing import moment_of, trouble
from lightning_gradguard.remedies.traits import acts_of, acts_on_findings, find, may_skip
from lightning_gradguard.rosters import roster_of
from tests.clipping_oracles import SPIKES, moment_of_layers
from tests.strategies import through_json


def net():
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2))
    model(torch.randn(5, 3)).square().sum().backward()
    return model


def gradients_of(model):
    return Gradients.of(roster_of(model, torch.optim.SGD(model.parameters(), lr=0.1), {}))


def clipped(model, remedy):
    """Return the gradients after a remedy, and the coefficient that was told."""
    gradients = gradients_of(model)
    coefficient = clip_(gradients, remedy.decide(Moment(step=0, gradients=gradients)))
    return [p.grad.clone() for p in model.parameters()], coefficient.item()


def norm_of(tensors):
    return torch.linalg.vector_norm(torch.cat([t.flatten() for t in tensors]).double()).item()


@pytest.mark.parametrize(
    "remedy",
    [ClipNorm(1e-3), ClipNorm(1e-3, per="layer"), ClipNorm(1e-3, per="unit"), AGC(1e-3)],
    ids=["model", "layer", "unit", "agc"],
)
@pytest.mark.usefixtures("backend")
def test_a_part_is_clipped_as_if_it_were_alone(remedy) -> None:
    model, alone = net(), nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    before = [p.grad.clone() for p in model.parameters()]
    for mine, theirs in zip(
        alone.parameters(), [*model[1].parameters(), *model[2].parameters()], strict=True
    ):
        mine.data.copy_(theirs)
        mine.grad = theirs.grad.clone()
    roster = [m for m in gradients_of(model).roster.members if m.layer in {"1", "2"}]
    gradients = Gradients.of(type(gradients_of(model).roster)(tuple(roster)))
    own, _ = clipped(model, Only(["1", "2.*"], remedy))
    for theirs, start in zip(roster, before[2:6], strict=True):
        theirs.parameter.grad = start.clone()
    gradients = Gradients.of(gradients.roster)
    clip_(gradients, remedy.decide(Moment(step=0, gradients=gradients)))
    expected = [member.parameter.grad for member in roster]
    assert not torch.equal(own[2], before[2])
    for mine, theirs in zip(own, [*before[:2], *expected, *before[6:]], strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize(
    "remedy", [ClipNorm(1e-3, per="unit"), ClipNorm(0.1), AGC(), ClipValue(0.1)]
)
def test_the_coefficient_of_a_part_is_the_change_of_the_whole_norm(remedy) -> None:
    model = net()
    before = norm_of([p.grad for p in model.parameters()])
    after, coefficient = clipped(model, Only("2", remedy))
    assert coefficient == pytest.approx(norm_of(after) / before)


def test_globs_match_layers_and_parameters_and_leave_out_others() -> None:
    before = [p.grad.clone() for p in net().parameters()]
    model = net()
    before = [p.grad.clone() for p in model.parameters()]
    after, _ = clipped(model, Only("*", ClipValue(1e-6), exclude=["1", "*.bias"]))
    changed = [not torch.equal(a, b) for a, b in zip(after, before, strict=True)]
    assert changed == [True, False, False, False, True, False, True, False]


def test_a_glob_that_matches_nothing_is_an_error_that_names_parameters() -> None:
    roster = gradients_of(net()).roster
    Only("0", ClipNorm()).check([roster])
    with pytest.raises(GradGuardError) as caught:
        Only(["encoder.*"], ClipNorm()).check([roster])
    assert str(caught.value) == (
        "No trained parameter matches 'encoder.*'. The first are '0.weight', '0.bias', '1.weight'."
    )


def test_a_roster_that_stays_needs_one_look() -> None:
    remedy, gradients = Only("1", ClipNorm(1e-3)), gradients_of(net())
    moment = Moment(step=0, gradients=gradients)
    first, again = (remedy.decide(moment)[0].factors for _ in range(2))
    assert torch.equal(first, again)


def test_a_roster_that_changes_is_looked_at_anew() -> None:
    remedy = Only("b", ClipNorm(1.0))
    both = {"a.w": torch.tensor([8.0]), "b.w": torch.tensor([4.0])}
    assert remedy.decide(moment_of_layers(both))[0].factors.tolist() == [1.0, 0.25]
    assert remedy.decide(moment_of_layers({"b.w": torch.tensor([2.0])}))[0].factors.tolist() == [
        0.5
    ]
    assert remedy.decide(moment_of_layers({"a.w": torch.tensor([2.0])})) == []


def test_groups_that_have_any_of_the_layers_slow_down() -> None:
    faults = [trouble("diverging", step=3)]
    layers = {"a.w": torch.ones(1), "b.w": torch.ones(1), "b.v": torch.ones(1)}
    groups = {"a.w": 0, "b.w": 1, "b.v": 2}
    moment = moment_of_layers(layers, groups=groups, episodes=faults)
    (rate,) = Only("b", ReduceLearningRate("diverging")).decide(moment)
    assert (rate.factor, list(rate.groups)) == (0.5, [1, 2])


def test_faults_of_other_layers_are_not_heard() -> None:
    fault = trouble("diverging", step=3)
    elsewhere = type(fault)(
        fault.first,
        fault.last.__class__(**{**fault.last.__dict__, "layers": ("a",)}),
        1,
        is_open=True,
        worst=fault.worst,
    )
    layers = {"a.w": torch.ones(1), "b.w": torch.ones(1)}
    moment = moment_of_layers(layers, episodes=[elsewhere], findings=[elsewhere.last])
    assert Only("b", StopTraining("diverging")).decide(moment) == []
    expected = [Stop("diverging since step 3: trouble")]
    assert Only("a", StopTraining("diverging")).decide(moment) == expected
    whole = moment_of_layers(layers, episodes=[fault], findings=[fault.last])
    assert Only("b", StopTraining("diverging")).decide(whole) == expected


def test_only_what_happens_in_the_part_leaves_a_step_out() -> None:
    layers = {"a.w": torch.tensor([torch.nan]), "b.w": torch.ones(1)}
    asked = [Only(g, SkipNonFinite()).decide(moment_of_layers(layers))[0].when for g in "ab"]
    assert [bool(flag) for flag in asked] == [True, False]


def test_a_part_without_gradients_in_a_step_changes_nothing() -> None:
    layers = {"a.w": torch.ones(1), "b.w": None}
    moment = moment_of_layers(layers)
    decisions = [d for r in (ClipNorm(0.1), Robust()) for d in Only("b", r).decide(moment)]
    assert clip_(moment.gradients, decisions).item() == 1.0


def test_it_keeps_what_its_remedy_keeps() -> None:
    stateful = Only("layer", Robust(warmup_steps=3))
    for norm in SPIKES[:20]:
        stateful.decide(moment_of([norm]))
    resumed = through_json(stateful, Only("layer", Robust(warmup_steps=3)))
    assert resumed.state_dict() == stateful.state_dict() != {}
    assert through_json(Only("a", ClipNorm()), Only("a", ClipNorm())).state_dict() == {}
    Only("a", ClipNorm()).load_state_dict(stateful.state_dict())  # another remedy than before


def test_it_can_do_what_its_remedy_can() -> None:
    for wrap in (lambda r: Only("*", r), OnceSlowed):
        assert [may_skip(wrap(r)) for r in (ClipNorm(), SkipOutlier())] == [False, True]
        assert [acts_on_findings(wrap(r)) for r in (ClipNorm(), Rollback())] == [False, True]
        assert acts_of(wrap(Rollback())) == {"learning rate", "rollback"}
    rollback = Rollback()
    assert find([ClipNorm(), Only("*", OnceSlowed(rollback))], Rollback) == [rollback]
    assert find([ClipNorm()], Rollback) == []


def test_a_waiting_remedy_begins_with_the_cut_and_goes_on_when_the_rate_heals() -> None:
    remedy = OnceSlowed(ClipNorm(1.0), below=0.2)
    factors = [1.0, 0.5, 0.2, 0.1, 1.0]
    acted = [bool(remedy.decide(moment_of([9.0], lr_factor=f))) for f in factors]
    assert acted == [False, False, False, True, True]


def test_a_waiting_remedy_keeps_that_it_has_begun_and_what_the_remedy_keeps() -> None:
    remedy = OnceSlowed(Robust())
    for factor in (1.0, 0.01, 0.01):
        remedy.decide(moment_of([9.0], lr_factor=factor))
    resumed = through_json(remedy, OnceSlowed(Robust()))
    assert resumed.state_dict() == remedy.state_dict()
    assert resumed.decide(moment_of([9.0]))
    plain = through_json(OnceSlowed(ClipNorm()), OnceSlowed(ClipNorm()))
    assert plain.state_dict() == {"has_begun": False, "remedy": None}


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Only("*", "norm"), TypeError, "`remedy` must be objects with a method `decide`"),
        (lambda: Only("*", ClipNorm), TypeError, "got the class ClipNorm. Write ClipNorm()."),
        (lambda: Only([], ClipNorm()), ValueError, "`layers` must name at least one glob"),
        (lambda: Only(None, ClipNorm()), ValueError, "such as 'critic.*', got None."),
        (lambda: Only(3, ClipNorm()), TypeError, "`layers` must be a text or a list of texts"),
        (lambda: OnceSlowed(3), TypeError, "`remedy` must be objects with a method `decide`"),
        (lambda: OnceSlowed(ClipNorm(), below=1.0), ValueError, "`below` must be between 0 and 1"),
    ],
)
def test_bad_arguments_are_refused(make, error, message) -> None:
    with pytest.raises(error) as caught:
        make()
    assert message in str(caught.value)


@pytest.mark.parametrize("decision", [Clamp(1.0, "c", [-1]), ScaleUnits({-1: torch.ones(1)}, "u")])
def test_a_decision_about_what_is_not_in_the_part_is_refused(decision) -> None:
    class Says:
        def decide(self, moment):
            return [decision]

    moment = moment_of_layers({"a.w": torch.ones(1), "b.w": torch.ones(1)})
    with pytest.raises(ValueError, match=r"`members` must be among 1 positions, got \[-1\]"):
        Only("b", Says()).decide(moment)


def test_a_remedy_in_it_may_say_nothing_at_all() -> None:
    class Silent:
        def decide(self, moment):
            return None

    assert Only("*", Silent()).decide(moment_of([1.0])) == []
