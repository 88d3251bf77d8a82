"""The kernel equals float64 where it can run, and torch's operators do its work where it cannot."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_gradguard import measure
from lightning_gradguard.measure import device, foreach, kernel, programs
from tests import oracles

CPU = torch.device("cpu")
LARGE = 40_000
EXACT = ("squares", "total", "abs_max", "nonfinite")


def tensors():
    whole = torch.randn(LARGE)
    broken = torch.randn(LARGE)
    broken[3], broken[-1] = float("nan"), float("-inf")
    return [whole, broken, torch.randn(300, 100).t(), torch.randn(LARGE).double()]


def expected(values):
    rows = [oracles.statistics(oracles.entries(value)) for value in values]
    return np.array([[row[name] for row in rows] for name in EXACT])


@pytest.fixture
def as_on_cuda(monkeypatch):
    """Ask the kernel for tensors on the CPU, where it cannot run unless a test replaces it."""
    monkeypatch.setattr(kernel, "_device_type", lambda: "cpu")
    kernel._proved_itself.cache_clear()
    yield monkeypatch
    kernel._proved_itself.cache_clear()


def raises(_values):
    msg = "no compiler\nin three lines"
    raise RuntimeError(msg)


def is_wrong(values):
    return foreach.read(values) * (1.0 + 1e-8)


def takes_nothing(_values):
    return None


# The decision.


@pytest.mark.parametrize(
    ("broken", "reason"),
    [(raises, "RuntimeError: no compiler"), (is_wrong, "differ"), (takes_nothing, "differ")],
)
def test_a_kernel_that_fails_is_never_used_and_one_line_says_why(
    as_on_cuda, caplog, broken, reason
):
    as_on_cuda.setattr(kernel, "read", broken)
    values = tensors()
    with caplog.at_level(logging.INFO, logger="lightning_gradguard"):
        for _ in range(3):
            np.testing.assert_allclose(device.read_large(values), expected(values), rtol=1e-9)
            np.testing.assert_allclose(device.large_squares(values), expected(values)[0], rtol=1e-9)
    (record,) = caplog.records
    assert record.levelno == logging.INFO
    assert reason in record.getMessage()
    assert "\n" not in record.getMessage()


def test_a_kernel_that_is_right_is_used_after_one_trial(as_on_cuda, caplog):
    calls = []

    def is_right(values):
        calls.append(len(values))
        return foreach.read(values)

    as_on_cuda.setattr(kernel, "read", is_right)
    values = tensors()
    with caplog.at_level(logging.INFO, logger="lightning_gradguard"):
        device.read_large(values)
        device.large_squares(values)
        assert not device.finite_sum(measure.Plan.of([LARGE], num_whole=0), values).isfinite()
    assert calls[1:] == [len(values)] * 3
    assert not caplog.records


def test_where_there_is_no_cuda_the_kernel_is_not_even_tried(monkeypatch):
    monkeypatch.setattr(kernel, "read", raises)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    assert not kernel.is_usable(CPU, reference=foreach.read)


def test_while_a_graph_is_captured_the_kernel_is_not_used(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    assert not kernel.is_usable(torch.device("cuda"), reference=foreach.read)
    assert kernel._proved_itself.cache_info().currsize == 0


@pytest.mark.parametrize(
    "strange",
    [torch.empty(0), torch.ones(3, dtype=torch.int64), torch.ones(3, device="meta")],
    ids=["empty", "integer", "without memory"],
)
def test_what_is_not_plain_memory_is_left_to_torch(strange):
    assert kernel.read([torch.ones(3), strange]) is None


def test_the_kernel_is_given_addresses_of_numbers_that_lie_side_by_side(monkeypatch):
    launched = []
    monkeypatch.setattr(kernel, "_launch", lambda *given: launched.append(given))
    dense, turned, sliced = torch.randn(9), torch.randn(4, 5).t(), torch.randn(40)[::2]
    kernel.read([dense, turned, sliced, torch._neg_view(dense)])
    ((pointers, work),) = launched
    assert pointers.tolist()[:2] == [dense.data_ptr(), turned.data_ptr()]
    assert not {sliced.data_ptr(), dense.data_ptr()} & set(pointers.tolist()[2:])
    assert work.chunks.tolist() == [[0, 0, 9], [1, 0, 20], [2, 0, 20], [3, 0, 9]]


# The tables.


def test_chunks_cover_each_entry_once_and_lie_together_by_dtype_and_by_tensor():
    sizes = (2 * kernel._CHUNK + 5, 7, kernel._CHUNK, 1)
    dtypes = (torch.float32, torch.bfloat16, torch.float32, torch.bfloat16)
    work = kernel._work(sizes, dtypes, CPU)
    assert work.launches == ((torch.float32, 0, 4), (torch.bfloat16, 4, 2))
    for index, (first, last) in enumerate(work.spans.tolist()):
        chunks = work.chunks[first:last].tolist()
        assert [tensor for tensor, _, _ in chunks] == [index] * len(chunks)
        covered = [i for _, start, length in chunks for i in range(start, start + length)]
        assert covered == list(range(sizes[index]))


def test_tables_are_made_once_for_the_same_sizes():
    kernel._work.cache_clear()
    for _ in range(3):
        kernel._work((5, 6), (torch.float32, torch.float32), CPU)
    assert kernel._work.cache_info().misses == 1


# Numbers.


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_torch_reads_tensors_larger_than_a_piece_like_others(monkeypatch, dtype):
    monkeypatch.setattr(foreach, "_PIECE", 9000)
    values = [tensor.to(dtype) for tensor in tensors()]
    np.testing.assert_allclose(foreach.read(values), expected(values), rtol=1e-9)


def test_without_an_operator_for_segments_sums_and_maxima_are_the_same(monkeypatch):
    plan = measure.Plan.of([5, 0, 7, 5000], num_whole=3)
    numbers = torch.randn(int(plan.taken.sum()), dtype=torch.float64)
    usual = device.segment_sum(plan, numbers), device.segment_max(plan, numbers.abs())
    monkeypatch.setattr(device, "_has_segments", lambda _device: False)
    torch.testing.assert_close(device.segment_sum(plan, numbers), usual[0])
    torch.testing.assert_close(device.segment_max(plan, numbers.abs()), usual[1])


needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")


@needs_triton
@pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION")
@pytest.mark.parametrize("name", kernel._TYPES.values())
def test_the_compiler_accepts_what_the_interpreter_does(monkeypatch, tmp_path, name):
    # It is stricter, and needs no device to say so.
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    import triton
    from triton.backends.compiler import GPUTarget

    kind = getattr(triton.language, name)
    for function, constants in zip(
        programs.compiled(), ({"kind": kind, "block": 1024}, {"block": 1024}), strict=True
    ):
        signature = dict.fromkeys(function.arg_names, "*i64") | dict.fromkeys(
            constants, "constexpr"
        )
        signature |= dict.fromkeys({"first", "total", "tensors"} & set(signature), "i32")
        signature |= dict.fromkeys({"partials", "results"} & set(signature), "*fp64")
        source = triton.compiler.ASTSource(function, signature, constants)
        assert triton.compile(source, target=GPUTarget("cuda", 90, 32)).asm["cubin"]


@needs_triton
def test_interpreted_kernel_equals_float64():
    script = Path(__file__).with_name("interpreted_kernel.py")
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    root = Path(__file__).parents[2]
    done = subprocess.run(  # noqa: S603 - Python with a script of ours
        [sys.executable, script],
        env=environment,
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
