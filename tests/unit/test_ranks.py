"""All ranks do the same: that of the most careful."""

from __future__ import annotations

import threading

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_gradguard.ranks import Ranks
from lightning_gradguard.remedies import GoBack, LearningRate, Scale, Skip, Stop
from lightning_gradguard.remedies.council import Verdict


class World:
    """Some ranks in threads, whose tensors are really reduced."""

    def __init__(self, size):
        self.size, self._given = size, [None] * size
        self._barrier = threading.Barrier(size, timeout=20)

    def reduce(self, rank, number, how):
        self._given[rank] = number.clone()
        self._barrier.wait()
        stacked = torch.stack(self._given)
        self._barrier.wait()
        return stacked.amax(dim=0) if how == "max" else stacked.mean(dim=0)

    def each(self, do):
        """Return what a function of each rank's `Ranks` and position returns."""
        found = [None] * self.size

        def run(rank):
            ranks = Ranks(self.size, lambda number, how: self.reduce(rank, number, how))
            found[rank] = do(ranks, rank)

        threads = [threading.Thread(target=run, args=(rank,)) for rank in range(self.size)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return found


def agreed(*verdicts, num_groups=2):
    return World(len(verdicts)).each(lambda ranks, i: ranks.agree(verdicts[i], num_groups))


def substance(verdict, num_groups=2):
    """Return all that training can feel of a verdict."""
    return (
        None if verdict.skip is None else bool(verdict.skip),
        verdict.lr_factors(num_groups),
        None if verdict.rollback is None else verdict.rollback.before_step,
        None if verdict.stop is None else verdict.stop.as_error,
    )


def test_alone_everything_stays_as_it_is() -> None:
    verdict, loss = Verdict(rates=[LearningRate(0.5)]), torch.tensor(3.0)
    assert Ranks().agree(verdict, 1) is verdict
    assert Ranks().mean(loss) is loss
    assert Ranks().reduce(loss, "max") is loss


def test_the_loss_is_the_mean_of_all_and_nan_if_any_is() -> None:
    losses = [torch.tensor(1.0), torch.tensor(4.0)]
    found = World(2).each(lambda ranks, i: ranks.mean(losses[i]).item())
    assert found == [2.5, 2.5]
    assert losses[0].item() == 1.0
    losses[1] = torch.tensor(torch.nan)
    assert all(x != x for x in World(2).each(lambda ranks, i: ranks.mean(losses[i]).item()))  # noqa: PLR0124


def test_all_go_back_as_far_as_the_farthest_wish() -> None:
    for mine, other in ((GoBack(50, "a"), GoBack(10, "b")), (None, GoBack(10, "b"))):
        found = agreed(Verdict(rollback=mine), Verdict(rollback=other))
        assert [verdict.rollback.before_step for verdict in found] == [10, 10]
    assert [v.rollback.why for v in found] == ["another rank asked for it", "b"]


def test_going_back_to_the_start_is_no_missing_wish() -> None:
    found = agreed(Verdict(rollback=GoBack(0, "a")), Verdict())
    assert [verdict.rollback.before_step for verdict in found] == [0, 0]


def test_all_stop_alike() -> None:
    found = agreed(
        Verdict(stop=Stop("quiet")), Verdict(stop=Stop("loud", as_error=True)), Verdict()
    )
    assert [(v.stop.why, v.stop.as_error) for v in found] == [
        ("quiet", True),
        ("loud", True),
        ("another rank asked for it", True),
    ]


def test_all_take_the_smallest_rate_of_each_group_and_say_whose_it_was() -> None:
    mine = Verdict(rates=[LearningRate(0.5, "mine", groups=[0])])
    found = agreed(mine, Verdict(rates=[LearningRate(0.25, groups=[1])]), Verdict())
    assert [verdict.lr_factors(2) for verdict in found] == [[0.5, 0.25]] * 3
    told = [{rate.why for rate in verdict.rates if rate.why} for verdict in found]
    assert told == [{"mine"}, set(), {"another rank asked for it"}]


def test_a_limit_of_one_step_is_shared_and_is_no_cut_anywhere() -> None:
    held = LearningRate(0.1, groups=[1], is_cut=False)
    found = agreed(Verdict(rates=[held, LearningRate(0.5, "mine")]), Verdict())
    assert [verdict.lr_factors(2) for verdict in found] == [[0.5, 0.1]] * 2
    assert [verdict.lr_factors(2, cuts_only=True) for verdict in found] == [[0.5, 0.5]] * 2


def test_a_step_is_left_out_everywhere_or_nowhere() -> None:
    for flags, expected in (((True, False), True), ((False, False), False)):
        skips = [Verdict(skips=[Skip(torch.tensor(flag), f"{flag}")]) for flag in flags]
        assert [bool(verdict.skip) for verdict in agreed(*skips)] == [expected, expected]


def test_what_was_decided_about_gradients_is_untouched() -> None:
    clips = [Scale(torch.tensor(0.5), "a")]
    assert all(
        verdict.clips is clips for verdict in agreed(Verdict(clips=clips), Verdict(clips=clips))
    )


def test_where_nobody_wants_anything_nothing_happens() -> None:
    calm = (False, [1.0, 1.0], None, None)
    assert [substance(v) for v in agreed(Verdict(), Verdict())] == [calm, calm]
    nobody_may = World(2).each(lambda ranks, _: ranks.agree(Verdict(), 1, may_skip=False).skip)
    assert nobody_may == [None, None]


def test_a_rank_whose_remedy_has_failed_leaves_steps_out_with_the_others() -> None:
    mine = Verdict(skips=[Skip(torch.ones((), dtype=torch.bool), "mine")])
    found = agreed(mine, Verdict())
    assert [bool(verdict.skip) for verdict in found] == [True, True]
    assert [verdict.skips[0].why for verdict in found] == ["mine", "another rank asked for it"]
    assert [verdict.skip.shape for verdict in found] == [(), ()]


@st.composite
def verdicts(draw):
    before = draw(st.none() | st.integers(0, 10**6))
    as_error = draw(st.sampled_from([None, False, True]))
    rates = draw(st.lists(st.floats(0.01, 1.0), max_size=3))
    return Verdict(
        skips=[Skip(torch.tensor(draw(st.booleans())), "s") for _ in range(2)],
        rates=[LearningRate(factor, groups=[i % 2]) for i, factor in enumerate(rates)],
        rollback=None if before is None else GoBack(before, "b"),
        stop=None if as_error is None else Stop("s", as_error=as_error),
    )


@given(st.lists(verdicts(), min_size=2, max_size=3))
def test_whatever_ranks_want_all_of_them_do_the_same_and_it_is_the_most_careful(wanted) -> None:
    first, *others = [substance(verdict) for verdict in agreed(*wanted)]
    assert all(other == first for other in others)
    parts = [substance(verdict) for verdict in wanted]
    skip, rates, before, as_error = first
    assert skip is any(part[0] for part in parts)
    assert rates == pytest.approx([min(p[1][group] for p in parts) for group in range(2)])
    assert before == min((p[2] for p in parts if p[2] is not None), default=None)
    assert as_error == max((p[3] for p in parts if p[3] is not None), default=None)
