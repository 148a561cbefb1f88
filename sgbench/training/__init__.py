"""Training of one run in one process group, without Ray."""

from sgbench.training.checkpoint import Checkpoints, read_init, read_weights_file, write_init
from sgbench.training.loop import Outcome, Progress, peak_memory, train

__all__ = [
    "Checkpoints",
    "Outcome",
    "Progress",
    "peak_memory",
    "read_init",
    "read_weights_file",
    "train",
    "write_init",
]
