"""A browser, a log directory with four runs, and TensorBoard over it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, FrameLocator, Page, expect, sync_playwright

from lightning_gradguard.audit import Action
from lightning_gradguard.findings import Finding, Severity
from lightning_gradguard.history.storage import Entry
from lightning_gradguard.history.writer import Writer
from lightning_gradguard.schema import HISTOGRAM_BINS
from tests.strategies import make_frame

HOSTILE = ("<img src=x onerror=hit()>", "a\x1b[2J\u202eb", "=1+1", "plain")
STEPS = 40
FAULT = Finding(
    kind="vanishing",
    severity=Severity.ERROR,
    step=12,
    since_step=7,
    layers=("body.0.fc", "body.1.fc"),
    message="gradients fade away",
    advice="skip connections",
    value=9.0,
    limit=4.0,
    unit="decades",
    episode_id=1,
)


def write(folder: Path, gradients_at: Any, layers: Any, records: Any = (), **more: Any) -> Writer:
    """Begin a history of `STEPS` steps."""
    writer = Writer(folder / "gradguard" / "history.sqlite", meta={"model": "tests.Net"})
    for step in range(STEPS):
        writer.add(Entry(frame_of(step, gradients_at(step), layers, **more), {"overhead_ms": 0.5}))
    for record in records:
        writer.add(record)
    return writer


def frame_of(step: int, gradients: Any, layers: Any, **more: Any) -> Any:
    """Return a step, every tenth of them with a histogram."""
    if step % 10 == 0:
        counts = np.zeros((len(layers), HISTOGRAM_BINS))
        counts[:, HISTOGRAM_BINS // 2] = 8.0
        more["log2_histogram"] = counts
    return make_frame(step, gradients, layers=layers, **more)


@pytest.fixture(scope="session")
def logs(tmp_path_factory) -> Path:
    """Return a log directory: a run that fails, a healthy one, a hostile one."""
    folder = tmp_path_factory.mktemp("logs")
    layers = [f"body.{i}.{part}" for i in range(4) for part in ("fc", "norm")]
    fading = [10.0 ** (i - 8) for i in range(8)]
    acts = [FAULT, Action(what="skip", step=20, why="loss is NaN")]
    write(folder / "fading", lambda _: fading, layers, acts).close("finished")
    write(folder / "healthy", lambda _: [1.0] * 8, layers).close("finished")
    found = Finding(
        kind="exploding",
        severity=Severity.CRITICAL,
        step=3,
        layers=HOSTILE[:2],
        message=HOSTILE[0],
        advice="\x1b[2J",
    )
    write(folder / "hostile", lambda s: [0.0, float("inf"), 1.0, s], HOSTILE, [found]).close()
    write_odd_runs(folder)
    return folder


def write_odd_runs(folder: Path) -> None:
    """Write what first comes by name and cannot be read; wide ranges; two optimizers."""
    (folder / "aaa-damaged" / "gradguard").mkdir(parents=True)
    (folder / "aaa-damaged" / "gradguard" / "history.sqlite").write_bytes(b"damaged")
    wide = [10.0 ** (-30 + s) if s < STEPS - 5 else 0.0 for s in range(STEPS)]
    write(folder / "wide", lambda s: [wide[s], 0.0], ("falling", "still")).close("finished")
    second = replace(FAULT, layers=("critic.0", "critic.1"), optimizer_index=1)
    writer = write(folder / "two", lambda _: [1.0, 1.0], ("maker.0", "maker.1"), [second])
    for step in range(STEPS):
        frame = frame_of(step, [1.0, 2.0], ("critic.0", "critic.1"), optimizer_index=1)
        writer.add(Entry(frame))
    writer.close("finished")
    write_crowded_run(folder)


CROWD = 2400
"""Steps of a run that has four in each column of the picture."""


def write_crowded_run(folder: Path) -> None:
    """Write a layer with a spike and a zero in one column, and with an infinity in another."""
    odd = {1200: 1e6, 1201: 0.0, 1800: 1e6, 1801: float("inf")}
    writer = Writer(folder / "crowded" / "gradguard" / "history.sqlite")
    for step in range(CROWD):
        over_time = {"odd": np.logspace(-9, 0, 10)} if step % 10 == 0 else {}
        rows = [odd.get(step, 1.0), 1.0]
        frame = make_frame(step, rows, layers=("odd", "plain"), time_profiles=over_time)
        writer.add(Entry(frame))
    for step in range(CROWD):
        writer.add(Action(what="clip", step=step))
    writer.close("finished")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Start Chromium."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
    if found is None and not os.environ.get("CI"):
        pytest.skip("there is no Chromium")
    with sync_playwright() as playwright:
        options = ["--no-sandbox", "--disable-gpu"]
        chromium = playwright.chromium.launch(executable_path=found, args=options)
        yield chromium
        chromium.close()


@dataclass
class Watched:
    """A page, and everything that it complained of or asked for."""

    page: Page
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.add_init_script(
            "window.hits = 0; window.hit = () => window.hits++;"
            "document.addEventListener('securitypolicyviolation', (event) =>"
            "console.error('policy: ' + event.blockedURI));"
        )

    def _hear(self, message: Any) -> None:
        # TensorBoard's own; and that a damaged run is refused.
        is_meant = "Three.js" in message.text or "aaa-damaged" in message.location["url"]
        if message.type in {"error", "warning"} and not is_meant:
            self.complaints.append(message.text)

    @property
    def tab(self) -> FrameLocator:
        """What TensorBoard shows for the tab."""
        return self.page.frame_locator("iframe")


@pytest.fixture
def watched(browser) -> Iterator[Watched]:
    """Open a window; a test that makes the page complain has failed."""
    page = browser.new_page(viewport={"width": 1300, "height": 900})
    seen = Watched(page)
    yield seen
    page.close()
    assert seen.complaints == []


@pytest.fixture(scope="session")
def tensorboard(logs) -> Iterator[Callable[[str], str]]:
    """Start TensorBoard with one of its loaders, and return its address."""
    with ExitStack() as running:
        yield lru_cache(lambda loader: running.enter_context(served(logs, loader)))


@contextmanager
def served(logs: Path, loader: str) -> Iterator[str]:
    """Run TensorBoard over a folder."""
    options = ["--logdir", logs, "--port", "0", f"--load_fast={loader == 'fast'}".lower()]
    command = [sys.executable, "-m", "tensorboard.main", "--host", "127.0.0.1", *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:  # noqa: S603 - ours
        said = (re.search(r"http://127\.0\.0\.1:\d+", line) for line in process.stderr)
        try:
            yield next(match.group() for match in said if match)
        finally:
            process.terminate()


@pytest.fixture
def opened(watched, tensorboard):
    """Open the tab, and a run in it; more keys of its link by name."""

    def show(run="", loader="fast", **link):
        more = "".join(f"&p.gradguard.{key}={value}" for key, value in {"run": run, **link}.items())
        watched.page.goto(f"{tensorboard(loader)}/#gradguard{more}")
        expect(watched.tab.locator("main[data-ready]")).to_be_attached(timeout=30_000)
        return watched.tab

    return show


def pixels(tab, x, y):
    """Return the colour at a share of the picture's cells across, and of its rows down."""
    return tab.locator(".gg-map canvas").evaluate(
        """(canvas, [x, y]) => {
          const wide = canvas.clientWidth, left = Math.min(230, Math.round(0.3 * wide));
          const tall = canvas.clientHeight - 36, ratio = canvas.width / wide;
          const across = (left + x * (wide - left - 10)) * ratio, down = (16 + y * tall) * ratio;
          const copy = document.createElement("canvas");
          [copy.width, copy.height] = [canvas.width, canvas.height];
          copy.getContext("2d").drawImage(canvas, 0, 0);
          return [...copy.getContext("2d").getImageData(across, down, 1, 1).data].slice(0, 3);
        }""",
        [x, y],
    )


def choose(tab, control, value):
    tab.locator(f"[data-control={control}]").select_option(value)
