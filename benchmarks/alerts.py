"""What alerts take from a training, while every server that they are for hangs.

In: options. Out: ``benchmarks/results/alerts.md``, and the same on the terminal.

    python -m benchmarks.alerts --events 5000
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path

import torch
from torch import nn

import lightning_gradguard
from benchmarks.shares import Share, share
from lightning_gradguard.alerts import Alerts, Apprise, Channel, Email, Webhook
from lightning_gradguard.alerts.desk import Desk
from lightning_gradguard.findings import Finding, Severity

RESULTS = Path(__file__).parent / "results" / "alerts.md"
TURNS = 61
STEPS = 60


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--events", type=int, default=5000)
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    with _silent_server() as port:
        os.environ["GRADGUARD_BENCHMARK_URL"] = f"http://127.0.0.1:{port}/x"
        os.environ["GRADGUARD_BENCHMARK_APPRISE"] = f"json://127.0.0.1:{port}/x"
        channels = _channels(port)
        puts = _time_puts(channels, options.events)
        ratio = _time_training(channels)
    about = (
        f"- {datetime.now(timezone.utc):%Y-%m-%d}, lightning-gradguard "
        f"{lightning_gradguard.__version__}, Python {platform.python_version()}, torch "
        f"{torch.__version__}, {platform.system()} {platform.machine()}"
    )
    lines = [
        "# Alerts while the network hangs",
        "",
        "Made by `python -m benchmarks.alerts`.",
        "",
        about,
        f"- {_named(channels)}, and a heartbeat",
        "- all to a server that takes connections and never answers",
        "- Median, with quartiles in brackets",
        "",
        "| what | measured | target |",
        "| --- | ---: | ---: |",
        f"| handing over an event, in the training thread | {_micro(share(puts))} | 50 µs |",
        f"| the same, 99th percentile | {1e6 * sorted(puts)[int(0.99 * len(puts))]:.1f} µs | |",
        f"| the same, longest of {len(puts):,} | {1e6 * max(puts):.0f} µs | |",
        f"| a training step with an alert in each, over one without | {_ratio(share(ratio))} | |",
        "",
    ]
    page = "\n".join(lines)
    options.output.write_text(page, encoding="utf-8")
    print(page)
    return 0


@contextmanager
def _silent_server() -> Iterator[int]:
    """Give a port of this machine where connections are taken by the system, and nobody answers."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(128)
        yield server.getsockname()[1]


def _channels(port: int) -> list[Channel]:
    mail = Email("a@x.example", sender="b@x.example", host="127.0.0.1", port=port, tls="none")
    found: list[Channel] = [Webhook(url_env="GRADGUARD_BENCHMARK_URL"), mail]
    if importlib.util.find_spec("apprise") is not None:
        found.append(Apprise(urls_env="GRADGUARD_BENCHMARK_APPRISE"))
    return found


def _named(channels: Sequence[Channel]) -> str:
    return ", ".join(type(channel).__name__ for channel in channels)


def _desk(channels: Sequence[Channel]) -> Desk:
    return Alerts(
        channels,
        cooldown_minutes=0.001,
        most_per_hour=1_000_000,
        heartbeat_url_env="GRADGUARD_BENCHMARK_URL",
        heartbeat_seconds=0.1,
    ).open("run")


def _finding(number: int) -> Finding:
    return Finding(
        kind="exploding",
        severity=Severity.CRITICAL,
        step=number,
        message="norm 1e9",
        layers=(f"layer{number}",),
        episode_id=number,
    )


def _time_puts(channels: Sequence[Channel], events: int) -> list[float]:
    """Return seconds per event, handed over as a training does: now and then."""
    desk, taken = _desk(channels), []
    findings = [_finding(number) for number in range(events)]
    for finding in findings:
        start = time.perf_counter()
        desk.put(finding)
        desk.beat()
        taken.append(time.perf_counter() - start)
        time.sleep(0.0005)
    desk.close(0.1)
    return taken


def _time_training(channels: Sequence[Channel]) -> list[float]:
    """Return the time of some steps with an alert in each over that of as many without."""
    model = nn.Sequential(*[nn.Linear(256, 256) for _ in range(8)])
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    inputs = torch.randn(64, 256)
    desk, ratios = _desk(channels), []
    for turn in range(TURNS + 1):
        order = (None, desk) if turn % 2 else (desk, None)
        seconds = {one is None: _run(model, optimizer, inputs, one, turn) for one in order}
        ratios.append(seconds[False] / seconds[True])
    desk.close(0.1)
    return ratios[1:]


def _run(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    inputs: torch.Tensor,
    desk: Desk | None,
    turn: int,
) -> float:
    start = time.perf_counter()
    for step in range(STEPS):
        optimizer.zero_grad()
        model(inputs).square().mean().backward()
        optimizer.step()
        if desk is not None:
            desk.put(_finding(turn * STEPS + step))
            desk.beat()
    return time.perf_counter() - start


def _micro(found: Share) -> str:
    return f"{1e6 * found.middle:.1f} µs ({1e6 * found.low:.1f} to {1e6 * found.high:.1f})"


def _ratio(found: Share) -> str:
    return f"{found.middle:.3f} ({found.low:.3f} to {found.high:.3f})"


if __name__ == "__main__":
    sys.exit(main())
