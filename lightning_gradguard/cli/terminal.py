"""What is printed: lines that no layer's name can break, and JSON.

In: text, of which parts come from files that anybody may have written. Out: standard output and
standard error. Nothing is decided here.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from typing import Any, Final, TextIO

from lightning_gradguard.plain_text import printable

__all__ = ["complain", "plain_json", "say", "say_json"]

_LONGEST_LINE: Final = 2_000


def say(line: str = "") -> None:
    """Print a line on standard output."""
    _write(sys.stdout, line)


def complain(line: str) -> None:
    """Print a line on standard error, with the name of the command before it."""
    _write(sys.stderr, f"gradguard: {line}")


def say_json(record: Mapping[str, Any], *, one_line: bool = False) -> None:
    """Print a record as JSON, in ASCII only; see `plain_json` for numbers.

    Args:
        record: Plain types, or tuples of them.
        one_line: Whether it becomes a single line, as in a stream of records.
    """
    text = json.dumps(plain_json(record), allow_nan=False, indent=None if one_line else 2)
    if sys.stdout is not None:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()


def plain_json(value: Any) -> Any:  # noqa: ANN401 - any plain type
    """Return a value as JSON has it: None where a number is NaN or infinite.

    Example:
        >>> plain_json({"norm": float("inf"), "layers": ("a", "b")})
        {'norm': None, 'layers': ['a', 'b']}
    """
    if isinstance(value, Mapping):
        return {str(key): plain_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_json(item) for item in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value


def _write(stream: TextIO | None, line: str) -> None:
    if stream is None:
        return  # closed by whoever started us, who does not want to know
    text = printable(line)
    if len(text) > _LONGEST_LINE:
        text = f"{text[:_LONGEST_LINE]} …"
    # A terminal in another language may lack the bars of a drawing; that is no reason to fail.
    encoding = stream.encoding or "utf-8"
    print(text.encode(encoding, "replace").decode(encoding), file=stream, flush=True)
