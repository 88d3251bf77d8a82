"""Detectors and episodes together."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from lightning_gradguard.detectors import NonFinite
from lightning_gradguard.findings import Severity
from lightning_gradguard.inspector import Inspector
from tests.strategies import make_finding, make_frame, through_json


class Alarm:
    """Say what was asked for whenever the loss is above one; know how often it was asked."""

    def __init__(self, layers=("a.0", "b.0"), severity=Severity.ERROR, kind="alarm") -> None:
        self.layers, self.severity, self.kind = layers, severity, kind
        self.patience_steps_by_kind = {"alarm": 2}
        self.seen = 0

    def update(self, frame):
        self.seen += 1
        if frame.loss <= 1.0:
            return ()
        return [
            make_finding(
                self.kind,
                frame.step,
                layers=self.layers,
                severity=self.severity,
                message=f"{self.seen} frames",
            )
        ]

    def state_dict(self) -> dict[str, Any]:
        return {"seen": self.seen}

    def load_state_dict(self, state) -> None:
        self.seen = state["seen"]


class Bare:
    """A detector with the one method only."""

    def update(self, frame):
        return [make_finding("bare", frame.step)] if frame.loss > 1.0 else ()


def judge(inspector, losses, *, start=0, **fields):
    for step, loss in enumerate(losses, start):
        inspector.update(make_frame(step, loss=loss, **fields))
    return [(f.kind, f.step, f.state) for f in inspector.findings]


def test_patience_of_a_detector_is_kept() -> None:
    inspector = Inspector([Alarm(), Bare()], cooldown_steps=1)
    assert judge(inspector, [1, 2, 2, 1, 1]) == [
        ("bare", 1, "opened"),
        ("alarm", 2, "opened"),
        ("alarm", 4, "resolved"),
        ("bare", 4, "resolved"),
    ]


def test_update_returns_what_is_new_only() -> None:
    inspector = Inspector([Bare()])
    assert [f.kind for f in inspector.update(make_frame(0, loss=2.0))] == ["bare"]
    assert inspector.update(make_frame(1, loss=2.0)) == ()
    assert len(inspector.findings) == 1


def test_each_optimizer_is_judged_by_its_own_copy() -> None:
    original = Alarm()
    inspector = Inspector([original])
    for step in range(3):
        inspector.update(make_frame(step, loss=1.0))
        inspector.update(make_frame(step, loss=2.0, optimizer_index=1))
    assert [f.optimizer_index for f in inspector.findings] == [1]
    assert inspector.findings[0].message == "2 frames"
    assert original.seen == 0


def test_severity_and_layers_are_those_of_alarms_that_go_on() -> None:
    inspector = Inspector([Alarm(), Bare()], cooldown_steps=0)
    assert inspector.severity is None
    judge(inspector, [2, 2])
    assert inspector.severity is Severity.ERROR
    assert inspector.flagged_layers == ("a.0", "b.0")
    assert {e.first.kind for e in inspector.open_episodes} == {"alarm", "bare"}
    judge(inspector, [1], start=2)
    assert inspector.severity is None
    assert inspector.flagged_layers == ()


def test_notices_flag_no_layer() -> None:
    inspector = Inspector([Alarm(severity=Severity.INFO)])
    judge(inspector, [2, 2])
    assert inspector.severity is Severity.INFO
    assert inspector.flagged_layers == ()


def test_ignored_kind_is_never_reported() -> None:
    assert judge(Inspector([Alarm(), Bare()], ignore=["alarm"]), [2, 2, 2]) == [
        ("bare", 0, "opened")
    ]


def test_ignored_layers_of_a_kind_are_taken_out() -> None:
    inspector = Inspector([Alarm()], ignore=["alarm:a.*"])
    judge(inspector, [2, 2])
    assert inspector.findings[0].layers == ("b.0",)


def test_finding_whose_layers_are_all_ignored_is_not_reported() -> None:
    assert judge(Inspector([Alarm()], ignore=["alarm:a.*", "alarm:b.*"]), [2, 2, 2]) == []


def test_finding_about_the_whole_model_is_not_ignored_by_a_layer_glob() -> None:
    assert judge(Inspector([Alarm(layers=())], ignore=["alarm:a.*"]), [2, 2]) == [
        ("alarm", 1, "opened")
    ]


def test_rules_for_other_kinds_do_not_matter() -> None:
    inspector = Inspector([Alarm()], ignore=["vanishing", "exploding:a.*"])
    assert judge(inspector, [2, 2]) == [("alarm", 1, "opened")]


def test_unknown_kind_to_ignore_is_refused() -> None:
    with pytest.raises(ValueError, match="vanishign"):
        Inspector(ignore=["vanishign"])


def test_faults_do_not_end_while_everything_is_broken() -> None:
    inspector = Inspector([Bare()], cooldown_steps=2)
    judge(inspector, [2])
    for step in range(1, 20):
        inspector.update(make_frame(step, loss=1.0, bad=[0]))
    assert len(inspector.open_episodes) == 1


def test_only_the_latest_thousand_findings_are_kept() -> None:
    inspector = Inspector([Bare()], cooldown_steps=0)
    judge(inspector, [2.0, 1.0] * 600)
    assert len(inspector.findings) == 1000
    assert inspector.findings[-1].step == 1199


@pytest.mark.parametrize("stop", range(9))
def test_stopping_anywhere_changes_nothing(stop) -> None:
    losses = [1, 2, 2, 2, 1, 1, 2, 2, 2]

    def fresh():
        return Inspector([Alarm(), Bare(), NonFinite()], cooldown_steps=1)

    whole, first = fresh(), fresh()
    judge(whole, losses)
    judge(first, losses[:stop])
    second = through_json(first, fresh())
    judge(second, losses[stop:], start=stop)
    assert repr(second.findings) == repr(whole.findings)
    assert repr(second.open_episodes) == repr(whole.open_episodes)
    assert second.severity == whole.severity


def test_state_of_every_optimizer_is_saved() -> None:
    first = Inspector([Alarm()])
    first.update(make_frame(0, loss=1.0, optimizer_index=1))
    second = through_json(first, Inspector([Alarm()]))
    for step in (1, 2):
        second.update(make_frame(step, loss=2.0, optimizer_index=1))
    assert second.findings[0].message == "3 frames"


def test_default_detectors_find_what_is_plain() -> None:
    inspector = Inspector()
    (found,) = inspector.update(make_frame(0, bad=[1]))
    assert (found.kind, found.state, found.episode_id) == ("nonfinite", "opened", 1)


class Uncopyable:
    """Holds what `copy.deepcopy` refuses, and counts the frames it sees."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.steps: list[int] = []

    def update(self, frame):
        self.steps.append(frame.step)
        return ()


def test_a_detector_that_cannot_be_copied_is_used_itself() -> None:
    detector = Uncopyable()
    inspector = Inspector([detector])
    inspector.update(make_frame(4))
    assert detector.steps == [4]


class Broken:
    def update(self, frame):
        msg = f"cannot judge step {frame.step}"
        raise ValueError(msg)


def test_a_failing_detector_raises_where_nobody_asked_otherwise() -> None:
    with pytest.raises(ValueError, match="cannot judge step 3"):
        Inspector([Broken()]).update(make_frame(3))


def test_a_failing_detector_is_muted_once_where_that_was_asked() -> None:
    inspector = Inspector([Broken()], on_error="warn")
    with pytest.warns(UserWarning, match="Broken was switched off at step 3"):
        inspector.update(make_frame(3))
    inspector.update(make_frame(4))
    assert inspector.muted == ["Broken was switched off at step 3: ValueError: cannot judge step 3"]


def test_a_detector_without_a_way_to_load_starts_afresh() -> None:
    class Forgetful:
        def update(self, frame):
            return ()

        def state_dict(self):
            return {"useless": 1}

    first, second = Inspector([Forgetful()]), Inspector([Forgetful()])
    first.update(make_frame(0))
    second.load_state_dict(first.state_dict())
    assert second.state_dict() == first.state_dict()


class Forgetful:
    """A detector that says nothing, not even nothing."""

    def update(self, frame):
        return None


class Generator:
    """A detector whose answer fails only when somebody reads it."""

    def update(self, frame):
        yield from ()
        msg = "mine"
        raise ValueError(msg)


def test_a_forgotten_return_is_no_finding() -> None:
    inspector = Inspector([Forgetful(), Alarm()], on_error="warn")
    judge(inspector, [1.0] * 5)
    assert inspector.muted == []


def test_an_answer_that_fails_when_read_is_that_detectors_affair() -> None:
    inspector = Inspector([Generator(), Alarm()], on_error="warn")
    with pytest.warns(UserWarning, match="Generator was switched off"):
        judge(inspector, [1.0] * 5)
    assert inspector.muted == ["Generator was switched off at step 0: ValueError: mine"]


class Moved:
    """A detector whose state had another form in an earlier version."""

    def update(self, frame):
        return ()

    def load_state_dict(self, state):
        return state["seen"]


def test_a_state_that_cannot_be_read_costs_no_other_detector_its_own() -> None:
    before = Inspector([Alarm()])
    judge(before, [1.0] * 5)
    state = before.state_dict()
    state["detectors"]["0"].append({"type": "Moved", "state": {}})
    after = Inspector([Moved(), Alarm()])
    with pytest.warns(UserWarning, match="Moved starts afresh: KeyError"):
        after.load_state_dict(state)
    assert after.findings == before.findings
    assert after.state_dict()["detectors"]["0"][1] == before.state_dict()["detectors"]["0"][0]
