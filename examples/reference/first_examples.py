"""Two networks small enough to check every gradient by hand, and the curve of gradient over depth.

In:  nothing; all weights and inputs of the two networks stand below.
Out: the two networks with their inputs and losses, and `decades_lost` for deep ones.
Never: trains anything. What is shown here is true at the first step, before any update.

**What fails, and why.** Back-propagation multiplies one factor per layer, ``weight * s'(z)``, and
the slope ``s'`` of a sigmoid is at most 0.25. With weights of ordinary size every factor is below
one, and the product shrinks geometrically toward the input.

**What the monitor says.** Of a deep sigmoid network: ``vanishing``, naming the first layers. Of the
two small networks it has nothing to say, as nobody trains them: they are here so that the norms
it reads can be compared with arithmetic. ``s`` is the sigmoid and ``s'(z) = s(z) * (1 - s(z))``.

The sigmoid chain 1-1-1-1-1-1
-----------------------------
``a0 = x``, then ``zk = wk * a(k-1)`` and ``ak = s(zk)`` for ``k = 1 ... 5``; the loss is ``a5``::

    dL/dwk = a(k-1) * s'(zk) * w(k+1) * s'(z(k+1)) * ... * w5 * s'(z5)

With ``x = 1`` and every weight 1:

===  ======  ======  ======  ========
 k     zk      ak    s'(zk)   dL/dwk
===  ======  ======  ======  ========
 1   1.0000  0.7311  0.1966  0.000486
 2   0.7311  0.6750  0.2194  0.001808
 3   0.6750  0.6626  0.2236  0.007609
 4   0.6626  0.6599  0.2244  0.033411
 5   0.6599  0.6592  0.2246  0.148233
===  ======  ======  ======  ========

Every layer toward the input costs a factor of about 0.22: 2.5 decades over these five.

The insurance network
---------------------
Age, education, income and savings, each scaled to ``[0, 1]``, give awareness; awareness gives the
probability of buying. The person does not buy, and the loss is half the squared error. (``w5`` to
``w7`` belong to hidden units that are left out.)::

    z1 = w1 * age + w2 * education + w3 * income + w4 * savings    awareness = s(z1)
    z2 = w8 * awareness + b2                                       buys      = s(z2)

    z1 = 0.5 * 0.12 + 0.4 * 0.5 - 0.5 * 0.4 - 0.3 * 0.2 = 0        awareness = 0.5
    z2 = 0.4 * 0.5 - 0.2 = 0                                       buys      = 0.5

``w1`` reaches the loss only through awareness, so its gradient is a product of two small factors,
where that of ``w8`` needs the second layer alone::

    d1 = d awareness / dw1 = s'(z1) * age = 0.25 * 0.12                = 0.03
    d2 = dL / d awareness  = (buys - 0) * s'(z2) * w8 = 0.5 * 0.25 * 0.4 = 0.05

    dL/dw1 = d1 * d2                             = 0.0015
    dL/dw8 = (buys - 0) * s'(z2) * awareness     = 0.5 * 0.25 * 0.5 = 0.0625

A step ``w <- w - 0.1 * gradient`` takes ``w1`` from 0.5 to 0.49985 and ``w8`` from 0.4 to 0.39375.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

Activation = Literal["sigmoid", "tanh", "relu"]
Init = Literal["default", "xavier", "he"]

ACTIVATIONS: dict[Activation, type[nn.Module]] = {
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
}
WIDTH = 64
BATCH_SIZE = 64
CURVES: tuple[tuple[Activation, Init], ...] = (
    ("sigmoid", "default"),
    ("tanh", "xavier"),
    ("relu", "default"),
    ("relu", "he"),
)
DEPTHS = (2, 5, 10, 20, 40)


@dataclass(frozen=True)
class WorkedExample:
    """A network with the input and the loss that were worked out on paper.

    Attributes:
        network: Float64; the names of its linear layers are those of the text.
        inputs: One example, shape ``(1, features)``.
        loss: Maps the network's output to a scalar.
    """

    network: nn.Sequential
    inputs: Tensor
    loss: Callable[[Tensor], Tensor]

    def backward(self) -> None:
        """Leave the gradients of the loss in ``network``."""
        self.loss(self.network(self.inputs)).backward()  # type: ignore[no-untyped-call]


def linear(weights: Sequence[float], bias: float | None = None) -> nn.Linear:
    """Return one float64 unit with the given weights, without a bias if ``bias`` is ``None``."""
    layer = nn.Linear(len(weights), 1, bias=bias is not None, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([weights], dtype=torch.float64))
        if bias is not None:
            layer.bias.fill_(bias)
    return layer


def sigmoid_chain(
    weights: Sequence[float] = (1.0, 1.0, 1.0, 1.0, 1.0), x: float = 1.0
) -> WorkedExample:
    """Return the chain with one unit per layer, named ``w1``, ``w2`` and so on."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for k, weight in enumerate(weights, start=1):
        layers[f"w{k}"] = linear([weight])
        layers[f"s{k}"] = nn.Sigmoid()
    inputs = torch.tensor([[x]], dtype=torch.float64)
    return WorkedExample(nn.Sequential(layers), inputs, loss=torch.sum)


def insurance_network(
    weights: Sequence[float] = (0.5, 0.4, -0.5, -0.3),
    w8: float = 0.4,
    b2: float = -0.2,
    person: Sequence[float] = (0.12, 0.5, 0.4, 0.2),
) -> WorkedExample:
    """Return the insurance network, with layers ``awareness`` (w1 to w4) and ``buys`` (w8)."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        awareness=linear(weights),
        awareness_sigmoid=nn.Sigmoid(),
        buys=linear([w8], bias=b2),
        buys_sigmoid=nn.Sigmoid(),
    )
    inputs = torch.tensor([person], dtype=torch.float64)
    return WorkedExample(nn.Sequential(layers), inputs, loss=half_square_of_buying)


def half_square_of_buying(buys: Tensor) -> Tensor:
    """Return half the squared error for a person who does not buy, whose target is 0."""
    return 0.5 * buys.square().sum()


def initialise_(layer: nn.Linear, init: Init) -> None:
    """Draw the weights anew, with biases at zero; ``"default"`` keeps what PyTorch drew."""
    if init == "default":
        return
    if init == "xavier":
        nn.init.xavier_normal_(layer.weight)
    else:
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    nn.init.zeros_(layer.bias)


def decades_lost(depth: int, activation: Activation, init: Init, seed: int) -> float:
    """Return how many powers of ten the gradient loses from the last hidden layer to the first.

    All hidden layers are 64 wide, so their weight gradients can be compared.

    Args:
        depth: Number of hidden layers; at least 2.
        activation: What follows every hidden layer.
        init: How the hidden layers' weights are drawn.
        seed: Decides weights, inputs and labels; the global random state is left alone.

    Returns:
        ``log10(last / first)`` of the weight gradients' L2 norms at initialisation; positive
        when the gradient vanishes toward the input, negative when it grows.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        # Float64: forty sigmoid layers leave less than float32 can hold once it is squared.
        hidden = [nn.Linear(WIDTH, WIDTH, dtype=torch.float64) for _ in range(depth)]
        for layer in hidden:
            initialise_(layer, init)
        stages = [nn.Sequential(layer, ACTIVATIONS[activation]()) for layer in hidden]
        network = nn.Sequential(*stages, nn.Linear(WIDTH, 10, dtype=torch.float64))
        inputs = torch.randn(BATCH_SIZE, WIDTH, dtype=torch.float64)
        labels = torch.randint(10, (BATCH_SIZE,))
    nn.functional.cross_entropy(network(inputs), labels).backward()  # type: ignore[no-untyped-call]
    return math.log10(gradient_norm(hidden[-1]) / gradient_norm(hidden[0]))


def gradient_norm(layer: nn.Linear) -> float:
    """Return the L2 norm of the gradient of the layer's weights."""
    assert layer.weight.grad is not None
    return float(layer.weight.grad.norm())


def decades_lost_per_layer(depth: int, activation: Activation, init: Init, seed: int) -> float:
    """Return `decades_lost` over the ``depth - 1`` steps between the two layers compared."""
    return decades_lost(depth, activation, init, seed) / (depth - 1)


def main() -> None:
    """Print the decades lost against depth, the mean of three seeds."""
    torch.set_flush_denormal(True)
    print("decades of gradient lost from the last hidden layer to the first, at initialisation")
    print("depth  " + "  ".join(f"{f'{activation} {init}':>15}" for activation, init in CURVES))
    for depth in DEPTHS:
        means = (
            sum(decades_lost(depth, *curve, seed) for seed in range(3)) / 3 for curve in CURVES
        )
        print(f"{depth:5d}  " + "  ".join(f"{mean:15.2f}" for mean in means))
    print("\nper layer")
    slopes = (decades_lost_per_layer(DEPTHS[-1], *curve, seed=0) for curve in CURVES)
    print(f"{'':5}  " + "  ".join(f"{slope:15.2f}" for slope in slopes))


if __name__ == "__main__":
    main()
