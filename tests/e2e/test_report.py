"""A report that a training writes when it ends, however it ends."""

from __future__ import annotations

import pytest

from lightning_gradguard import GradientGuard, GradientMonitor
from tests.e2e.models import Classifier, mlp, random_data, trainer
from tests.e2e.test_history import Fails, fit


@pytest.mark.parametrize("make", [GradientMonitor, lambda **o: GradientGuard(clip=1.0, **o)])
def test_a_training_that_finishes_leaves_a_report_about_all_of_it(make, tmp_path):
    fit(tmp_path, make(report=True, on_error="raise"), max_epochs=1)
    (page,) = tmp_path.rglob("report.html")
    text = page.read_text("utf-8")
    assert page.parent.name == "gradguard"
    assert '"range": [0, 7]' in text  # all eight steps
    assert "Classifier" in text


def test_a_training_that_fails_leaves_one_that_says_so(tmp_path):
    with pytest.raises(RuntimeError, match="lost"):
        fit(tmp_path, GradientMonitor(report=True), Fails(RuntimeError("lost")))
    (page,) = tmp_path.rglob("report.html")
    assert '"finished": "exception"' in page.read_text("utf-8")


def test_a_report_that_cannot_be_written_does_not_end_training(tmp_path):
    target = tmp_path / "lightning_logs" / "version_0" / "gradguard" / "report.html"
    target.mkdir(parents=True)
    with pytest.warns(UserWarning, match="cannot write .*report.html"):
        fit(tmp_path, GradientMonitor(report=True), max_epochs=1)


def test_without_a_folder_it_says_that_there_is_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.warns(UserWarning, match="no folder to write a report to"):
        trainer(GradientMonitor(report=True), max_epochs=1).fit(
            Classifier(mlp()), random_data(16, 6)
        )
    assert list(tmp_path.rglob("*.html")) == []


def test_a_report_without_a_history_is_refused():
    with pytest.raises(ValueError, match="`history` must not be False"):
        GradientMonitor(report=True, history=False)
