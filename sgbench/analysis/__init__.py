"""What a store says: results for programs, comparisons and their statistics, SQL, the paper's numbers."""

from sgbench.analysis.paper import PAPER, paper
from sgbench.analysis.results import Results, labels_of, load_results

__all__ = ["PAPER", "Results", "labels_of", "load_results", "paper"]
