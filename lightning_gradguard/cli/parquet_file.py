"""A table as Parquet, with the help of pyarrow, which is an extra.

In: a table. Out: a file. What was not measured is NaN in columns of numbers, names are as they are
in the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy.typing as npt

from lightning_gradguard.cli.outcome import CommandError
from lightning_gradguard.cli.tables import Kind, Table

__all__ = ["write_parquet"]

_TYPES: Final = {
    "int": "int64",
    "float32": "float32",
    "float64": "float64",
    "bool": "bool",
    "text": "string",
}


def write_parquet(table: Table, path: Path) -> int:
    """Write a table; return the number of its rows.

    Raises:
        CommandError: pyarrow is not installed.
    """
    pa, parquet = _pyarrow()
    columns = [(name, pa.type_for_alias(_TYPES[kind])) for name, kind in table.columns.items()]
    form = pa.schema(columns)
    count = 0
    with parquet.ParquetWriter(path, form) as writer:
        for block in table.blocks:
            values = [_values(block[name], kind) for name, kind in table.columns.items()]
            arrays = [pa.array(v, type=f.type) for v, f in zip(values, form, strict=True)]
            rows = pa.table(arrays, schema=form)
            writer.write_table(rows)
            count += rows.num_rows
    return count


def _values(values: Sequence[Any] | npt.NDArray[Any], kind: Kind) -> Any:  # noqa: ANN401
    """Return values as they are, but for text that UTF-8 cannot hold."""
    if kind != "text":
        return values
    return [text.encode("utf-8", "backslashreplace").decode("utf-8") for text in values]


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        msg = (
            "Parquet needs pyarrow, which is not installed. Run "
            "pip install 'lightning-gradguard[parquet]', or write CSV: --to csv."
        )
        raise CommandError(msg) from error
    return pa, parquet
