"""What a layer is, as far as judging it goes.

In: nothing. Out: the roles, and for some of them the reason why depth is not judged by them. How a
role is recognised is for `scope`; this file knows no module.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

__all__ = ["LEFT_OUT", "Role"]

Role = Literal[
    "weights", "recurrent", "gated", "embedding", "norm", "vectors", "container", "foreign"
]

LEFT_OUT: Final[Mapping[Role, str]] = {
    "embedding": "an embedding: only the rows that a batch uses get a gradient",
    "norm": "a norm layer: its vectors have no place in a profile of weight matrices",
    "vectors": "no weight matrix: biases and scales may be near zero in the healthiest of models",
    "foreign": "the optimizer has it and the model has not",
    "container": "it holds other layers, so the depth of its own parameters is unknown",
}
"""Why layers of a role are left out where depth is judged; the other roles are judged."""
