"""How far a super-resolved image, or a set of them, is from its reference.

`base` is the contract, `suite` runs many metrics over pairs of images, and `cache` keeps what is known of references.
`distortion`, `lpips`, `frechet` and `kernel` hold the metrics, which `sgbench.core.registry.METRICS` loads by name,
and `from_torchmetrics` those of a library. Importing this package loads no torch: only a metric with a network or of a
library does.
"""

from sgbench.metrics.base import (
    Estimate,
    Image,
    ImageMetric,
    Metric,
    Pair,
    Runtime,
    Score,
    SetMetric,
    Undefined,
    check_sizes,
    described,
    incomplete,
)
from sgbench.metrics.cache import HrCache
from sgbench.metrics.suite import Measured, Result, Suite

__all__ = [
    "Estimate",
    "HrCache",
    "Image",
    "ImageMetric",
    "Measured",
    "Metric",
    "Pair",
    "Result",
    "Runtime",
    "Score",
    "SetMetric",
    "Suite",
    "Undefined",
    "check_sizes",
    "described",
    "incomplete",
]
