"""Trackers, which show the course of runs while they train: TensorBoard, MLflow, Weights & Biases, and one's own.

A tracker knows nothing of sweeps, stores or Ray: `sgbench.runs.tracking` makes one for each run, in the process of the
command, and tells it what happens.
"""

from sgbench.trackers.base import TRACKERS, TrackedRun, Tracker, register_tracker

__all__ = ["TRACKERS", "TrackedRun", "Tracker", "register_tracker"]
