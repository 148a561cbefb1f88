"""The results store: rows of Parquet, and how to read and write them."""

from sgbench.results.files import whole_sets
from sgbench.results.layout import LOGS, SCRATCH
from sgbench.results.paper import PAPER, paper
from sgbench.results.schema import HISTORY, RUNS, SCHEMA_VERSION, SCORES, identity_columns
from sgbench.results.store import Dataset, Planned, Results, Store, labels_of, load_results

__all__ = [
    "HISTORY",
    "LOGS",
    "PAPER",
    "RUNS",
    "SCHEMA_VERSION",
    "SCORES",
    "SCRATCH",
    "Dataset",
    "Planned",
    "Results",
    "Store",
    "identity_columns",
    "labels_of",
    "load_results",
    "paper",
    "whole_sets",
]
