"""The noise scale of a made-up problem, of which it is known."""

from __future__ import annotations

import numpy as np
import pytest

from lightning_gradguard.noise import NoiseScale
from tests.strategies import make_frame, through_json

SIZE = 40


def frame(first, mean, *, batches=4, world_size=1, **fields):
    return make_frame(
        first_batch_grad_norm=float(first),
        global_grad_norm=float(mean),
        accumulated_batches=batches,
        world_size=world_size,
        **fields,
    )


def frames(steps, *, noise_scale, batches=4, world_size=1, seed=0):
    """Return steps whose gradients are a signal of norm 1 plus Gaussian noise, batch by batch."""
    rng = np.random.default_rng(seed)
    signal = np.full(SIZE, SIZE**-0.5)
    noise = rng.normal(size=(steps, batches * world_size, SIZE)) * (noise_scale / SIZE) ** 0.5
    gradients = signal + noise
    first = np.linalg.norm(gradients[:, 0], axis=1)
    mean = np.linalg.norm(gradients.mean(axis=1), axis=1)
    return [
        frame(one, all_, batches=batches, world_size=world_size)
        for one, all_ in zip(first, mean, strict=True)
    ]


def learned(frames, noise=None):
    noise = NoiseScale() if noise is None else noise
    for one in frames:
        noise.update(one)
    return noise


@pytest.mark.parametrize("noise_scale", [0.5, 5.0, 20.0])
@pytest.mark.parametrize(("batches", "world_size"), [(2, 1), (8, 1), (4, 2)])
def test_it_is_noise_over_signal_in_batches(noise_scale, batches, world_size) -> None:
    run = frames(2000, noise_scale=noise_scale, batches=batches, world_size=world_size)
    found = learned(run, NoiseScale(decay=0.999)).value
    assert found == pytest.approx(noise_scale, rel=0.25)


def test_more_batches_in_a_window_do_not_move_it() -> None:
    few = learned(frames(2000, noise_scale=3.0, batches=2), NoiseScale(decay=0.999)).value
    many = learned(frames(2000, noise_scale=3.0, batches=16), NoiseScale(decay=0.999)).value
    assert few == pytest.approx(many, rel=0.2)


def test_batches_that_agree_have_none() -> None:
    assert learned([frame(2.0, 2.0)] * 30).value == pytest.approx(0.0)


def test_nothing_is_said_before_twenty_steps() -> None:
    run = frames(20, noise_scale=1.0)
    noise = learned(run[:19])
    assert noise.value is None
    assert learned(run[19:], noise).value is not None


def test_nothing_is_said_while_the_signal_drowns() -> None:
    # Four batches whose mean is less than a half of one of them long: pure noise, or worse.
    assert learned([frame(2.0, 0.9)] * 30).value is None


def silent():
    return [
        make_frame(global_grad_norm=1.0),
        frame(1.0, 1.0, batches=1),
        # Of a window of one batch, DDP has already averaged the first gradient over the ranks.
        frame(1.0, 1.0, batches=1, world_size=2),
        frame(np.nan, 1.0),
        frame(1.0, np.inf),
    ]


@pytest.mark.parametrize("teaches_nothing", silent())
def test_a_step_that_compares_nothing_teaches_nothing(teaches_nothing) -> None:
    run = frames(50, noise_scale=2.0)
    mixed = [f for pair in zip(run, [teaches_nothing] * 50, strict=True) for f in pair]
    assert learned(mixed).state_dict() == learned(run).state_dict()


def test_it_goes_on_where_it_was_saved() -> None:
    run = frames(100, noise_scale=2.0)
    saved = through_json(learned(run[:60]), NoiseScale())
    assert learned(run[60:], saved).value == learned(run).value
