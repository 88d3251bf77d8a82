"""Labels without places: recordings of which it is only known what is said, in order."""

from __future__ import annotations

from functools import lru_cache, partial

import torch
from torch import Tensor, nn

from benchmarks.detection.case import Case
from benchmarks.detection.data import Split
from benchmarks.detection.held_out.sequences import sources
from benchmarks.detection.held_out.sequences.parts import Batch, fit, on_batches, using

__all__ = ["CASES"]

LENGTH = 16


@lru_cache(maxsize=1)
def spoken() -> Split:
    """Return 16 noisy frames ``(n, 16, 8)``, and four labels (1 to 5) said in them, in order."""
    draw = sources.generator()
    labels = torch.randint(1, 6, (2000, 4), generator=draw)
    sounds = 1.5 * torch.randn(6, 8, generator=draw)
    lengths = torch.rand(2000, 4, generator=draw).softmax(dim=1).cumsum(dim=1) * LENGTH
    said = (torch.arange(LENGTH).view(1, -1, 1) >= lengths.unsqueeze(1)).sum(dim=2).clamp(max=3)
    frames = sounds[labels.gather(1, said)]
    return sources.split(frames + 0.7 * torch.randn(frames.shape, generator=draw), labels)


class Listener(nn.Module):
    """Convolutions over frames, then a GRU, then logits with a blank."""

    def __init__(self) -> None:
        super().__init__()
        self.ears = nn.Sequential(nn.Conv1d(8, 32, 3, padding=1), nn.ReLU())
        self.mind, self.out = nn.GRU(32, 32, batch_first=True), nn.Linear(32, 6)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return log-probabilities per frame."""
        heard = self.ears(inputs.transpose(1, 2)).transpose(1, 2)
        logits: Tensor = self.out(self.mind(heard)[0])
        return logits.log_softmax(dim=-1)


def unaligned(model: nn.Module, frames: Tensor, labels: Tensor) -> Tensor:
    """Return the negative log-likelihood of the labels, wherever they are said."""
    count, places = frames.shape[:2]
    lengths = torch.full((count,), places), (labels > 0).sum(dim=1)
    return nn.functional.ctc_loss(model(frames).transpose(0, 1), labels, *lengths)


def collapsed(row: list[int]) -> list[int]:
    """Return labels without repetition and blanks."""
    kept = [label for label, before in zip(row, [0, *row], strict=False) if label != before]
    return [label for label in kept if label]


def heard(model: nn.Module, frames: Tensor, labels: Tensor) -> float:
    """Return the share of recordings in which every label is told, repetitions as one."""
    told = [collapsed(row) for row in model(frames).argmax(dim=-1).tolist()]
    wanted = [collapsed(row) for row in labels.tolist()]
    return sum(map(list.__eq__, told, wanted)) / len(wanted)


def cut_short(step: int, frames: Tensor, labels: Tensor) -> Batch:
    """Cut the recordings to three frames from step 120 on, now and then."""
    return (frames[:, :3] if step >= 120 and step % 20 == 0 else frames), labels


def long_enough(_step: int, frames: Tensor, labels: Tensor) -> Batch:
    """Take no more labels than half of the frames."""
    return frames, labels[:, : frames.shape[1] // 2]


Adam = torch.optim.Adam
listen = partial(fit, Listener, using(Adam, lr=5e-3), spoken, loss=unaligned, score=heard)


CASES: tuple[Case, ...] = (
    Case(
        name="unaligned-labels",
        family="ctc",
        build=listen(),
        steps=300,
        level=0.6,
        why="the blank is all that is said for a while, until the first labels are dared",
    ),
    Case(
        name="unaligned-too-short",
        family="ctc",
        build=listen(on_batches(cut_short)),
        steps=220,
        level=0.3,
        kinds=("nonfinite",),
        onset=120,
        cures={"look at the data": listen(on_batches(cut_short), on_batches(long_enough))},
        why="three frames cannot say four labels: the loss is infinite from such a batch on",
    ),
)
