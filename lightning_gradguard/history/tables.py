"""What a history file looks like inside: its tables, their columns, its version.

In: nothing. Out: names and SQL. Writer and reader take both from here, and the reader refuses a
file whose tables were made by any other text.
"""

from __future__ import annotations

from typing import Final

__all__ = [
    "APPLICATION_ID",
    "FILE_NAME",
    "FOLDER_NAME",
    "PAGE_BYTES",
    "SCALARS",
    "SCHEMA_NAME",
    "STATISTICS",
    "TABLES",
    "USER_VERSION",
]

FOLDER_NAME: Final = "gradguard"
FILE_NAME: Final = "history.sqlite"
SCHEMA_NAME: Final = "gradguard/1"

PAGE_BYTES: Final = 16384
"""Size of a page of the file."""

APPLICATION_ID: Final = 0x47726164
"""``PRAGMA application_id``: "Grad" in ASCII."""

USER_VERSION: Final = 1
"""``PRAGMA user_version``: grows when an older reader would misread the file."""

STATISTICS: Final = (
    "grad_norm",
    "grad_rms",
    "grad_mean",
    "grad_std",
    "grad_abs_max",
    "zero_fraction",
    "num_nonfinite",
    "param_norm",
    "update_norm",
    "weight_grad_norm",
    "weight_param_norm",
    "weight_update_norm",
)
"""Fields of `Frame` with one number per layer; each has a table of its own."""

SCALARS: Final = (
    "loss",
    "global_grad_norm",
    "global_grad_norm_at_update",
    "first_batch_grad_norm",
    "clip_coefficient",
    "guard_clip_coefficient",
    "clipped_fraction",
    "lr_factor",
    "learning_rate",
    "noise_scale",
    "layers_flagged",
    "severity",
    "overhead_ms",
    "accumulated_batches",
    "window_correction",
    "world_size",
)
"""Numbers of a whole step, in the order in which a row keeps them."""

TABLES: Final = {
    "meta": "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL)",
    "attempts": "CREATE TABLE attempts (id INTEGER PRIMARY KEY, about TEXT NOT NULL)",
    "layouts": (
        "CREATE TABLE layouts (id INTEGER PRIMARY KEY, optimizer INTEGER NOT NULL, "
        "about TEXT NOT NULL)"
    ),
    "steps": (
        "CREATE TABLE steps (id INTEGER PRIMARY KEY, attempt INTEGER NOT NULL, "
        "optimizer INTEGER NOT NULL, layout INTEGER NOT NULL, step INTEGER NOT NULL, "
        "epoch INTEGER NOT NULL, batch INTEGER NOT NULL, "
        "flags INTEGER NOT NULL, present INTEGER NOT NULL, scalars BLOB NOT NULL, "
        "learning_rates BLOB NOT NULL)"
    ),
    "findings": (
        "CREATE TABLE findings (id INTEGER PRIMARY KEY, attempt INTEGER NOT NULL, "
        "optimizer INTEGER NOT NULL, step INTEGER NOT NULL, record TEXT NOT NULL)"
    ),
    "actions": (
        "CREATE TABLE actions (id INTEGER PRIMARY KEY, attempt INTEGER NOT NULL, "
        "optimizer INTEGER NOT NULL, step INTEGER NOT NULL, what TEXT NOT NULL, "
        "record TEXT NOT NULL)"
    ),
    "histogram": "CREATE TABLE histogram (id INTEGER PRIMARY KEY, data BLOB NOT NULL)",
    "parts": (
        "CREATE TABLE parts (id INTEGER PRIMARY KEY, kinds TEXT NOT NULL, data BLOB NOT NULL)"
    ),
    **{
        f"stat_{name}": f"CREATE TABLE stat_{name} (id INTEGER PRIMARY KEY, data BLOB NOT NULL)"
        for name in STATISTICS
    },
}
"""How each table is made."""
