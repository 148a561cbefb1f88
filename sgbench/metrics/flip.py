"""LDR-FLIP (Andersson et al., HPG 2020) as a metric; `sgbench.metrics.flip_maps` computes it."""

from dataclasses import dataclass

from sgbench.metrics.base import ImageMetric, Pair, Runtime


@dataclass(frozen=True, kw_only=True)
class Flip(ImageMetric):
    """The mean of FLIP's error map over the whole image."""

    def score(self, pair: Pair, runtime: Runtime) -> float:
        """Return the mean error of a pair, in [0, 1]; 0 if the images are identical."""
        from sgbench.metrics.flip_maps import mean_error

        return mean_error(pair, runtime.device)


flip = Flip(
    name="flip",
    direction="lower",
    digits=4,
    rank=36,
    version="1",
    protocol={
        "implementation": "sgbench, LDR-FLIP, 67.02 pixels a degree (0.7 m from a display 0.7 m and 3840 pixels wide)",
        "colour_space": "RGB",
        "value_range": [0, 1],
        "border_crop": None,
        "resize": None,
    },
    description="LDR-FLIP, mean over the whole image, 67 pixels a degree",
    source="Andersson et al., Proc. ACM Comput. Graph. Interact. Tech. 3 (2020) 15",
    reference="flip-evaluator 1.7",
    difference=2e-5,
)
