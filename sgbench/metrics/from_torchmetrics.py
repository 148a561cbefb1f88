"""Full-reference metrics of the library torchmetrics, as ``torchmetrics:NAME``.

torchmetrics (https://github.com/Lightning-AI/torchmetrics, the extra ``sgbench[torchmetrics]``) has more of them than
are offered here: these compare two images without a network, and have a value for any image that is large enough. They
get the pixels that `psnr_rgb` gets, in float64, and are called with the defaults of the library.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

from sgbench.core.errors import InputError, unknown
from sgbench.metrics.base import ImageMetric, Pair, Runtime, Undefined


@dataclass(frozen=True)
class Function:
    """A function of ``torchmetrics.functional.image`` of two images [1, 3, H, W]; higher values are better."""

    name: str
    smallest: int
    """The least side of an image in pixels."""
    description: str
    source: str
    options: Mapping[str, Any] = field(default_factory=dict)
    """Arguments that give the range of values."""


FUNCTIONS = {
    "ms_ssim": Function(
        name="multiscale_structural_similarity_index_measure",
        smallest=176,
        description="structural similarity at five scales",
        source="Wang, Simoncelli and Bovik, Asilomar 2003",
        options={"data_range": 255.0},
    ),
    "uqi": Function(
        name="universal_image_quality_index",
        smallest=11,
        description="universal image quality index",
        source="Wang and Bovik, IEEE Signal Processing Letters 2002",
    ),
    "vif": Function(
        name="visual_information_fidelity",
        smallest=41,
        description="visual information fidelity in the pixel domain",
        source="Sheikh and Bovik, IEEE TIP 2006",
    ),
}
"""By the name after the prefix."""


@dataclass(frozen=True, kw_only=True)
class TorchMetric(ImageMetric):
    """A `Function` of the cropped RGB pixels of a pair."""

    function: Function

    def score(self, pair: Pair, runtime: Runtime) -> float:
        """Return the value for one pair of images, computed on the runtime's device.

        Raises:
            Undefined: If the image is smaller than the function can take, or it divides 0 by 0.
        """
        import torch  # here, as a plan does not need it
        from torchmetrics.functional import image as functions

        views = pair.cropped(lambda image: image.pixels)
        height, width = views[0].shape[-2:]
        if min(height, width) < self.function.smallest:
            needed = f"{self.function.smallest}×{self.function.smallest}"
            raise Undefined(f"{width}×{height} pixels are left after the crop, and {self.name} needs at least {needed}")
        sr, hr = (torch.tensor(view, dtype=torch.float64, device=runtime.device)[None] for view in views)
        value = float(getattr(functions, self.function.name)(sr, hr, **self.function.options))
        if math.isnan(value):
            raise Undefined(f"{self.name} divides 0 by 0, as for constant images")
        return value


def metric(name: str) -> TorchMetric:
    """Return a metric of the library.

    Args:
        name: One of `FUNCTIONS`.

    Raises:
        InputError: If there is none of that name, or torchmetrics is not installed.
    """
    if name not in FUNCTIONS:
        raise unknown("metric of torchmetrics", name, FUNCTIONS)
    if find_spec("torchmetrics") is None:
        how = "pip install 'sgbench[torchmetrics]'"
        raise InputError(f"metrics 'torchmetrics:…' need torchmetrics (not installed); {how}.")
    function = FUNCTIONS[name]
    return TorchMetric(
        name=f"torchmetrics:{name}",
        direction="higher",
        version=f"torchmetrics {version('torchmetrics')}",
        protocol={
            "implementation": f"torchmetrics.functional.image.{function.name}",
            "colour_space": "RGB",
            "value_range": [0, 255],
            "border_crop": "scale",
            "resize": None,
        },
        description=function.description,
        source=function.source,
        function=function,
    )
