"""What the monitor costs on a GPU, as a share of the step of a model of 124 M parameters.

In: options. Out: ``benchmarks/results/gpu.md`` and the same on the terminal. The exit code is 1
when the monitor costs more than it may, and 2 where there is no GPU.

    python -m benchmarks.gpu
    python -m benchmarks.gpu --device cpu --tiny    # tries the code; its figures mean nothing
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import torch

from benchmarks import gpu_page, gpu_statistics
from benchmarks.gpu_driver import calls_of, memory_of, wait_of
from benchmarks.gpu_page import Results
from benchmarks.gpu_training import Gpt2, Size, interleaved

RESULTS: Final = Path(__file__).parent / "results" / "gpu.md"
_TINY: Final = Size(words=100, width=64, layers=2, length=16, batch_size=2, turns=3, steps=5)
_LARGE_TENSOR: Final = 8192
"""Entries of a tensor that is read by the kernel, not joined with the others."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write the page and return the exit code."""
    options = _options(arguments)
    if options.device.type == "cuda" and not torch.cuda.is_available():
        print("There is no CUDA device here, so nothing was measured. Try: --device cpu --tiny")
        return 2
    # Lightning's advice, here and below, would stand between the figures.
    logging.getLogger("lightning_utilities.core.rank_zero").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = _measure(options)
    given = sys.argv[1:] if arguments is None else arguments
    page = gpu_page.page(results, given)
    print(page)
    if options.output is not None:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(page, encoding="utf-8")
    # So few steps as in a tiny run judge nothing.
    return 0 if options.tiny or results.is_met else 1


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--device", type=torch.device, default=torch.device("cuda", 0))
    parser.add_argument("--tiny", action="store_true", help="try the code; writes nothing")
    parser.add_argument("--batch-size", type=int, default=Size.batch_size)
    parser.add_argument("--turns", type=int, default=Size.turns, help="of 10 steps each")
    parser.add_argument("--output", type=Path, help=f"default: {RESULTS.name}, unless --tiny")
    options = parser.parse_args(arguments)
    if options.device == torch.device("cuda"):
        options.device = torch.device("cuda", 0)
    if options.device.type != "cuda" and not options.tiny:
        parser.error("only --tiny runs without CUDA.")
    if options.output is None and not options.tiny:
        options.output = RESULTS
    return options


def _measure(options: argparse.Namespace) -> Results:
    device, start = options.device, time.perf_counter()
    size = _TINY if options.tiny else Size(batch_size=options.batch_size, turns=options.turns)
    with torch.device("meta"):
        entries = sum(parameter.numel() for parameter in Gpt2(size).parameters())
    results = Results(device, size, entries, gpu_statistics.uses_kernel(device))
    _say("trainings in turn")
    results.turns = interleaved(size, device)
    if device.type == "cuda":
        for lane in ("base", "monitor"):
            _say(f"{lane}: launches, waits, memory")
            results.calls[lane] = calls_of(lane, size, device)
            results.waits[lane] = wait_of(lane, size, device)
            results.memory[lane] = memory_of(lane, size, device)
    else:
        calls_of("monitor", size, device)
    _measure_statistics(results, options)
    results.minutes = (time.perf_counter() - start) / 60.0
    return results


def _measure_statistics(results: Results, options: argparse.Namespace) -> None:
    size, device = results.size, results.device
    points, repeats = (2, 2) if options.tiny else (None, 25)
    _say("statistics alone")
    results.reading = gpu_statistics.costs_of_reading(size, device, repeats)
    entries, tensors = gpu_statistics.ENTRIES[:points], gpu_statistics.TENSORS[:points]
    results.over_entries = gpu_statistics.costs_of_entries(entries, device, repeats)
    for each in (64, _LARGE_TENSOR):
        costs = gpu_statistics.costs_of_tensors(tensors, each, device, repeats)
        results.over_tensors[each] = costs


def _say(what: str) -> None:
    print(f"{what} …", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
