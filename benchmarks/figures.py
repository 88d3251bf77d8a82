"""Draw the pictures of the documentation, each from trainings made here and now.

In: options. Out: images in ``docs/images``. Needs matplotlib and rich; takes a few minutes.

    python -m benchmarks.figures
    python -m benchmarks.figures --only depth-response activations

The pictures of TensorBoard are screenshots of the demonstration's logs, taken in a browser.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from pytorch_lightning import Trainer, seed_everything

from examples.demo import RUNS
from examples.reference.first_examples import CURVES, DEPTHS, decades_lost
from examples.reference.train import _keep_lightning_quiet
from lightning_gradguard import Frame, GradientMonitor, Sink
from lightning_gradguard.events import Event, Observation
from lightning_gradguard.sinks import ConsoleSink

IMAGES: Final = Path(__file__).parents[1] / "docs" / "images"
SEED: Final = 0
SEEDS: Final = (0, 1, 2)

# Okabe and Ito's colours, which people with any kind of colour vision can tell apart; markers
# and dashes say the same again.
BLACK, ORANGE, SKY, GREEN, BLUE, RED = (
    "black",
    "#E69F00",
    "#56B4E9",
    "#009E73",
    "#0072B2",
    "#D55E00",
)
STYLES: Final = (
    {"color": RED, "marker": "o", "linestyle": "-"},
    {"color": BLUE, "marker": "s", "linestyle": "--"},
    {"color": ORANGE, "marker": "^", "linestyle": "-."},
    {"color": GREEN, "marker": "D", "linestyle": ":"},
)
SICK: Final = {"color": RED, "marker": "o", "linestyle": "-"}
WELL: Final = {"color": BLUE, "marker": "s", "linestyle": "--"}


class Recorder:
    """A sink that keeps every frame."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []

    def emit(self, event: Event) -> None:
        """Keep the frame of an observation."""
        if isinstance(event, Observation):
            self.frames.append(event.frame)


def watch(name: str, *sinks: Sink, seed: int = SEED) -> None:
    """Train a reference run, telling some sinks."""
    _keep_lightning_quiet()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    run = next(run for run in RUNS if run.name == name)
    seed_everything(seed, verbose=False)
    training, _ = run.data(seed)
    trainer = Trainer(
        accelerator="cpu",
        max_steps=run.max_steps,
        max_epochs=-1,
        gradient_clip_val=run.gradient_clip_val,
        callbacks=[GradientMonitor(sinks=sinks, on_error="raise")],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(run.model(), training)


@cache
def frames_of(name: str) -> tuple[Frame, ...]:
    """Train a reference run and return every step."""
    recorder = Recorder()
    watch(name, recorder)
    return tuple(recorder.frames)


def depth_response() -> Figure:
    """Gradient lost over depth at initialisation, for four networks."""
    figure, axes = _canvas(height=4.0)
    labels = {
        ("sigmoid", "default"): "sigmoid, PyTorch's default",
        ("tanh", "xavier"): "tanh, Xavier",
        ("relu", "default"): "ReLU, PyTorch's default",
        ("relu", "he"): "ReLU, He",
    }
    for curve, style in zip(CURVES, STYLES, strict=True):
        lost = np.array([[decades_lost(depth, *curve, seed) for seed in SEEDS] for depth in DEPTHS])
        axes.plot(DEPTHS, lost.mean(axis=1), label=labels[curve], **style)
        axes.fill_between(
            DEPTHS, lost.min(axis=1), lost.max(axis=1), color=style["color"], alpha=0.15
        )
    axes.axhline(0.0, color="0.6", linewidth=0.8, zorder=0)
    axes.set_xticks(DEPTHS)
    axes.set_xlabel("hidden layers")
    axes.set_ylabel("gradient lost from the last hidden layer\nto the first (factors of ten)")
    axes.set_title("At initialisation; mean and range of three seeds", fontsize=10)
    axes.legend(frameon=False)
    return figure


def profiles() -> Figure:
    """Gradient over weight against depth, for a failing run and its cured twin, twice."""
    figure, panels = _canvas(2)
    pairs = (
        ("20 convolution layers", "plain20-no-norm", "resnet20"),
        ("10 sigmoid layers", "sigmoid10", "sigmoid10-norm"),
    )
    for axes, (title, failing, cured) in zip(panels, pairs, strict=True):
        for name, style in ((failing, SICK), (cured, WELL)):
            ratios = np.array([_weight_ratios(frame) for frame in frames_of(name)[-20:]])
            axes.plot(*_numbered(np.median(ratios, axis=0)), label=name, **style)
        _depth_axes(axes, title)
        axes.legend(frameon=False, loc="lower right")
    panels[0].set_ylabel("gradient norm / weight norm\n(median of the last 20 steps)")
    return figure


def explode_then_vanish() -> Figure:
    """Two runs whose gradients explode at the first step and are too small afterwards."""
    figure, panels = _canvas(2, height=3.4)
    chosen = {"plain56": (0, 1, 5, 79), "tanh20-large": (0, 1, 5, 109)}
    titles = {
        "plain56": "plain56: batch norm without skips",
        "tanh20-large": "tanh20-large: Xavier with gain 5",
    }
    for axes, (name, steps) in zip(panels, chosen.items(), strict=True):
        frames = frames_of(name)
        floor = min(
            float(r[r > 0.0].min()) for r in (_weight_ratios(frames[step]) for step in steps)
        )
        for step, style in zip(steps, STYLES, strict=True):
            ratios = _weight_ratios(frames[step])
            shown = np.where(ratios > 0.0, ratios, np.nan)
            axes.plot(*_numbered(shown), label=f"step {step}", markersize=3.5, **style)
            _mark_zeros(axes, ratios, floor / 30.0, style["color"])
        _depth_axes(axes, titles[name])
        axes.legend(frameon=False, fontsize=8)
    panels[0].set_ylabel("gradient norm / weight norm")
    return figure


def time_steps() -> Figure:
    """Gradient of a recurrent layer's input at each time step, before and after training."""
    figure, panels = _canvas(2, sharey=True)
    styles = {"adding-rnn": SICK, "adding-gru": WELL, "adding-lstm": STYLES[3]}
    labels = {"adding-rnn": "tanh RNN", "adding-gru": "GRU", "adding-lstm": "LSTM, open gates"}
    for name, style in styles.items():
        sampled = [frame.time_profiles["core"] for frame in frames_of(name) if frame.time_profiles]
        for axes, norms in zip(panels, (sampled[0], np.median(sampled[-10:], axis=0)), strict=True):
            axes.plot(norms / norms[-1], label=labels[name], markevery=7, **style)
    for axes, title in zip(panels, ("first step", "end of training"), strict=True):
        axes.set_yscale("log")
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("time step (the loss is at the last one)")
        axes.grid(color="0.9")
    panels[0].set_ylabel("gradient norm of the input,\nrelative to the last time step")
    panels[1].legend(frameon=False, fontsize=9, loc="lower right")
    return figure


def activations() -> Figure:
    """Slopes of four activation functions."""
    figure, axes = _canvas(height=3.4)
    z = torch.linspace(-6.0, 6.0, 481)
    functions: tuple[tuple[str, Callable[[torch.Tensor], torch.Tensor]], ...] = (
        ("sigmoid", torch.sigmoid),
        ("tanh", torch.tanh),
        ("ReLU", torch.relu),
        ("ELU", torch.nn.functional.elu),
    )
    for (label, function), style in zip(functions, STYLES, strict=True):
        inputs = z.clone().requires_grad_()
        (slope,) = torch.autograd.grad(function(inputs).sum(), inputs)
        axes.plot(z.numpy(), slope.numpy(), label=label, markevery=40, markersize=4, **style)
    axes.axhline(0.25, color="0.6", linewidth=0.8)
    axes.text(-5.9, 0.27, "0.25, the most a sigmoid has", fontsize=8, color="0.35")
    axes.set_xlabel("input of the activation function")
    axes.set_ylabel("its slope: the factor it\nputs into the gradient")
    axes.legend(frameon=False)
    return figure


def terminal() -> str:
    """Return what a terminal shows of a failing run, as SVG."""
    from rich.console import Console
    from rich.text import Text

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    # What rich asks the environment about a terminal.
    os.environ |= {"COLUMNS": "112", "FORCE_COLOR": "1", "COLORTERM": "truecolor"}
    stream = Terminal()
    watch("plain20-no-norm", ConsoleSink(stream))
    recording = Console(record=True, width=112, file=io.StringIO())
    recording.print(Text.from_ansi(stream.getvalue()))
    svg = recording.export_svg(title="plain20-no-norm under GradientMonitor", unique_id="gradguard")
    # Pages show images without fetching fonts for them: leave that to the reader's monospace.
    return re.sub(r"\s*@font-face \{.*?\}", "", svg, flags=re.DOTALL)


def _canvas(columns: int = 1, *, height: float = 3.8, **options: Any) -> tuple[Figure, Any]:  # noqa: ANN401
    """Return a figure, and its axes side by side."""
    figure: Figure
    figure, axes = plt.subplots(
        1, columns, figsize=(6.4 if columns == 1 else 9.0, height), **options
    )
    return figure, axes


def _weight_ratios(frame: Frame) -> np.ndarray:
    ratios = frame.weight_grad_ratio
    return ratios[~np.isnan(ratios)]


def _numbered(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.arange(1, len(values) + 1), values


def _mark_zeros(axes: Axes, ratios: np.ndarray, height: float, color: str) -> None:
    """Put a cross where a gradient is exactly zero, which a log axis cannot show."""
    numbers = np.flatnonzero(ratios == 0.0) + 1
    if len(numbers):
        axes.plot(numbers, np.full(len(numbers), height), "x", color=color, label="exactly zero")


def _depth_axes(axes: Axes, title: str) -> None:
    axes.set_yscale("log")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("weight layer, from the input to the loss")
    axes.set_title(title, fontsize=10)
    axes.grid(color="0.9")


FIGURES: Final[Mapping[str, Callable[[], Figure]]] = {
    "depth-response": depth_response,
    "profiles": profiles,
    "explode-then-vanish": explode_then_vanish,
    "time-steps": time_steps,
    "activations": activations,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw what was asked for and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.figures", description=__doc__)
    names = [*FIGURES, "terminal"]
    parser.add_argument("--only", nargs="+", metavar="IMAGE", choices=names, default=names)
    parser.add_argument("--output", type=Path, default=IMAGES)
    options = parser.parse_args(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    style: dict[str, Any] = {"axes.spines.top": False, "axes.spines.right": False, "font.size": 9}
    for name in options.only:
        if name == "terminal":
            (options.output / "terminal.svg").write_text(terminal(), encoding="utf-8")
        else:
            with plt.rc_context(style):
                figure = FIGURES[name]()
                figure.tight_layout()
                figure.savefig(
                    options.output / f"{name}.png", dpi=100, pil_kwargs={"optimize": True}
                )
        print(f"{name}: done", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
