"""What is sent arrives, whatever happens to the source meanwhile."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lightning_gradguard.transfer import Transfer

pytestmark = pytest.mark.usefixtures("backend")


def test_numbers_arrive_under_their_names_in_their_shapes() -> None:
    sent = {
        "matrix": torch.arange(6.0).reshape(2, 3),
        "scalar": torch.tensor(7),
        "empty": torch.empty(0, 4),
        "half": torch.tensor([0.5, -2.0], dtype=torch.float16),
    }
    arrived = Transfer(sent).arrive()
    assert list(arrived) == list(sent)
    for name, tensor in sent.items():
        np.testing.assert_array_equal(arrived[name], tensor.double().numpy())
        assert arrived[name].dtype == np.float64


def test_later_changes_of_the_source_do_not_arrive() -> None:
    source = torch.ones(3, dtype=torch.float64)
    transfer = Transfer({"only": source})
    source.zero_()
    assert transfer.arrive()["only"].tolist() == [1.0, 1.0, 1.0]


def test_tensors_that_require_gradients_may_be_sent() -> None:
    assert Transfer({"w": torch.ones(1, requires_grad=True)}).arrive()["w"].tolist() == [1.0]


def test_float64_precision_survives() -> None:
    tiny = 1.0 + 2.0**-50
    assert Transfer({"x": torch.tensor(tiny, dtype=torch.float64)}).arrive()["x"] == tiny


def test_what_is_on_the_host_already_goes_along_in_its_place() -> None:
    array = np.arange(3.0)
    arrived = Transfer({"a": torch.ones(2), "array": array, "b": torch.tensor(3.0)}).arrive()
    assert list(arrived) == ["a", "array", "b"]
    assert arrived["array"] is array


def test_nothing_sent_is_nothing_arrived() -> None:
    assert Transfer({}).arrive() == {}
