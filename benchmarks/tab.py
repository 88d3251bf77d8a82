"""How long the TensorBoard tab and the report take to open for a large run.

In: options. Out: ``benchmarks/results/tab.md``, and the same on the terminal. Needs Chromium.

    python -m benchmarks.tab --steps 10000 --layers 500
"""

from __future__ import annotations

import argparse
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from playwright.sync_api import Page, sync_playwright

import lightning_gradguard
from benchmarks.history import write_history
from benchmarks.shares import Share, share
from lightning_gradguard.history import load_run
from lightning_gradguard.report.html import write_report

RESULTS = Path(__file__).parent / "results" / "tab.md"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--layers", type=int, default=500)
    parser.add_argument("--times", type=int, default=7, help="how often each is measured")
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    options.step_ms = 0.0
    with TemporaryDirectory() as folder:
        logs = Path(folder, "logs")
        write_history(logs / "run" / "gradguard" / "history.sqlite", options)
        with load_run(logs) as run:
            kept = len(run.steps())
        rows = _measure(logs, Path(folder, "report.html"), options.times)
    about = (
        f"- {datetime.now(timezone.utc):%Y-%m-%d}, lightning-gradguard "
        f"{lightning_gradguard.__version__}, Python {platform.python_version()}, "
        f"{platform.system()} {platform.machine()}"
    )
    lines = [
        "# Opening a large run",
        "",
        "Made by `python -m benchmarks.tab`, with headless Chromium on the same machine.",
        "",
        about,
        f"- {options.steps:,} steps of {options.layers} layers, of which {kept:,} are kept",
        f"- Median of {options.times}, with quartiles in brackets",
        "",
        "| what | measured | target |",
        "| --- | ---: | ---: |",
        *rows,
        "",
    ]
    page = "\n".join(lines)
    options.output.write_text(page, encoding="utf-8")
    print(page)
    return 0


def _measure(logs: Path, report: Path, times: int) -> list[str]:
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(logs), "--port", "0"]
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        page = chromium.new_page(viewport={"width": 1300, "height": 900})
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:  # noqa: S603 - ours
            said: Any = process.stderr
            found = (re.search(r"http://\S+:\d+", line) for line in said)
            address = next(match.group() for match in found if match)
            opened = _timed(times, lambda: _open_tab(page, address))
            other = _timed(times, lambda: _choose(page, "statistic", "update_ratio"))
            process.terminate()
        written = _timed(times, lambda: _write_report(logs, report))
        read = _timed(times, lambda: _open_report(page, report))
        chromium.close()
    return [
        f"| the tab, from its address to the picture | {_seconds(opened)} | 3 s |",
        f"| another statistic | {_seconds(other)} | |",
        f"| writing the report, {report.stat().st_size / 1e6:.0f} MB | {_seconds(written)} | |",
        f"| opening it | {_seconds(read)} | |",
    ]


def _timed(times: int, work: Callable[[], object]) -> Share:
    taken = []
    for _ in range(times + 1):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return share(taken[1:])  # the first time warms everything up


def _open_tab(page: Page, address: str) -> None:
    page.goto("about:blank")
    page.goto(f"{address}/#gradguard")
    page.frame_locator("iframe").locator("main[data-ready]").wait_for(timeout=60_000)


def _choose(page: Page, control: str, value: str) -> None:
    tab = page.frame_locator("iframe")
    picker = tab.locator(f"[data-control={control}]")
    now = picker.input_value()
    canvas = tab.locator(".gg-map canvas").element_handle()
    picker.select_option(value if now != value else "grad_norm")
    canvas.wait_for_element_state("hidden")  # another takes its place


def _write_report(logs: Path, report: Path) -> None:
    with load_run(logs) as run:
        write_report([run], report)


def _open_report(page: Page, report: Path) -> None:
    page.goto("about:blank")
    page.goto(report.as_uri())
    page.locator("main[data-ready]").wait_for(timeout=60_000)


def _seconds(found: Share) -> str:
    return f"{found.middle:.2f} s ({found.low:.2f} to {found.high:.2f})"


if __name__ == "__main__":
    sys.exit(main())
