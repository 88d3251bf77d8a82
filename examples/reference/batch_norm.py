"""Deep perceptrons: what normalisation, initialisation and the activation function change.

In:  nothing; the data are the digits.
Out: `RUNS`: sigmoid with and without batch norm, tanh from three initialisations, ReLU and its
     relatives.
Never: tunes anything to the monitor.

**What fails, and why.**

- *Sigmoid, 10 hidden layers*: the slope is at most a quarter, so the first layer's gradient,
  relative to its weights, is 1e-8 of the last one's. Xavier initialisation gets back two of these
  eight decades, a five times higher rate none that matters, batch norm before each sigmoid all
  eight. With batch norm the network also bears that rate, and needs half the steps for the same
  loss.
- *Sigmoid, 2 hidden layers*: learns either way, and with batch norm in a quarter of the steps.
- *tanh, 20 hidden layers*: from small weights the signal dies out forwards and backwards; from
  large ones the gradient explodes toward the input at the first step, which drives the units into
  saturation, and after that nothing passes any more. Xavier initialisation learns.
- *ReLU, 10 hidden layers*: its slope is one where it is open, but PyTorch's default initialisation
  shrinks each layer's signal, and the run stays where it began. He initialisation learns; so do
  Leaky ReLU, PReLU, RReLU and ELU with it, and Maxout with Xavier. A rate of 0.5 ends in NaN
  within ten steps, and batch norm bears it.

**What the monitor says.** Nothing at `WARNING` or above of the runs that learn; ``vanishing`` of
the deep sigmoid, the small tanh and the default ReLU; ``exploding``, then ``vanishing``, of the
large tanh; ``nonfinite``, ``exploding`` or ``diverging`` of ReLU at the high rate.

**Source.** Ioffe and Szegedy, "Batch normalization", 2015, https://arxiv.org/abs/1502.03167; Glorot
and Bengio, "Understanding the difficulty of training deep feedforward neural networks", 2010; He
et al., "Delving deep into rectifiers", 2015, https://arxiv.org/abs/1502.01852; Goodfellow et al.,
"Maxout networks", 2013, https://arxiv.org/abs/1302.4389.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn

from examples.reference.digits import LEARNED, NUM_CLASSES, STUCK, Classifier, digits
from examples.reference.run import Expected, Run

Initialise = Callable[[Tensor], Tensor]

NUM_PIXELS = 64
WIDTH = 64
LEARNING_RATE = 0.02

he: Initialise = partial(nn.init.kaiming_normal_, nonlinearity="relu")
xavier: Initialise = nn.init.xavier_normal_
small: Initialise = partial(nn.init.normal_, std=0.03)
large: Initialise = partial(nn.init.xavier_normal_, gain=5.0)


class Maxout(nn.Module):
    """Take the largest of every ``pieces`` neighbouring features.

    Shape:
        ``(batch, width * pieces)`` to ``(batch, width)``.
    """

    def __init__(self, pieces: int) -> None:
        super().__init__()
        self.pieces = pieces

    def forward(self, x: Tensor) -> Tensor:
        """Return the maxima."""
        return x.view(len(x), -1, self.pieces).amax(dim=2)


def perceptron(
    hidden: int,
    activation: Callable[[], nn.Module],
    initialise: Initialise | None = None,
    *,
    norm: bool = False,
    pieces: int = 1,
) -> nn.Sequential:
    """Return a multi-layer perceptron from images to logits.

    Args:
        hidden: Number of hidden layers; all have `WIDTH` outputs.
        activation: Makes the activation after each hidden layer.
        initialise: Draws each weight matrix in place, and biases start at zero; ``None`` keeps
            PyTorch's default for both.
        norm: Whether batch normalisation stands before each activation.
        pieces: Features per output of a hidden layer; above 1 for `Maxout`, which merges them.
    """
    layers: list[nn.Module] = [nn.Flatten()]
    for fan_in in (NUM_PIXELS, *[WIDTH] * (hidden - 1)):
        layers.append(nn.Linear(fan_in, WIDTH * pieces))
        if norm:
            layers.append(nn.BatchNorm1d(WIDTH * pieces))
        layers.append(activation())
    layers.append(nn.Linear(WIDTH, NUM_CLASSES))
    if initialise is not None:
        for linear in (layer for layer in layers if isinstance(layer, nn.Linear)):
            initialise(linear.weight)
            nn.init.zeros_(linear.bias)
    return nn.Sequential(*layers)


def run(
    name: str,
    network: Callable[[], nn.Module],
    *expected: Expected,
    why: str,
    steps: int = 110,
    rate: float = LEARNING_RATE,
) -> Run:
    """Return the run that trains ``network`` on the digits."""
    return Run(
        name=name,
        group="batch_norm",
        expected=expected,
        model=lambda: Classifier(network(), learning_rate=rate),
        data=digits,
        max_steps=steps,
        score="val_accuracy",
        target=LEARNED if "healthy" in expected else STUCK,
        why=why,
    )


def rectifier(name: str, activation: Callable[[], nn.Module]) -> Run:
    """Return the run of ReLU or a relative, 10 hidden layers from He initialisation."""
    why = "Has slope one where it is open, and He initialisation keeps the scale over depth."
    return run(name, partial(perceptron, 10, activation, he), "healthy", why=why)


sigmoid2 = partial(perceptron, 2, nn.Sigmoid)
sigmoid10 = partial(perceptron, 10, nn.Sigmoid)
sigmoid10_norm = partial(sigmoid10, norm=True)
tanh20 = partial(perceptron, 20, nn.Tanh)
relu10 = partial(perceptron, 10, nn.ReLU)
maxout10 = partial(perceptron, 10, partial(Maxout, pieces=2), xavier, pieces=2)

RUNS = (
    run("sigmoid10", sigmoid10, "vanishing", why="Ten slopes of at most a quarter multiply."),
    run(
        "sigmoid10-xavier", partial(sigmoid10, xavier), "vanishing", why="Xavier assumes slope one."
    ),
    run(
        "sigmoid10-high-rate", sigmoid10, "vanishing", rate=0.1, why="It scales steps, not slopes."
    ),
    run("sigmoid10-norm", sigmoid10_norm, "healthy", why="Each norm undoes one layer's shrinking."),
    run(
        "sigmoid10-norm-high-rate", sigmoid10_norm, "healthy", rate=0.1, why="Learns twice as fast."
    ),
    run("sigmoid2", sigmoid2, "healthy", steps=220, rate=0.1, why="Learns, after a plateau."),
    run(
        "sigmoid2-norm",
        partial(sigmoid2, norm=True),
        "healthy",
        steps=66,
        rate=0.1,
        why="Learns four times as fast.",
    ),
    run(
        "tanh20-small",
        partial(tanh20, small),
        "vanishing",
        why="Each layer shrinks the signal fourfold.",
    ),
    run("tanh20-xavier", partial(tanh20, xavier), "healthy", why="Slopes near one keep the scale."),
    run(
        "tanh20-large",
        partial(tanh20, large),
        "exploding",
        "vanishing",
        why="The first step, a huge one, saturates all units; then nothing passes.",
    ),
    run(
        "relu10-default",
        relu10,
        "vanishing",
        why="The initialisation shrinks the signal in every layer.",
    ),
    rectifier("relu10-he", nn.ReLU),
    run(
        "relu10-he-high-rate",
        partial(relu10, he),
        "nonfinite",
        "exploding",
        "diverging",
        steps=40,
        rate=0.5,
        why="Each step overshoots more than the last one, until the loss overflows.",
    ),
    run(
        "relu10-he-norm-high-rate",
        partial(relu10, he, norm=True),
        "healthy",
        rate=0.5,
        why="Norm divides out what a large step multiplies.",
    ),
    rectifier("leaky-relu10", nn.LeakyReLU),
    rectifier("prelu10", nn.PReLU),
    rectifier("rrelu10", nn.RReLU),
    rectifier("elu10", nn.ELU),
    run(
        "maxout10",
        maxout10,
        "healthy",
        why="The larger of two lines has a slope, at twice the parameters.",
    ),
)
