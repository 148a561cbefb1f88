"""Statuses that rooms without a common neighbour share; text as it is stored."""

from enum import StrEnum


class ScoreStatus(StrEnum):
    """What became of a score."""

    OK = "ok"
    """There is a value."""
    NO_WEIGHTS = "no weights"
    """A pretrained network that the metric needs was not available."""
    NEEDS_HR = "needs HR"
    """The metric compares with HR images, and the test set has none."""
    UNDEFINED = "undefined"
    """The metric has no value for what it was given."""
    FAILED = "failed"
    """Computing it failed."""
