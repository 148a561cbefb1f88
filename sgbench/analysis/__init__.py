"""Reading a store: results for programs, the read model, comparisons with their statistics, SQL, the paper."""

from sgbench.analysis.paper import PAPER, paper
from sgbench.analysis.results import Results, load_results
from sgbench.analysis.view import Filters, View

__all__ = ["PAPER", "Filters", "Results", "View", "load_results", "paper"]
