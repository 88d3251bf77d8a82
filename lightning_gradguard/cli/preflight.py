"""``gradguard preflight MODULE:MODEL``: does the signal survive the depth, before the first step?

In: the name of a model, and of a batch or its shape. Out: the initialisation check, as text or
JSON. The one command that loads torch, and that imports and runs the user's code.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Any, Final, Literal

from lightning_gradguard.cli.arguments import add_json
from lightning_gradguard.cli.named import load_named, users_code
from lightning_gradguard.cli.outcome import CLEAN, FOUND, CommandError
from lightning_gradguard.cli.records import record
from lightning_gradguard.cli.terminal import say, say_json

if TYPE_CHECKING:
    from lightning_gradguard.initialisation import Preflight

__all__ = ["HELP", "NAME", "add_arguments", "run"]

NAME: Final = "preflight"
HELP: Final = (
    "Check a model's initialisation before it trains: what depth does to signal and gradient. "
    "Imports and runs your code, and loads torch"
)


def add_arguments(parser: ArgumentParser) -> None:
    """Say which options the command has."""
    parser.add_argument(
        "model",
        metavar="MODULE:MODEL",
        help="a model, or a class or function that makes one without arguments, such as "
        "models.deep:Deep. It is imported and run, so name only code that you trust",
    )
    batch = parser.add_mutually_exclusive_group(required=True)
    batch.add_argument(
        "--batch-shape",
        type=_shape,
        metavar="SIZES",
        help="sizes such as 32,3,32,32, of a batch of normal random numbers; the gradient is "
        "then a random one at the output",
    )
    batch.add_argument(
        "--batch",
        metavar="MODULE:BATCH",
        help="a batch as the data loader gives it, or a function that makes one without arguments",
    )
    parser.add_argument(
        "--seed", type=_seed, default=0, metavar="NUMBER", help="of all random numbers; 0"
    )
    add_json(parser)


def run(options: Namespace) -> int:
    """Print what was measured; return 1 if the signal is not kept."""
    result = _checked(options)
    if options.json:
        fields = result.to_dict() | {"model": options.model}
        say_json(record(NAME, **fields))
    else:
        for line in str(result).splitlines():
            say(line)
    return FOUND if result.is_faulty else CLEAN


def _checked(options: Namespace) -> Preflight:
    # The only command that needs torch must not make the others wait for it.
    import torch

    from lightning_gradguard.initialisation import preflight

    is_shape = options.batch is None
    torch.manual_seed(options.seed)  # a module may make its model when it is imported
    maker = load_named(options.model)
    batch_maker = None if is_shape else load_named(options.batch)
    torch.manual_seed(options.seed)
    model = _made(maker, options.model)
    batch = torch.randn(options.batch_shape) if is_shape else _made(batch_maker, options.batch)
    loss: Literal["random"] | None = "random" if is_shape else None
    try:
        with redirect_stdout(sys.stderr):
            return preflight(model, batch, loss=loss, seed=options.seed)
    except (TypeError, ValueError) as error:
        raise CommandError(str(error)) from error


def _made(found: Any, name: str) -> Any:  # noqa: ANN401 - a model or a batch
    """Return what was found, or what it makes when it is called."""
    is_maker = isinstance(found, type) or (callable(found) and not hasattr(found, "forward"))
    if not is_maker:
        return found
    with users_code(f"calling {name}()"):
        return found()


def _shape(text: str) -> tuple[int, ...]:
    try:
        sizes = tuple(int(size) for size in text.split(","))
    except ValueError:
        sizes = ()
    if not sizes or min(sizes) < 1:
        msg = f"sizes must be positive integers with commas between, got {text!r}"
        raise ArgumentTypeError(msg)
    return sizes


def _seed(text: str) -> int:
    if not (text.isdecimal() and int(text) < 2**32):
        msg = f"the seed must be an integer in [0, 2**32 - 1], got {text!r}"
        raise ArgumentTypeError(msg)
    return int(text)
