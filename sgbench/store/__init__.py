"""The results store: rows in Parquet files that are replaced as a whole, and the plans of sweeps."""

from sgbench.store.files import whole_sets
from sgbench.store.layout import LOGS, SCRATCH
from sgbench.store.schema import HISTORY, RUNS, SCHEMA_VERSION, SCORES, identity_columns
from sgbench.store.store import Dataset, Planned, Replaced, Store, by_key, stamp

__all__ = [
    "HISTORY",
    "LOGS",
    "RUNS",
    "SCHEMA_VERSION",
    "SCORES",
    "SCRATCH",
    "Dataset",
    "Planned",
    "Replaced",
    "Store",
    "by_key",
    "identity_columns",
    "stamp",
    "whole_sets",
]
