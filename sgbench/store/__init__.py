"""The results store: rows in Parquet files that are replaced as a whole, and the plans of sweeps."""

from sgbench.store.declarations import Declaration
from sgbench.store.files import whole_sets
from sgbench.store.layout import LOGS, SCRATCH
from sgbench.store.schema import BESIDE_RUNS, HISTORY, RUNS, SCHEMA_VERSION, SCORES, VALIDATION, identity_columns
from sgbench.store.store import Dataset, Planned, Replaced, Store, by_key, earliest, now, relabelled, stamp
from sgbench.store.tunings import Candidate, Search, Trial, Tuning

__all__ = [
    "BESIDE_RUNS",
    "HISTORY",
    "LOGS",
    "RUNS",
    "SCHEMA_VERSION",
    "SCORES",
    "SCRATCH",
    "VALIDATION",
    "Candidate",
    "Dataset",
    "Declaration",
    "Planned",
    "Replaced",
    "Search",
    "Store",
    "Trial",
    "Tuning",
    "by_key",
    "earliest",
    "identity_columns",
    "now",
    "relabelled",
    "stamp",
    "whole_sets",
]
