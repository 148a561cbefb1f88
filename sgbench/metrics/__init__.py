"""How far a super-resolved image, or a set of them, is from its reference.

`base` is the contract, `functions` makes metrics of functions, `suite` runs many metrics over pairs of images, and
`cache` keeps results about references. `distortion` (PSNR, SSIM), `frechet` (FID), `kernel` (KID) and modules that are
named after their metric hold what `METRICS` loads by name, and `from_torchmetrics` and `from_pyiqa` the metrics of
libraries. `display` says how scores are shown. Neither this package nor the declaration of a metric imports torch: only
computing with a network or a library does.
"""

from sgbench.metrics.base import (
    METRICS,
    CompositeMetric,
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
    incomplete,
    register_metric,
)
from sgbench.metrics.cache import HrCache
from sgbench.metrics.display import Display, display_of
from sgbench.metrics.functions import FunctionMetric, metric
from sgbench.metrics.suite import Measured, Result, Suite

__all__ = [
    "METRICS",
    "CompositeMetric",
    "Display",
    "Estimate",
    "FunctionMetric",
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
    "display_of",
    "incomplete",
    "metric",
    "register_metric",
]
