"""SSIMULACRA 2.1 (Sneyers, Cloudinary 2023) as a metric; `sgbench.metrics.ssimulacra2_maps` computes it."""

from dataclasses import dataclass

from sgbench.metrics.base import ImageMetric, Pair, Runtime


@dataclass(frozen=True, kw_only=True)
class Ssimulacra2(ImageMetric):
    """SSIMULACRA 2.1 over the whole image."""

    def score(self, pair: Pair, runtime: Runtime) -> float:
        """Return the score of a pair, up to 100, which identical images have.

        Raises:
            Undefined: If a side is shorter than 8 pixels.
        """
        from sgbench.metrics.ssimulacra2_maps import score

        return score(pair, runtime.device)


ssimulacra2 = Ssimulacra2(
    name="ssimulacra2",
    direction="higher",
    digits=2,
    rank=37,
    version="1 (SSIMULACRA 2.1)",
    protocol={
        "implementation": "sgbench, SSIMULACRA 2.1 with its Gaussian filter in closed form",
        "colour_space": "XYB of libjxl",
        "value_range": [0, 1],
        "border_crop": None,
        "resize": None,
    },
    description="SSIMULACRA 2.1, whole image, 100 is identical",
    source="github.com/cloudinary/ssimulacra2, version 2.1",
    reference="cloudinary/ssimulacra2 2.1",
    difference=0.5,
)
