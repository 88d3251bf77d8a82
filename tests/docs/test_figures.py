"""What the pages quote from the benchmarks is what the benchmarks wrote."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("detection.md", "acting.md")
RESULTS = "\n".join(
    path.read_text(encoding="utf-8") for path in (ROOT / "benchmarks" / "results").glob("*.md")
)
QUOTED = re.compile(r"^\|.*(?:\*\*.*\*\*|\d%).*\|$", re.MULTILINE)


@pytest.mark.parametrize("name", PAGES)
def test_every_row_with_a_measured_figure_is_a_row_of_the_results(name) -> None:
    page = (ROOT / "docs" / name).read_text(encoding="utf-8")
    rows = QUOTED.findall(page)
    assert rows
    assert [row for row in rows if row not in RESULTS] == []


def test_every_row_of_what_a_look_inside_costs_is_a_row_of_the_results() -> None:
    page = (ROOT / "docs" / "inside.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \w+: .*\|$", page, re.MULTILINE)
    assert len(rows) == 4
    assert [row for row in rows if row not in RESULTS] == []
