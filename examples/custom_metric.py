"""A custom metric, which needs no reference. Run in this folder, one command scores images that have no HR version.

    sgbench eval bicubic --test real=none,lr=photos --metric custom_metric:sharpness

``photos`` is any folder of images, and ``bicubic`` may also be a run, a checkpoint or a folder of results.
"""

from torch import Tensor

import sgbench


@sgbench.metric(direction="higher", digits=5, crop=True, source="Pech-Pacheco et al., ICPR 2000")
def sharpness(sr: Tensor) -> Tensor:
    """Variance of the Laplacian of grey values, which rises with sharpness, but also with noise and ringing."""
    grey = sr.mean(dim=1)  # of R, G and B in [0, 1]
    sides = grey[:, :-2, 1:-1] + grey[:, 2:, 1:-1] + grey[:, 1:-1, :-2] + grey[:, 1:-1, 2:]
    return (sides - 4 * grey[:, 1:-1, 1:-1]).var(correction=0)
