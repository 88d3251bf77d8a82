"""``gradguard tail`` says each thing once, as it comes, and ends with the run."""

from __future__ import annotations

import json

import pytest

from lightning_gradguard.audit import Action
from lightning_gradguard.cli import main, tail
from lightning_gradguard.findings import headline
from tests.histories import StoredRun
from tests.strategies import make_finding, make_frame

FIRST = make_finding(step=3, since_step=1, episode_id=1)
WORSE = make_finding(step=7, since_step=1, episode_id=1, state="escalated")
ENDED = make_finding(step=90, since_step=1, episode_id=1, state="resolved")
SKIP = Action(what="skip", step=5, why="loss is NaN")


class Growing(StoredRun):
    """A run that writes more at each look, and is over when nothing is left."""

    def __init__(self, *parts, ending="finished"):
        super().__init__([make_frame(0)], grow=self._more, finished=None)
        self.parts, self.ending = list(parts), ending
        self._more(self)

    def _more(self, _run):
        if not self.parts:
            self.meta["finished"] = self.ending
            return
        findings, actions = self.parts.pop(0)
        self.findings += tuple(findings)
        self.actions += tuple(actions)


@pytest.fixture(autouse=True)
def slept(monkeypatch):
    """Let no time pass; say how long it would have been."""
    seconds = []
    monkeypatch.setattr(tail, "sleep", seconds.append)
    return seconds


def said(capsys):
    return capsys.readouterr().out.splitlines()


def test_each_transition_is_one_line_in_the_order_of_steps(stored, capsys):
    stored(Growing(([FIRST], []), ([WORSE], [SKIP]), ([ENDED], [])))
    assert main(["tail", "run"]) == 0
    skipped = "step 5  left out this step: loss is NaN"
    expected = [headline(FIRST), skipped, headline(WORSE), headline(ENDED)]
    assert said(capsys)[:-1] == expected


def test_the_last_line_is_the_verdict(stored, capsys):
    stored(Growing(([FIRST], []), ending="exception"))
    main(["tail", "run"])
    last = "version_0 (ended by an exception): vanishing in whole model since step 1"
    assert said(capsys)[-1] == last


def test_what_is_said_with_the_last_breath_is_heard(stored, capsys):
    class Dying(StoredRun):
        def refresh(self):
            self.meta["finished"] = "exception"
            self.findings = (FIRST,)
            return True

    stored(Dying([make_frame(0)], finished=None))
    main(["tail", "run"])
    assert headline(FIRST) in said(capsys)


def test_it_waits_between_looks(stored, slept):
    stored(Growing(([], []), ([], []), ([], [])))
    main(["tail", "run", "--interval", "0.25"])
    assert slept == [0.25] * 3


def test_once_does_not_wait_for_the_end(stored, capsys, slept):
    stored(Growing(([FIRST], []), ([WORSE], [])))
    main(["tail", "run", "--once"])
    assert slept == []
    first, last = said(capsys)
    assert first == headline(FIRST)
    assert last.startswith("version_0 (not finished: it still trains, or it was killed): vanish")


def test_a_resume_that_takes_findings_back_repeats_nothing(stored, capsys):
    class Resumed(StoredRun):
        def refresh(self):
            if self.findings == (FIRST, WORSE):
                self.findings = (FIRST,)
            else:
                self.findings = (FIRST, ENDED)
                self.meta["finished"] = "finished"
            return True

    stored(Resumed([make_frame(0)], [FIRST, WORSE], finished=None))
    main(["tail", "run"])
    assert said(capsys)[:-1] == [headline(FIRST), headline(WORSE), headline(ENDED)]


def test_clipping_is_left_to_the_summary_and_floods_are_cut(stored, capsys):
    clips = [Action(what="clip", step=step) for step in range(50)]
    skips = [Action(what="skip", step=step) for step in range(50)]
    stored(Growing(([], clips + skips)))
    main(["tail", "run"])
    assert [line.split()[1] for line in said(capsys)[:-1]] == ["0", "1", "2", "3", "4"]


def test_the_keyboard_ends_it_with_the_verdict(stored, capsys, monkeypatch):
    def interrupt(_seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(tail, "sleep", interrupt)
    stored(Growing(([FIRST], []), ([WORSE], [])))
    assert main(["tail", "run", "--fail-on", "error"]) == 1
    assert said(capsys)[-1].endswith("vanishing in whole model since step 1")


def test_json_is_one_object_per_line(stored, capsys):
    stored(Growing(([FIRST], [SKIP])))
    main(["tail", "run", "--json"])
    records = [json.loads(line) for line in said(capsys)]
    assert [record["event"] for record in records] == ["finding", "action", "end"]
    assert (records[0]["kind"], records[0]["severity_name"]) == ("vanishing", "error")
    assert (records[1]["what"], records[1]["step"]) == ("skip", 5)
    assert records[2]["state"] == "finished"


@pytest.mark.parametrize("interval", ["0", "-1", "nan", "soon"])
def test_a_wrong_interval_is_refused(interval, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["tail", "run", f"--interval={interval}"])
    assert ended.value.code == 2
    assert "must be a number of seconds above 0" in capsys.readouterr().err


def test_a_file_that_is_gone_ends_the_following(stored, capsys):
    run = Growing(([FIRST], []))
    stored(run)
    run.refresh, run.is_replaced = lambda: False, True
    assert main(["tail", "run"]) == 2
    assert "was deleted or replaced" in capsys.readouterr().err


def test_a_long_silence_is_told_once(stored, capsys, monkeypatch):
    clock = iter(range(0, 100_000, 25))
    monkeypatch.setattr(tail, "monotonic", lambda: next(clock))
    run = Growing(([FIRST], []), ([], []))
    stored(run)
    looks, refresh = iter(range(20)), run.refresh
    run.refresh = lambda: refresh() if next(looks) >= 10 else False
    assert main(["tail", "run"]) == 0
    assert capsys.readouterr().err.count("nothing was written for 60 seconds") == 1
