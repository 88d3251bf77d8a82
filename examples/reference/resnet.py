"""Residual networks and their plain twins: what skips and batch norm do, alone and together.

In:  nothing (the digits), or loaders of another image set such as CIFAR-10.
Out: `RUNS`, the 2x2 of (skip, norm) at depth 20 and 56, and one more cell with He initialisation.
Never: tunes anything to the monitor. Twins share depth, width, learning rate and data.

**What fails, and why.** Unless a run says otherwise, its weights start from PyTorch's default, with
which every convolution shrinks its signal about threefold.

- *Neither skip nor norm*: those factors multiply. Relative to the weights, the first layer's
  gradient is about 1e-8 of the last layer's at depth 20, 1e-25 at depth 56. Nothing is learned.
- *Norm without skip*: normalisation undoes the shrinking on the way forward, which multiplies the
  gradient on the way back. Depth 20 learns all the same. At depth 56 the first layer's relative
  gradient starts a thousand times the last one's; the first step replaces the weights of the
  early layers by ones many times larger, and after that their gradients are too small to mend it.
- *Skip without norm*: learns at both depths, as the default makes each branch a small correction.
  With He initialisation a branch is as large as what it is added to, the sum doubles block by
  block, and at depth 56 the loss is NaN at the third step. A skip alone is no cure.
- *Skip and norm*: learns at both depths.

**What the monitor says.** Nothing at `WARNING` or above of the five runs that learn; ``vanishing``
of the plain twins without norm; ``exploding`` toward the input, at the first step, and
``vanishing`` afterwards of plain-56 with norm; ``nonfinite`` or ``exploding`` of residual-56
without norm from He initialisation.

**Source.** He et al., "Deep residual learning for image recognition", 2015, section 4.2.
https://arxiv.org/abs/1512.03385
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional

from examples.reference.digits import LEARNED, NUM_CLASSES, STUCK, Classifier, Data, digits
from examples.reference.run import Expected, Run

WIDTH = 8  # channels of the first stage; the paper has 16
LEARNING_RATE = 0.05

SMALL_BRANCHES = "The default initialisation keeps every branch small beside its skip."
LARGE_BRANCHES = "Each branch is as large as its skip, and the sum doubles from block to block."
SHALLOW = "Twenty layers are few enough for norm alone."
AMPLIFIED = "Norm without skip multiplies the gradient toward the input, block by block."
SHRUNK = "Every layer shrinks the signal, and nothing restores it."
CURED = "Norm keeps the scale of the activations, and skips that of the gradients."


class Block(nn.Module):
    """Two 3x3 convolutions, with or without a skip around them.

    Args:
        channels_in: Channels of the input.
        channels_out: Channels of the output; at least ``channels_in``.
        stride: The output has ``1 / stride`` of the input's height and width.
        skip: Whether to add the input to the output.
        norm: Whether to normalise after each convolution.
    """

    def __init__(
        self, channels_in: int, channels_out: int, *, stride: int, skip: bool, norm: bool
    ) -> None:
        super().__init__()
        self.stride, self.added_channels, self.skip = stride, channels_out - channels_in, skip
        self.conv1 = conv3x3(channels_in, channels_out, norm=norm, stride=stride)
        self.conv2 = conv3x3(channels_out, channels_out, norm=norm)

    def forward(self, x: Tensor) -> Tensor:
        """Return the activations after the block."""
        out: Tensor = self.conv2(functional.relu(self.conv1(x)))
        return functional.relu(out + self.shortcut(x) if self.skip else out)

    def shortcut(self, x: Tensor) -> Tensor:
        """Return ``x`` subsampled, with zeros in the channels that it lacks."""
        # Option A of the paper has no parameters, so both twins have exactly the same ones.
        return functional.pad(
            x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.added_channels)
        )


def conv3x3(channels_in: int, channels_out: int, *, norm: bool, stride: int = 1) -> nn.Sequential:
    """Return a 3x3 convolution, followed by batch normalisation if ``norm``."""
    # Normalisation subtracts the mean: a bias before it would have no effect and no gradient.
    conv = nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, bias=not norm)
    return nn.Sequential(conv, nn.BatchNorm2d(channels_out)) if norm else nn.Sequential(conv)


def he_initialise_(module: nn.Module) -> None:
    """Redraw a convolution's weights so that gradients keep their scale through a ReLU."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


class ResidualNetwork(nn.Module):
    """The paper's network for small images, or its plain twin.

    Args:
        depth: Layers with weights: ``6n + 2``, that is three stages of ``n`` blocks.
        skip: Whether blocks add their input to their output.
        norm: Whether convolutions are followed by batch normalisation.
        he: Whether convolutions start from He initialisation instead of PyTorch's default.
        channels: Channels of the images: 1 for digits, 3 for CIFAR-10.

    Shape:
        Images ``(batch, channels, height, width)`` to logits ``(batch, NUM_CLASSES)``.
    """

    def __init__(
        self, depth: int, *, skip: bool, norm: bool, he: bool = False, channels: int = 1
    ) -> None:
        super().__init__()
        blocks, rest = divmod(depth - 2, 6)
        if rest or blocks < 1:
            msg = f"`depth` must be 6n + 2 with n at least 1, such as 20 or 56, got {depth!r}."
            raise ValueError(msg)
        widths = [WIDTH, *(WIDTH * 2**stage for stage in range(3) for _ in range(blocks))]
        self.stem = conv3x3(channels, WIDTH, norm=norm)
        self.blocks = nn.Sequential(
            # Where the channels double, height and width halve.
            *(Block(a, b, stride=b // a, skip=skip, norm=norm) for a, b in pairwise(widths))
        )
        self.head = nn.Linear(widths[-1], NUM_CLASSES)
        if he:
            self.apply(he_initialise_)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        features: Tensor = self.blocks(functional.relu(self.stem(images)))
        logits: Tensor = self.head(features.mean(dim=(2, 3)))
        return logits


def runs(data: Data = digits, channels: int = 1) -> tuple[Run, ...]:
    """Return the runs on some image set; their lengths and targets are meant for the digits.

    Args:
        data: Maps a seed to the training and the held-out loader.
        channels: Channels of the images.

    Example:
        >>> from functools import partial
        >>> from examples.reference.digits import cifar10
        >>> on_cifar10 = runs(partial(cifar10, "cifar-10-batches-py"), channels=3)
        >>> on_cifar10[0].name
        'resnet20'
    """

    def run(
        name: str, *expected: Expected, depth: int, steps: int = 80, why: str, **kind: bool
    ) -> Run:
        def model() -> Classifier:
            network = ResidualNetwork(depth, channels=channels, **kind)
            return Classifier(network, learning_rate=LEARNING_RATE)

        return Run(
            name=name,
            group="resnet",
            expected=expected,
            model=model,
            data=data,
            max_steps=steps,
            score="val_accuracy",
            target=LEARNED if "healthy" in expected else STUCK,
            why=why,
        )

    both = {"skip": True, "norm": True}
    skip_only = {"skip": True, "norm": False}
    norm_only = {"skip": False, "norm": True}
    neither = {"skip": False, "norm": False}
    return (
        run("resnet20", "healthy", depth=20, steps=110, **both, why=CURED),
        run("resnet56", "healthy", depth=56, steps=132, **both, why=CURED),
        run("resnet20-no-norm", "healthy", depth=20, steps=132, **skip_only, why=SMALL_BRANCHES),
        run("resnet56-no-norm", "healthy", depth=56, steps=132, **skip_only, why=SMALL_BRANCHES),
        run(
            "resnet56-no-norm-he",
            "nonfinite",
            "exploding",
            depth=56,
            steps=30,
            he=True,
            **skip_only,
            why=LARGE_BRANCHES,
        ),
        run("plain20", "healthy", depth=20, steps=176, **norm_only, why=SHALLOW),
        run("plain56", "exploding", "vanishing", depth=56, **norm_only, why=AMPLIFIED),
        run("plain20-no-norm", "vanishing", depth=20, **neither, why=SHRUNK),
        run("plain56-no-norm", "vanishing", depth=56, **neither, why=SHRUNK),
    )


RUNS = runs()
