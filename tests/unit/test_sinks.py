"""What people see: console, TensorBoard read back, a CSV file read back."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pytorch_lightning.loggers import CSVLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from lightning_gradguard import Action, schema
from lightning_gradguard.events import Observation
from lightning_gradguard.findings import Finding, Severity
from lightning_gradguard.report.summary import summarise
from lightning_gradguard.sinks import ConsoleSink, LoggerSink, Sink, TensorBoardSink
from lightning_gradguard.sinks.cadence import is_due
from lightning_gradguard.sinks.layers import spread_over_depth, unusual_layers
from lightning_gradguard.sinks.scalars import layer_scalars, scalars
from tests.strategies import make_finding, make_frame


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def seen(frame, **fields) -> Observation:
    return Observation(frame=frame, **fields)


# Console.


def printed(*events, stream=None, **options) -> str:
    out = io.StringIO() if stream is None else stream
    sink = ConsoleSink(out, **options)
    for event in events:
        sink.emit(event)
    return out.getvalue()


def test_no_name_of_a_layer_does_anything_to_the_terminal() -> None:
    out = io.StringIO()
    name = "\x1b[31mred\nnext line: all is well\u202e"
    ConsoleSink(out).emit(
        Finding(
            kind="dead", severity=Severity.ERROR, step=3, layers=(name,), message=name, advice=name
        )
    )
    lines = out.getvalue().splitlines()
    assert len(lines) == 2
    assert all(line.isprintable() for line in lines)


def test_console_prints_a_finding_and_what_to_try() -> None:
    found = make_finding(step=7, layers=("stem",), advice="normalise.")
    assert printed(found) == (
        "gradguard: step 7  ERROR vanishing  stem: seen.\n           try: normalise.\n"
    )


@pytest.mark.parametrize("state", ["escalated", "resolved"])
def test_console_gives_advice_only_once(state) -> None:
    assert "try" not in printed(make_finding(state=state, advice="normalise."))


def test_console_leaves_notices_to_the_summary_unless_asked() -> None:
    notice = make_finding("amp_overflow", severity=Severity.INFO)
    assert printed(notice) == ""
    assert "amp_overflow" in printed(notice, min_severity=Severity.INFO)


def test_console_is_silent_about_frames() -> None:
    assert printed(seen(make_frame())) == ""


def test_console_prints_actions_but_clipping_and_of_each_kind_the_first_five() -> None:
    skips = [Action(what="skip", step=step, why="loss is NaN") for step in range(7)]
    lines = printed(Action(what="clip", step=0), *skips, Action(what="stop", step=9)).splitlines()
    assert lines[0] == "gradguard: step 0  left out this step: loss is NaN"
    assert lines[4] == f"{lines[0].replace('step 0', 'step 4')}; later ones are in the summary"
    assert lines[5:] == ["gradguard: step 9  stops the training"]


def test_the_summary_says_what_a_guard_did() -> None:
    summary = summarise([], observed_steps=3, steps=3, acts=("left out step 2",))
    assert "  guard   left out step 2" in str(summary).splitlines()


def test_console_prints_the_summary_as_it_is() -> None:
    summary = summarise([make_finding(advice="normalise.")], observed_steps=3, steps=3)
    assert printed(summary) == f"{summary}\n"


def test_console_writes_to_standard_error_by_default(capsys) -> None:
    ConsoleSink().emit(make_finding())
    out, err = capsys.readouterr()
    assert (out, "vanishing" in err) == ("", True)


def test_console_uses_colour_on_a_terminal_with_the_same_words(monkeypatch) -> None:
    pytest.importorskip("rich")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "200")
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    healthy = summarise([], observed_steps=3, steps=3)
    ill = summarise([make_finding()], observed_steps=3, steps=3)
    ended = make_finding(state="resolved", step=5, message="[red]not markup[/red]")
    text = printed(make_finding(message="[a]"), ended, healthy, ill, stream=Terminal())
    assert "\x1b[31m" in text
    assert "\x1b[1;32m" in text
    assert "[a]" in text
    assert "\x1b" not in printed(make_finding())


def test_terminal_without_rich_gets_plain_text(monkeypatch) -> None:
    monkeypatch.setattr("lightning_gradguard.sinks.console.find_spec", lambda _: None)
    assert "\x1b" not in printed(make_finding(), stream=Terminal())


# Cadence, scalars, choice of layers.


def test_the_last_of_each_n_steps_is_due() -> None:
    assert [step for step in range(200) if is_due(step, 50)] == [49, 99, 149, 199]
    assert all(is_due(step, 1) for step in range(5))
    assert not any(is_due(step, 0) for step in range(5))


def test_where_not_every_step_is_looked_at_the_next_that_is_takes_its_place() -> None:
    looked_at = [0, 3, 6, 9, 12, 15, 49, 60, 200]
    since = dict(zip(looked_at, [-1, *looked_at], strict=False))
    assert [step for step in looked_at if is_due(step, 5, since=since[step])] == [
        6,
        9,
        15,
        49,
        60,
        200,
    ]
    assert not any(is_due(step, 0, since=since[step]) for step in looked_at)


def test_scalars_are_the_frames_numbers_under_their_keys() -> None:
    frame = make_frame(
        gradients=(3.0, 4.0, 0.0),
        update_ratio=(0.1, 0.2, math.nan),
        global_grad_norm_at_update=1.0,
        guard_clip_coefficient=0.25,
        lr_factor=0.5,
        bad=[0],
    )
    observation = seen(
        frame,
        severity=Severity.ERROR,
        flagged_layers=("l0", "l1"),
        noise_scale=7.5,
        overhead_ms=0.25,
    )
    expected = {
        "global_grad_norm": 5.0,
        "global_grad_norm_at_update": 1.0,
        "clip_coefficient": 0.2,
        "guard_clip_coefficient": 0.25,
        "lr_factor": 0.5,
        "num_nonfinite": 3.0,
        "update_ratio_median": 0.15,
        "noise_scale": 7.5,
        "layers_flagged": 2.0,
        "severity": 40.0,
        "overhead_ms": 0.25,
    }
    found = scalars(observation)
    assert list(found) == [f"gradguard/{name}" for name in schema.SCALARS]
    assert found == {f"gradguard/{name}": pytest.approx(x) for name, x in expected.items()}


def test_what_was_not_measured_is_not_logged() -> None:
    found = scalars(seen(make_frame(update_ratio=math.nan, optimizer_index=1)))
    assert {key.split("/")[1] for key in found} == {
        "global_grad_norm",
        "lr_factor",
        "num_nonfinite",
        "layers_flagged",
        "severity",
    }
    assert all(key.endswith("/optimizer_1") for key in found)
    assert found["gradguard/severity/optimizer_1"] == 0.0


def test_layer_scalars_leave_out_unknown_layers_and_unknown_norms() -> None:
    frame = make_frame(gradients=(2.0, math.nan, 7.0))
    assert layer_scalars(frame, ["l0", "l1", "gone"]) == {"gradguard_layers/grad_norm/l0": 2.0}


def test_layers_spread_over_depth_include_both_ends() -> None:
    names = tuple(f"l{i}" for i in range(100))
    chosen = spread_over_depth(names, most=8)
    assert len(chosen) == 8
    assert (chosen[0], chosen[-1]) == ("l0", "l99")
    assert list(chosen) == sorted(chosen, key=names.index)
    assert spread_over_depth(names[:8], most=8) == names[:8]


def test_unusual_layers_are_those_that_stray_from_their_own_median() -> None:
    rows = np.ones((5, 6))
    rows[:, 0] = 1e-9  # small, but always so
    rows[2, 3] = 1e4
    rows[4, 5] = 1e-5
    rows[:, 1] = math.nan
    history = [make_frame(step, row) for step, row in enumerate(rows)]
    assert unusual_layers(history, most=3) == ("l1", "l3", "l5")
    assert unusual_layers(history, most=2) == ("l1", "l5")
    assert unusual_layers(history, most=6) == history[0].layers


def test_frames_of_an_earlier_set_of_layers_do_not_count() -> None:
    old = make_frame(0, (1.0, 1.0), layers=("x", "y"))
    new = make_frame(1, (1.0, 1.0, 1.0))
    assert unusual_layers([old, new], most=1) == ("l0",)


# TensorBoard.


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[SummaryWriter]:
    with SummaryWriter(str(tmp_path)) as the_writer:
        yield the_writer


def read(writer: SummaryWriter) -> EventAccumulator:
    writer.flush()
    accumulator = EventAccumulator(
        writer.log_dir, size_guidance={"scalars": 0, "histograms": 0, "tensors": 0}
    )
    accumulator.Reload()
    return accumulator


def charts(writer: SummaryWriter) -> dict[str, list[tuple[int, float]]]:
    accumulator = read(writer)
    return {
        tag: [(event.step, event.value) for event in accumulator.Scalars(tag)]
        for tag in accumulator.Tags()["scalars"]
    }


def layer_charts(writer: SummaryWriter) -> list[str]:
    prefix = "gradguard_layers/grad_norm/"
    return [tag.removeprefix(prefix) for tag in charts(writer) if tag.startswith(prefix)]


def test_tensorboard_shows_the_numbers_of_the_frame_at_its_step(writer) -> None:
    sink = TensorBoardSink(writer)
    for step in range(5):
        frame = make_frame(step, (3.0, 4.0), global_grad_norm_at_update=1.0)
        sink.emit(seen(frame, is_due=step % 2 == 1, noise_scale=2.0, overhead_ms=0.5))
    found = charts(writer)
    assert found["gradguard/global_grad_norm"] == [(1, 5.0), (3, 5.0)]
    assert found["gradguard/clip_coefficient"] == [(1, pytest.approx(0.2)), (3, pytest.approx(0.2))]
    assert found["gradguard_layers/grad_norm/l1"] == [(1, 4.0), (3, 4.0)]
    shown = {tag.removeprefix("gradguard/") for tag in found if tag.startswith("gradguard/")}
    assert shown == set(schema.SCALARS) - {"guard_clip_coefficient"}  # where no guard clips


def with_histogram(step, layers, counts):
    bins = np.zeros((layers, schema.HISTOGRAM_BINS))
    for column, count in counts.items():
        bins[:, column] = count
    return make_frame(step, np.ones(layers), log2_histogram=bins)


def test_histogram_buckets_are_octaves_named_by_their_right_edge(writer) -> None:
    one = schema.HISTOGRAM_FIRST - schema.HISTOGRAM_LOW  # the column of magnitudes from 1 up to 2
    frame = with_histogram(0, 1, {one: 5.0, one + 2: 3.0})
    TensorBoardSink(writer).emit(seen(frame))
    (event,) = read(writer).Histograms("gradguard_histograms/log2_abs_grad/l0")
    value = event.histogram_value
    assert event.step == 0
    assert value.bucket_limit == [0.0, 1.0, 2.0, 3.0]  # log2: an empty one shows the left edge
    assert value.bucket == [0.0, 5.0, 0.0, 3.0]
    assert (value.num, value.min, value.max) == (8.0, 0.0, 3.0)
    assert value.sum == pytest.approx(5 * 0.5 + 3 * 2.5)
    assert value.sum_squares == pytest.approx(5 * 0.25 + 3 * 6.25)


def test_histogram_of_underflow_and_overflow_keeps_its_edges(writer) -> None:
    zeros, last = {0: 9.0}, schema.HISTOGRAM_BINS - 1  # neither zeros nor what is broken is shown
    frame = with_histogram(0, 1, {**zeros, 1: 0.5, 2: 0.5, last - 2: 1.5, last - 1: 0.5, last: 9.0})
    TensorBoardSink(writer).emit(seen(frame))
    value = read(writer).Histograms("gradguard_histograms/log2_abs_grad/l0")[0].histogram_value
    assert (value.bucket_limit[1], value.bucket[1]) == (schema.HISTOGRAM_LOW, 1.0)
    assert (value.bucket_limit[-1], value.bucket[-1]) == (schema.HISTOGRAM_HIGH + 1, 2.0)
    assert len(value.bucket) == 1 + 128 + 2


@pytest.mark.parametrize("count", [0.0, math.nan])
def test_layer_with_nothing_to_show_has_no_histogram(writer, count) -> None:
    frame = with_histogram(0, 2, {40: count})
    TensorBoardSink(writer).emit(seen(frame))
    assert read(writer).Tags()["histograms"] == []


def test_at_most_eight_layers_have_a_histogram_unless_globs_say_which(writer) -> None:
    frame = with_histogram(0, 30, {40: 1.0})
    TensorBoardSink(writer).emit(seen(frame))
    tags = read(writer).Tags()["histograms"]
    assert len(tags) == 8
    assert {tags[0][-3:], tags[-1][-3:]} == {"/l0", "l29"}


def test_histograms_follow_their_globs(writer) -> None:
    frame = with_histogram(0, 30, {40: 1.0})
    TensorBoardSink(writer, histograms=["l2?"]).emit(seen(frame))
    assert len(read(writer).Tags()["histograms"]) == 10


def test_up_to_forty_layers_all_have_a_chart_from_the_first_step(writer) -> None:
    TensorBoardSink(writer).emit(seen(make_frame(0, np.ones(40))))
    assert len(layer_charts(writer)) == 40


def test_of_more_layers_the_unusual_ones_are_chosen_once_and_kept(writer) -> None:
    sink = TensorBoardSink(writer, most_layers=2)
    norms = np.ones((60, 50))
    norms[7, 13], norms[9, 31] = 1e3, 1e-3
    norms[30:, 44] = 1e9  # too late to be chosen
    for step, row in enumerate(norms):
        sink.emit(seen(make_frame(step, row)))
    assert layer_charts(writer) == ["l13", "l31"]
    first_steps = charts(writer)["gradguard_layers/grad_norm/l13"]
    assert len(first_steps) >= 30
    assert first_steps[-1] == (59, 1.0)


def test_layer_globs_choose_at_once_whatever_the_number(writer) -> None:
    sink = TensorBoardSink(writer, layers=["l1?"])
    sink.emit(seen(make_frame(0, np.ones(100))))
    assert layer_charts(writer) == [f"l{i}" for i in range(10, 20)]


def test_optimizers_have_charts_of_their_own(writer) -> None:
    sink = TensorBoardSink(writer)
    sink.emit(seen(make_frame(0, (1.0,), layers=["g"])))
    sink.emit(seen(make_frame(0, (2.0,), layers=["d"], optimizer_index=1)))
    found = charts(writer)
    assert found["gradguard_layers/grad_norm/g"] == [(0, 1.0)]
    assert found["gradguard_layers/grad_norm/d/optimizer_1"] == [(0, 2.0)]


def test_findings_are_one_list_with_the_latest_first(writer) -> None:
    sink = TensorBoardSink(writer)
    sink.emit(make_finding(step=3, layers=("stem",), advice="normalise."))
    sink.emit(make_finding("exploding", 9, severity=Severity.CRITICAL))
    event = read(writer).Tensors("gradguard/findings/text_summary")[-1]
    lines = event.tensor_proto.string_val[0].decode().split("\n")
    assert event.step == 9
    assert lines == [
        "- **step 9: CRITICAL exploding opened** in `whole model`: seen.",
        "- **step 3: ERROR vanishing opened** in `stem`: seen. *Try:* normalise.",
    ]


def test_list_of_findings_is_bounded(writer) -> None:
    sink = TensorBoardSink(writer)
    for step in range(205):
        sink.emit(make_finding(step=step))
    text = read(writer).Tensors("gradguard/findings/text_summary")[-1].tensor_proto.string_val[0]
    assert len(text.decode().split("\n")) == 200


def test_what_a_guard_did_is_a_list_with_the_latest_first_and_without_clipping(writer) -> None:
    sink = TensorBoardSink(writer)
    for step in range(60):
        sink.emit(Action(what="skip", step=step, why="loss is NaN"))
        sink.emit(Action(what="clip", step=step))
    sink.emit(Action(what="stop", step=60, why="diverging since 40"))
    event = read(writer).Tensors("gradguard/actions/text_summary")[-1]
    lines = event.tensor_proto.string_val[0].decode().split("\n")
    assert event.step == 60
    assert lines[:2] == [
        "- step 60  stops the training: diverging since 40",
        "- step 59  left out this step: loss is NaN",
    ]
    assert len(lines) == 50


def test_tensorboard_has_no_use_for_the_summary(writer) -> None:
    TensorBoardSink(writer).emit(summarise([], observed_steps=1, steps=1))
    assert read(writer).Tags()["scalars"] == []


# Other loggers.


def test_csv_logger_has_the_numbers_on_disk(tmp_path) -> None:
    logger = CSVLogger(tmp_path)
    sink = LoggerSink(logger)
    for step in range(5):
        frame = make_frame(step, (3.0, 4.0 * step))
        sink.emit(seen(frame, is_due=step % 2 == 1, severity=Severity.WARNING))
    sink.emit(make_finding())
    sink.emit(summarise([], observed_steps=1, steps=1))
    logger.save()
    with (Path(logger.log_dir) / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [1, 3]
    norms = [float(row["gradguard/global_grad_norm"]) for row in rows]
    assert norms == pytest.approx([5.0, math.hypot(3.0, 12.0)])
    assert [float(row["gradguard/severity"]) for row in rows] == [30.0, 30.0]


def test_every_sink_keeps_the_protocol(writer, tmp_path) -> None:
    for sink in (ConsoleSink(), TensorBoardSink(writer), LoggerSink(CSVLogger(tmp_path))):
        assert isinstance(sink, Sink)
