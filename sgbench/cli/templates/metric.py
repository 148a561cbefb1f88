"""The metric ``my_module:my_module``, to be changed into your own.

sgbench check my_module:my_module
sgbench eval bicubic --test Set5=data/Set5/HR --metric my_module:my_module
"""

from torch import Tensor

import sgbench


@sgbench.metric(direction="lower", digits=4, source="the publication, or the formula if there is none")
def my_module(sr: Tensor, hr: Tensor) -> Tensor:
    """Mean absolute difference of RGB values.

    The images have the shape [1, 3, H, W] and values in [0, 1]. A function of ``sr`` alone needs no reference. Raise
    `sgbench.metrics.Undefined` if there is no value for an image.
    """
    return (sr - hr).abs().mean()
