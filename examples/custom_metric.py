"""A custom metric, which needs no reference. Run in this folder, one command scores images that have no HR version.

    sgbench eval bicubic --test real=none,lr=photos --metric custom_metric:sharpness

``photos`` is any folder of images, and ``bicubic`` may also be a run, a checkpoint or a folder of results.
"""

from sgbench.metrics import ImageMetric, Pair, Runtime


class Sharpness(ImageMetric):
    """Variance of the Laplacian of Y. It tells sharp from blurred, but also rises with noise and ringing."""

    def score(self, pair: Pair, runtime: Runtime) -> float:
        """Return the value for an image, without its border."""
        y = pair.cropped_sr(lambda image: image.luma)
        sides = y[:-2, 1:-1] + y[2:, 1:-1] + y[1:-1, :-2] + y[1:-1, 2:]
        return float((sides - 4 * y[1:-1, 1:-1]).var())


sharpness = Sharpness(
    name="custom_metric:sharpness",
    direction="higher",
    version="1",
    protocol={"implementation": "custom_metric", "colour_space": "Y", "value_range": [16, 235], "border_crop": "scale"},
    needs_hr=False,
    description="variance of the Laplacian, without a reference",
    source="Pech-Pacheco et al., ICPR 2000",
)
