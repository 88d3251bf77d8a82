"""States to go back to: the newest that is old enough, whole, and never written to."""

from __future__ import annotations

import copy
import re

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_gradguard.actions import states as states_file
from lightning_gradguard.actions.scaler import ScalerKeeper
from lightning_gradguard.actions.states import Generations


class Training:
    """A tiny training with everything that has a state."""

    def __init__(self, *, make=None):
        torch.manual_seed(1)
        self.model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
        self.model[2].register_buffer("hidden", torch.zeros(2), persistent=False)
        parameters = self.model.parameters()
        make = make or (lambda p: torch.optim.Adam(p, lr=0.1))
        self.optimizer = make(parameters)
        self.schedule = torch.optim.lr_scheduler.ExponentialLR(self.optimizer, 0.9)
        self.steps = 0

    def states(self, **options):
        return Generations(self.model, [self.optimizer], lambda: [self.schedule], **options)

    def run(self, steps):
        for _ in range(steps):
            generator = torch.Generator().manual_seed(self.steps)
            loss = self.model(torch.randn(8, 3, generator=generator)).square().mean()
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.schedule.step()
            self.model[2].hidden += loss.detach()
            self.steps += 1
        return self

    def left(self):
        tensors = {**dict(self.model.named_parameters()), **dict(self.model.named_buffers())}
        return copy.deepcopy(
            [
                {name: tensor.detach() for name, tensor in tensors.items()},
                self.optimizer.state_dict(),
                self.schedule.state_dict(),
            ]
        )


OPTIMIZERS = {
    "adam": lambda p: torch.optim.Adam(p, lr=0.1),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "tensor rate": lambda p: torch.optim.AdamW(p, lr=torch.tensor(0.1), foreach=False),
    "lbfgs-like lists": lambda p: torch.optim.ASGD(p, lr=0.1),
}


def assert_same(left, right):
    torch.testing.assert_close(left, right, rtol=0.0, atol=0.0)


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.usefixtures("backend")
def test_everything_goes_back_and_trains_on_as_it_did(make) -> None:
    training = Training(make=make).run(5)
    states = training.states()
    states.keep({0: 5})
    then = training.left()
    later = training.run(4).left()
    states.restore_(5)
    assert_same(training.left(), then)
    training.steps = 5
    assert_same(training.run(4).left(), later)


def test_training_on_does_not_write_to_what_is_kept() -> None:
    training = Training().run(3)
    states = training.states()
    states.keep({0: 3})
    then = training.left()
    for _ in range(3):
        training.run(4)
        states.restore_(3)
        assert_same(training.left(), then)


def test_a_state_kept_before_the_first_step_is_the_start() -> None:
    training = Training()
    states = training.states()
    states.keep({0: 0})
    then = training.left()
    training.run(3)
    states.restore_(0)
    assert_same(training.left(), then)
    assert training.optimizer.state == {}


def kept(*steps, **options):
    """Return states of a weight that is its own step."""
    model = nn.Linear(1, 1, bias=False)
    states = Generations(model, [], **options)
    for step in steps:
        nn.init.constant_(model.weight, step)
        states.keep({0: step}, extra=f"at {step}")
    return states, model


@pytest.mark.parametrize(
    ("before_step", "expected"), [(30, 30), (29, 20), (20, 20), (19, 10), (10, 10), (99, 30)]
)
def test_the_newest_state_from_before_a_step_is_found(before_step, expected) -> None:
    states, model = kept(10, 20, 30)
    assert states.find(before_step)
    assert states.restore_(before_step) == f"at {expected}"
    assert model.weight.item() == expected


def test_younger_states_are_forgotten() -> None:
    states, _ = kept(10, 20, 30)
    states.restore_(25)
    assert len(states) == 2
    assert states.restore_(99) == "at 20"


def test_where_no_state_is_old_enough_that_is_said() -> None:
    states, model = kept(10, 20)
    assert not states.find(9)
    with pytest.raises(LookupError, match=r"No state from before step 9 was kept\."):
        states.restore_(9)
    assert model.weight.item() == 20
    assert not kept()[0].find(100)


def test_only_so_many_generations_are_kept_and_the_oldest_go() -> None:
    states, _ = kept(10, 20, 30, 40, 50, most=3)
    assert len(states) == 3
    assert not states.find(29)
    assert states.restore_(30) == "at 30"


def test_memory_is_bounded_and_the_oldest_go_first() -> None:
    states, _ = kept(10, 20, 30, max_bytes=8)  # of 4 bytes each
    assert (len(states), states.num_bytes) == (2, 8)
    assert not states.find(19)
    assert kept(10, max_bytes=3)[0].num_bytes == 0


def test_what_optimizers_keep_counts() -> None:
    training = Training().run(1)
    states = training.states()
    states.keep({0: 1})
    tensors = training.left()[0].values()
    own = sum(t.numel() * t.element_size() for t in tensors)
    moments = sum(
        t.numel() * t.element_size() for s in training.optimizer.state.values() for t in s.values()
    )
    assert states.num_bytes == own + moments


def test_steps_are_those_of_the_optimizer_that_is_asked_about() -> None:
    model = nn.Linear(1, 1)
    states = Generations(model, [])
    states.keep({0: 10, 1: 3}, extra="early")
    states.keep({0: 20, 1: 6}, extra="late")
    assert states.find(5, optimizer_index=1)
    assert not states.find(5, optimizer_index=0)
    assert states.restore_(6, optimizer_index=1) == "late"
    assert states.restore_(0, optimizer_index=2) == "late"  # it has made no step


def test_a_scaler_is_kept_too() -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
    scaler.scale(torch.ones(1))
    states = Generations(nn.Linear(1, 1), [], lambda: [scaler])
    states.keep({0: 0})
    scaler.update(2.0)
    states.restore_(0)
    assert scaler.get_scale() == 64.0


def test_what_has_no_shape_yet_is_not_kept() -> None:
    model = nn.LazyLinear(2)
    states = Generations(model, [])
    states.keep({0: 0})
    assert len(states) == 0
    model(torch.ones(1, 3))
    states.keep({0: 1})
    assert len(states) == 1


def test_a_tensor_of_another_shape_than_then_is_left_alone() -> None:
    model = nn.Linear(2, 1)
    model.register_buffer("cache", torch.zeros(2))
    states = Generations(model, [])
    states.keep({0: 0})
    model.cache = torch.ones(5)
    nn.init.constant_(model.weight, 9.0)
    states.restore_(0)
    assert model.cache.tolist() == [1.0] * 5
    assert not (model.weight == 9.0).any()


def test_copies_from_a_device_are_waited_for(monkeypatch) -> None:
    waited = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: waited.append(True))
    states, _ = kept(10)
    states.restore_(10)
    assert waited


@pytest.mark.parametrize(("flag", "expected"), [(True, 64.0), (False, 2.0), (None, 2.0)])
def test_a_scaler_learns_nothing_from_a_step_that_is_left_out(flag, expected) -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
    scaler.scale(torch.ones(1))
    keeper = ScalerKeeper(scaler)
    for _ in range(2):
        keeper.note(None if flag is None else torch.tensor(flag))
        scaler.update(2.0)
        keeper.restore_()
        assert scaler.get_scale() == expected
    scaler.update(8.0)
    keeper.restore_()  # a step that nobody asked about
    assert scaler.get_scale() == 8.0


def test_without_a_scaler_there_is_nothing_to_keep() -> None:
    keeper = ScalerKeeper(None)
    keeper.note(torch.ones((), dtype=torch.bool))
    keeper.restore_()


def test_what_a_schedule_added_to_the_groups_since_stays() -> None:
    training = Training()
    states = training.states()
    states.keep({0: 0})
    training.optimizer.param_groups[0]["swa_lr"] = 0.05
    training.optimizer.param_groups[0]["lr"] = 9.0
    states.restore_(0)
    (group,) = training.optimizer.param_groups
    assert (group["swa_lr"], group["lr"]) == (0.05, 0.1)


def test_another_schedule_than_then_is_left_alone() -> None:
    training = Training()
    states = training.states()
    states.keep({0: 0})
    training.run(2)
    later = torch.optim.lr_scheduler.StepLR(training.optimizer, 1, gamma=0.5)
    later.step()
    training.schedule, old = later, training.schedule.state_dict()
    states.restore_(0)
    assert later.last_epoch == 1
    assert old["last_epoch"] == 2


def test_a_state_of_other_groups_is_passed_over_before_anything_is_written() -> None:
    training = Training()
    states = training.states()
    states.keep({0: 0})
    training.run(2)
    training.optimizer.param_groups[0]["params"].append(nn.Parameter(torch.ones(1)))
    before = training.left()
    assert states.is_outdated
    assert not states.find(5)
    with pytest.raises(LookupError):
        states.restore_(5)
    assert_same(training.left(), before)


def test_a_state_of_other_shapes_is_passed_over_before_anything_is_written() -> None:
    training = Training()
    training.run(2)
    states = training.states()
    states.keep({0: 2})
    last = training.model[2]
    last.weight = nn.Parameter(torch.ones(1, 7))
    training.optimizer.param_groups[0]["params"][4] = last.weight
    before = copy.deepcopy(training.model.state_dict())
    assert not states.find(5)
    with pytest.raises(LookupError):
        states.restore_(5)
    assert_same(training.model.state_dict(), before)


class Nothing(torch.optim.SGD):
    """An optimizer without a state, which stands where there is none."""

    def __init__(self):
        super().__init__([torch.zeros(1)], lr=0.1)

    def add_param_group(self, group):
        pass

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


def test_an_optimizer_without_a_state_fits_always() -> None:
    model = nn.Linear(1, 1, bias=False)
    states = Generations(model, [Nothing()])
    nn.init.constant_(model.weight, 1.0)
    states.keep({0: 0})
    nn.init.constant_(model.weight, 2.0)
    assert not states.is_outdated
    states.restore_(0)
    assert model.weight.item() == 1.0


def test_frozen_weights_are_kept_once_and_again_only_when_they_change() -> None:
    model = nn.Sequential(nn.Linear(10, 10, bias=False), nn.Linear(10, 1, bias=False))
    model[0].requires_grad_(False)
    states = Generations(model, [torch.optim.SGD(model[1].parameters(), lr=0.1)])
    sizes, seen = [], []
    for step in range(4):
        if step == 3:
            model[0].weight.fill_(3.0)
        states.keep({0: step})
        sizes.append(states.num_bytes)
        seen.append(model[0].weight.clone())
    assert sizes == [440, 480, 520, 960]
    states.restore_(3)
    assert torch.equal(model[0].weight, seen[3])
    states.restore_(2)
    assert torch.equal(model[0].weight, seen[0])


def follow_by_data(teacher, student):
    teacher.data.mul_(0.5).add_(0.5 * student.detach().data)


def follow_by_replacing(teacher, student):
    teacher.data = 0.5 * teacher.data + 0.5 * student.data


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.complex128])
@pytest.mark.parametrize("follow", [follow_by_data, follow_by_replacing])
@pytest.mark.usefixtures("backend")
def test_a_teacher_that_follows_the_weights_goes_back_with_them(follow, dtype) -> None:
    """As momentum encoders are updated everywhere: through what autograd does not count."""
    student = nn.Parameter(torch.randn(3, 2, dtype=dtype))
    model = nn.Module()
    model.student, model.teacher = student, nn.Parameter(student.detach() + 1, requires_grad=False)
    states, seen = Generations(model, [torch.optim.SGD([student], lr=0.1)]), []
    for step in range(4):
        states.keep({0: step})
        seen.append(model.teacher.detach().clone())
        follow(model.teacher, student)
    for step in (3, 1):
        states.restore_(step)
        assert torch.equal(model.teacher, seen[step])


def test_what_an_optimizer_trains_is_copied_even_where_autograd_does_not_count() -> None:
    model = nn.Linear(1, 1, bias=False)
    states = Generations(model, [torch.optim.SGD(model.parameters(), lr=0.1)])
    for step in range(2):
        model.weight.data.fill_(float(step))  # as kernels of others do: without a version
        states.keep({0: step})
    states.restore_(0)
    assert model.weight.item() == 0.0


@pytest.mark.parametrize(
    ("max_bytes", "said"),
    [
        (8, "takes 4e-09 GB, and 8e-09 GB are allowed .*: 2 of 4 are kept\\."),
        (3, "takes 4e-09 GB, and 3e-09 GB are allowed .*: none is kept, and going back is not"),
    ],
)
def test_memory_that_is_too_small_is_said_once(max_bytes, said, caplog) -> None:
    kept(10, 20, 30, 40, max_bytes=max_bytes)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert re.search(said, record.getMessage())


class Memory(TorchDispatchMode):
    """Add up what copies take."""

    copied = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.clone.default:
            self.copied += result.numel() * result.element_size()
        return result


def test_a_state_that_does_not_fit_is_never_copied() -> None:
    training = Training().run(1)
    states = training.states(max_bytes=100)
    with Memory() as memory:
        states.keep({0: 1})
    assert (len(states), memory.copied) == (0, 0)
    states = training.states()
    with Memory() as memory:
        states.keep({0: 1})
    assert states.num_bytes == memory.copied > 100


@pytest.mark.parametrize("options", [{"max_bytes": 8}, {"most": 2}])
def test_the_oldest_go_before_the_next_is_copied(options, monkeypatch) -> None:
    found = []
    states, _ = kept(10, 20, **options)
    copy_of = states_file.to_host
    monkeypatch.setattr(
        states_file, "to_host", lambda value: found.append(states.num_bytes) or copy_of(value)
    )
    states.keep({0: 30})
    assert set(found) == {4}
    assert states.num_bytes == 8


def test_frozen_weights_that_fit_once_do_not_count_again() -> None:
    model = nn.Sequential(nn.Linear(10, 10, bias=False), nn.Linear(10, 1, bias=False))
    model[0].requires_grad_(False)
    states = Generations(model, [], max_bytes=400 + 3 * 40)
    for step in range(5):
        states.keep({0: step})
    assert (len(states), states.num_bytes) == (3, 520)
    assert states.find(2)
    assert not states.find(1)


@pytest.mark.parametrize("change", ["another", "grown"])
def test_parameters_that_are_not_those_of_then_take_no_state(change) -> None:
    training = Training().run(1)
    states = training.states()
    states.keep({0: 1})
    if change == "another":
        training.optimizer.param_groups[0]["params"][0] = nn.Parameter(torch.ones(4, 3))
        training.optimizer.state.clear()
    else:
        training.model[0].weight.data = torch.ones(7, 3)
    assert states.is_outdated
    assert not states.find(5)
    states.keep({0: 2})
    assert len(states) == 1  # what fits no more takes no memory


def test_a_state_that_is_refused_in_the_middle_changes_nothing(monkeypatch) -> None:
    training = Training().run(3)
    states = training.states()
    states.keep({0: 3})
    before = training.run(2).left()

    def refuse(self, state):
        monkeypatch.undo()
        msg = "not mine"
        raise RuntimeError(msg)

    monkeypatch.setattr(type(training.schedule), "load_state_dict", refuse)
    with pytest.raises(RuntimeError, match="not mine"):
        states.restore_(3)
    assert_same(training.left(), before)
    states.restore_(3)  # and it may be tried again


@pytest.mark.parametrize(
    "tensor",
    [
        torch.ones(4).expand(3, 4),
        torch.ones(9)[1:],
        torch.ones(2, 3, 4, 4).to(memory_format=torch.channels_last),
        torch.full((2,), torch.nan),
        torch.eye(2).to_sparse(),
        torch.ones(2, device="meta"),
        torch.ones(0),
    ],
    ids=["repeated", "part", "channels last", "nan", "sparse", "meta", "empty"],
)
def test_buffers_and_frozen_weights_of_any_kind_are_no_trouble(tensor) -> None:
    model = nn.Linear(1, 1)
    model.frozen = nn.Parameter(tensor, requires_grad=False)
    model.register_buffer("kept", tensor)
    states, weight = Generations(model, []), model.weight.detach().clone()
    states.keep({0: 0})
    states.keep({0: 1})
    nn.init.constant_(model.weight, 9.0)
    states.restore_(0)
    assert torch.equal(model.weight, weight)
    if not tensor.is_meta:
        now = model.kept.to_dense()
        torch.testing.assert_close(now, tensor.to_dense(), equal_nan=True)


def test_a_state_that_does_not_fit_makes_no_other_go() -> None:
    model = nn.Linear(1, 1, bias=False)
    states = Generations(model, [], max_bytes=4)
    states.keep({0: 0})
    model.register_buffer("more", torch.zeros(1))
    states.keep({0: 1})
    assert states.find(0)  # the start is still there to go back to


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.int8, torch.float32, torch.float64])
def test_to_tell_whether_frozen_weights_are_the_same_takes_no_copy_of_them(dtype) -> None:
    """By the allocator's own count, which is there on a device and in the profiler."""
    model = nn.Module()
    model.frozen = nn.Parameter(torch.ones(100_003).to(dtype), requires_grad=False)
    states = Generations(model, [])
    states.keep({0: 0})
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        states.keep({0: 1})
    most = max(event.self_cpu_memory_usage for event in profile.key_averages())
    assert most < 10_000


@pytest.mark.parametrize("start", range(9))
@pytest.mark.parametrize("entry", [0, 7, 12])
def test_a_frozen_part_of_a_larger_tensor_is_seen_to_change_and_only_that(start, entry) -> None:
    whole = torch.zeros(40, dtype=torch.uint8)
    model = nn.Module()
    model.frozen = nn.Parameter(whole[start : start + 13], requires_grad=False)
    states, sizes = Generations(model, []), []
    for change in (None, start + 20, start + entry):
        if change is not None:
            whole.data[change] = 1
        states.keep({0: 0})
        sizes.append(states.num_bytes)
    assert sizes == [13, 13, 26]
