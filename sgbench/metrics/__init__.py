"""How far a super-resolved image, or a set of them, is from its reference.

`base` is the contract, `suite` runs many metrics over pairs of images, and `cache` keeps what is known of references.
`distortion`, `lpips`, `frechet` and `kernel` hold the metrics, which `sgbench.registry.METRICS` loads by name,
`from_torchmetrics` those of a library, and `weights` finds what their networks need. Importing this package loads no
torch: only a metric with a network or of a library, and `weights` itself, do.
"""

from sgbench.metrics.base import (
    Estimate,
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
from sgbench.metrics.cache import HrCache
from sgbench.metrics.suite import Measured, Result, Suite

__all__ = [
    "Estimate",
    "HrCache",
    "Image",
    "ImageMetric",
    "LoadedWeights",
    "Measured",
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
