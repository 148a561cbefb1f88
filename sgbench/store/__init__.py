"""The results store: rows of Parquet in files that are replaced whole, and what sweeps ask for."""

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
