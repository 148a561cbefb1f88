"""How far a super-resolved image, or a set of them, is from its reference.

`base` is the contract and `suite` runs many metrics over pairs of images; `distortion`, `lpips` and `frechet`
hold the metrics, which `sgbench.registry.METRICS` loads by name; `weights` finds what their networks need. Importing
this package loads no torch: only a metric with a network, and `weights` itself, do.
"""

from sgbench.metrics.base import (
    Image,
    ImageMetric,
    LoadedWeights,
    Metric,
    MissingWeights,
    Pair,
    Runtime,
    Score,
    SetMetric,
    Undefined,
    check_sizes,
    described,
)
from sgbench.metrics.suite import HrCache, Result, Suite

__all__ = [
    "HrCache",
    "Image",
    "ImageMetric",
    "LoadedWeights",
    "Metric",
    "MissingWeights",
    "Pair",
    "Result",
    "Runtime",
    "Score",
    "SetMetric",
    "Suite",
    "Undefined",
    "check_sizes",
    "described",
]
