"""Models of characters: what comes next, and what was hidden."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR

from benchmarks.detection.case import Case, Training
from benchmarks.detection.held_out.sequences.attention import Attention, Block
from benchmarks.detection.held_out.sequences.parts import (
    Batch,
    Twist,
    changed,
    each_step,
    fit,
    on_batches,
    scale_,
    scheduled,
    using,
    warm_up,
)
from benchmarks.detection.held_out.sequences.sources import next_characters

__all__ = ["CASES"]


class Writer(nn.Module):
    """Blocks between an embedding and logits.

    Args:
        blocks: Each keeps the shape ``(batch, places, width)``.
        width: Of the embedding.
        last: The norm before the logits.
    """

    def __init__(self, *blocks: nn.Module, width: int, last: nn.Module | None = None) -> None:
        super().__init__()
        self.embed, self.out = nn.Embedding(128, width), nn.Linear(width, 128)
        nn.init.normal_(self.embed.weight, std=0.1)
        self.blocks = nn.Sequential(*blocks, last or nn.LayerNorm(width))
        self.temperature = 1.0

    def forward(self, inputs: Tensor) -> Tensor:
        """Return logits for each place."""
        logits: Tensor = self.out(self.blocks(self.embed(inputs)))
        return logits / self.temperature


def rotary() -> Writer:
    """Return three blocks that know places by rotation."""
    return Writer(*(Block(Attention(32, 2, "rotary"), 32) for _ in range(3)), width=32)


def sloped() -> Writer:
    """Return two blocks that know places by slope, with norms before and behind each part."""
    attentions = (Attention(40, 4, "alibi") for _ in range(2))
    return Writer(*(Block(mix, 40, nn.RMSNorm, nn.RMSNorm) for mix in attentions), width=40)


def without_norm(gain: float) -> nn.Module:
    """Return four blocks without any norm, their weights multiplied by a gain."""
    blocks = (Block(Attention(32, 2, "rotary"), 32, nn.Identity) for _ in range(4))
    return scale_(Writer(*blocks, width=32, last=nn.Identity()), gain)


class Gated(nn.Module):
    """A causal convolution whose output is gated by another, with a skip.

    Args:
        width: Of inputs and outputs.
        dilation: Steps between the three taps.
    """

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.reach = 2 * dilation
        self.mix = nn.Conv1d(width, 2 * width, 3, dilation=dilation)

    def forward(self, inputs: Tensor) -> Tensor:
        """Mix each place with its past."""
        padded = nn.functional.pad(inputs.transpose(1, 2), (self.reach, 0))
        return inputs + nn.functional.glu(self.mix(padded), dim=1).transpose(1, 2)


def gated() -> Writer:
    """Return three gated convolutions of growing reach."""
    return Writer(*(Gated(40, dilation) for dilation in (1, 2, 4)), width=40)


def hidden(_step: int, inputs: Tensor, _targets: Tensor) -> Batch:
    """Hide a quarter of the characters behind 0, and ask for these only."""
    is_hidden = torch.rand(inputs.shape) < 0.25
    return inputs.masked_fill(is_hidden, 0), inputs.masked_fill(~is_hidden, -1)


def guessed(model: nn.Module, inputs: Tensor, _targets: Tensor) -> float:
    """Return the share of hidden characters, every fifth, that are told right."""
    hint, places = inputs.clone(), slice(2, None, 5)
    hint[:, places] = 0
    right: Tensor = model(hint)[:, places].argmax(dim=-1) == inputs[:, places]
    return float(right.float().mean())


def masked() -> Writer:
    """Return two blocks that see both ways, places told by rotation."""
    blocks = (Block(Attention(32, 2, "rotary", causal=False), 32) for _ in range(2))
    return Writer(*blocks, width=32)


def longer(step: int, inputs: Tensor, targets: Tensor) -> Batch:
    """Show 4 characters at first, then more."""
    length = min(inputs.shape[1], 4 + step // 6)
    return inputs[:, :length], targets[:, :length]


def cooling(last: float) -> Twist:
    """Lower the temperature to a half in 100 steps, then set it to what comes last."""

    def act(training: Training, step: int) -> None:
        model = training.model
        assert isinstance(model, Writer)  # noqa: S101 - for the type checker
        model.temperature = 1.0 - step / 200 if step < 100 else last

    return each_step(act)


class Averaged:
    """Lets slow averages of the weights take the place of the weights themselves."""

    def __init__(self) -> None:
        self.slow: list[Tensor] = []

    @torch.no_grad()
    def __call__(self, training: Training, step: int) -> None:
        """Average, and put the averages in."""
        weights = list(training.model.parameters())
        if step == 0:
            self.slow = [weight.clone() for weight in weights]
        for weight, slow in zip(weights, self.slow, strict=True):
            slow.lerp_(weight, 1e-4)
            weight.copy_(slow)


def swapped() -> Training:
    """Return a training whose weights are their own averages."""
    return fit(sloped, sgd, text, changed(clip_norm=1.0), each_step(Averaged()), batch_size=16)()


text = partial(next_characters, 24)
AdamW = torch.optim.AdamW
sgd = using(torch.optim.SGD, lr=0.3, momentum=0.9)
rmsprop = using(torch.optim.RMSprop, lr=2e-3)
cosine = partial(CosineAnnealingLR, T_max=160)
gentle = using(torch.optim.SGD, lr=0.1, momentum=0.9)
writer = partial(fit, gated, rmsprop, text)

CASES: tuple[Case, ...] = (
    Case(
        name="gpt-rotary-curriculum",
        family="gpt",
        build=fit(
            rotary,
            using(AdamW, lr=4e-3, betas=(0.9, 0.95), weight_decay=0.1),
            text,
            scheduled(cosine),
            on_batches(longer),
            changed(clip_norm=1.0),
            batch_size=16,
        ),
        steps=160,
        level=0.34,
        why="passages grow from four characters to 24 while the rate falls to nothing",
    ),
    Case(
        name="gpt-sandwich-accumulated",
        family="gpt",
        build=fit(sloped, sgd, text, warm_up(40), changed(accumulate=2), batch_size=8),
        steps=180,
        level=0.35,
        why="norms before and behind each part let plain momentum train attention",
    ),
    Case(
        name="gated-conv-writer",
        family="gated-conv-language",
        build=writer(),
        steps=220,
        level=0.38,
        why="most rows of the embedding belong to characters that hardly ever come",
    ),
    Case(
        name="bert-hidden-characters",
        family="bert",
        build=fit(
            masked,
            using(torch.optim.NAdam, lr=5e-3),
            text,
            on_batches(hidden),
            score=guessed,
            batch_size=24,
        ),
        steps=240,
        level=0.34,
        why="three quarters of the places have no loss, and which ones changes at random",
    ),
    Case(
        name="gpt-without-norm-loud",
        family="gpt",
        build=fit(partial(without_norm, 5.0), gentle, text, batch_size=16),
        steps=160,
        level=0.3,
        kinds=("exploding", "nonfinite", "diverging"),
        cures={"initialisation": fit(partial(without_norm, 1.0), gentle, text, batch_size=16)},
        why="four blocks without norms begin with weights five times too large",
    ),
    Case(
        name="gated-conv-cooled-to-zero",
        family="gated-conv-language",
        build=writer(cooling(0.0)),
        steps=180,
        level=0.35,
        kinds=("nonfinite",),
        onset=100,
        cures={"schedule": writer(cooling(0.5))},
        why="beyond the end of its schedule the temperature, which divides the logits, is zero",
    ),
    Case(
        name="gpt-averages-swapped-in",
        family="gpt",
        build=swapped,
        steps=150,
        level=0.36,
        kinds=("not_learning",),
        why="averages for evaluation are put in after every step, and never taken out again",
    ),
)
