"""The common part of FID and KID, which compare features of pytorch-fid's Inception network."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sgbench.metrics.base import Array, Image, Runtime, SetMetric

PROTOCOL: Mapping[str, Any] = {
    "network": "InceptionV3 (2015-12-05), pool3, 2048 features",
    "colour_space": "RGB",
    "value_range": [0, 1],
    "border_crop": None,
    "resize": "299×299, bilinear, no antialias, aspect ignored",
}
"""How an image becomes a vector."""


@dataclass(frozen=True, kw_only=True)
class InceptionMetric(SetMetric):
    """A metric of sets that compares Inception's features."""

    def features(self, image: Image, runtime: Runtime) -> Array:
        """Return Inception's pooled features, [2048]."""
        from sgbench.metrics.inception_network import features  # here, as it loads torch

        return features(image, runtime)
