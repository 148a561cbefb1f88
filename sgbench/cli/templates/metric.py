"""The metric ``my_module:my_module``, to be changed into your own.

sgbench check my_module:my_module
sgbench eval bicubic --test Set5=data/Set5/HR --metric my_module:my_module
"""

import numpy as np

from sgbench.metrics import ImageMetric, Pair, Runtime


class MyClass(ImageMetric):
    """Mean absolute error of RGB values, without the border."""

    def score(self, pair: Pair, runtime: Runtime) -> float:
        """Return the value for one pair of images; raise `sgbench.metrics.Undefined` if it has none."""
        sr, hr = pair.cropped(lambda image: image.pixels)
        return float(np.abs(sr.astype(float) - hr).mean())


my_module = MyClass(
    name="my_module:my_module",
    direction="lower",
    version="1",  # change it whenever the same images would get another value
    protocol={"implementation": "my_module", "colour_space": "RGB", "value_range": [0, 255], "border_crop": "scale"},
    digits=3,
    description="mean absolute error",
    source="the publication, or the formula if there is none",
)
