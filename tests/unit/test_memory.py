"""Columns that move with their segments."""

from __future__ import annotations

import json
import math

import pytest
import torch

from lightning_gradguard.remedies.memory import Memory
from tests.strategies import through_json


def memory(*names, dtype=torch.float64):
    kept = Memory({"mean": (1, 0.0), "norms": (2, math.nan)})
    if names:
        kept.align(names, like=torch.zeros(len(names), dtype=dtype))
    return kept


def filled(*names):
    kept = memory(*names)
    kept["mean"] += torch.arange(1.0, len(names) + 1.0)
    kept["norms"][0] = 10.0 * kept["mean"][0]
    kept.steps = 3
    return kept


def test_a_new_segment_starts_with_what_was_said() -> None:
    kept = memory("a", "b")
    assert kept["mean"].tolist() == [[0.0, 0.0]]
    assert kept["norms"].isnan().all()
    assert kept["norms"].shape == (2, 2)


def test_columns_move_with_their_names_and_new_ones_start_afresh() -> None:
    kept = filled("a", "b", "c")
    kept.align(["c", "new", "a"], like=torch.zeros(3, dtype=torch.float64))
    assert kept["mean"].tolist() == [[3.0, 0.0, 1.0]]
    first = kept["norms"][0].tolist()
    assert (first[0], first[2]) == (30.0, 10.0)
    assert math.isnan(first[1])
    assert kept.steps == 3


def test_the_same_names_change_nothing() -> None:
    kept = filled("a", "b")
    before = kept["mean"]
    kept.align(["a", "b"], like=torch.zeros(2, dtype=torch.float64))
    assert kept["mean"] is before


def test_names_that_have_nothing_in_common_start_afresh() -> None:
    kept = filled("a", "b")
    kept.align(["x"], like=torch.zeros(1, dtype=torch.float64))
    assert kept["mean"].tolist() == [[0.0]]


def test_numbers_follow_the_dtype_that_is_used() -> None:
    kept = filled("a", "b")
    kept.align(["a", "b"], like=torch.zeros(2, dtype=torch.float32))
    assert kept["mean"].dtype == kept["norms"].dtype == torch.float32
    assert kept["mean"].tolist() == [[1.0, 2.0]]


def test_state_is_json_without_nan() -> None:
    text = json.dumps(filled("a", "b").state_dict(), allow_nan=False)
    assert json.loads(text) == {
        "steps": 3,
        "names": ["a", "b"],
        "numbers": {"mean": [[1.0, 2.0]], "norms": [[10.0, 20.0], [None, None]]},
    }


def test_saved_and_loaded_it_is_the_same() -> None:
    kept = filled("a", "b")
    resumed = through_json(kept, memory())
    assert resumed.state_dict() == kept.state_dict()
    resumed.align(["b", "a"], like=torch.zeros(2, dtype=torch.float64))
    assert resumed["mean"].tolist() == [[2.0, 1.0]]
    assert through_json(memory(), memory()).state_dict() == memory().state_dict()


def test_an_empty_state_can_be_loaded_and_used() -> None:
    resumed = through_json(memory(), memory())
    resumed.align(["a"], like=torch.zeros(1))
    assert resumed["mean"].tolist() == [[0.0]]


def test_infinity_is_not_kept() -> None:
    kept = filled("a")
    kept["norms"][1] = math.inf
    assert kept.state_dict()["numbers"]["norms"] == [[10.0], [None]]


def test_state_of_another_window_is_refused() -> None:
    other = Memory({"norms": (5, math.nan)})
    with pytest.raises(ValueError, match=r"`norms` must have 5 rows, got 2: another window\?"):
        other.load_state_dict(filled("a").state_dict())
    assert other.state_dict() == Memory({"norms": (5, math.nan)}).state_dict()
