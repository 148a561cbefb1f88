"""Training of one run in one process group, without Ray."""

from sgbench.training.checkpoint import Checkpoints, read_weights_file
from sgbench.training.loop import Outcome, Progress, peak_memory, train

__all__ = ["Checkpoints", "Outcome", "Progress", "peak_memory", "read_weights_file", "train"]
