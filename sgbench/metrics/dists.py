"""DISTS (Ding et al., IEEE TPAMI 2022) as a metric; `sgbench.metrics.dists_network` computes it."""

from dataclasses import dataclass

from sgbench.metrics.base import ImageMetric, Pair, Runtime


@dataclass(frozen=True, kw_only=True)
class Dists(ImageMetric):
    """DISTS over the whole image."""

    def score(self, pair: Pair, runtime: Runtime) -> float:
        """Return the distance of a pair, equal to that of ``DISTS_pytorch.DISTS`` on the same tensors."""
        from sgbench.metrics.dists_network import distance

        return distance(pair, runtime)


dists = Dists(
    name="dists",
    direction="lower",
    digits=4,
    rank=35,
    version="1 (weights of DISTS-pytorch 0.1)",
    protocol={
        "implementation": "sgbench, α and β of DISTS-pytorch 0.1",
        "network": "VGG-16, Hanning pooling",
        "colour_space": "RGB",
        "value_range": [0, 1],
        "border_crop": None,
        "resize": None,
    },
    networks=("dists", "vgg16"),
    description="DISTS, whole image, not resized",
    source="Ding et al., IEEE TPAMI 44 (2022) 2567",
    reference="DISTS-pytorch 0.1",
    difference=1e-6,
)
